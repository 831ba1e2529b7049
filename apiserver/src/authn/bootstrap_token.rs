//! Bootstrap tokens: `id.secret`, kept as Secrets of type `bootstrap.kubernetes.io/token` in kube-system, for nodes that
//! have no certificate yet. Pure: the Secret is an argument.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::user::User;

pub const SECRET_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 16;
/// Longest suffix of an extra group (upstream's `BootstrapGroupPattern`).
const GROUP_SUFFIX_BYTES_MAX: usize = 256;

/// Id and secret, when the text has the form of a bootstrap token.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == ID_BYTES && secret.len() == SECRET_BYTES && plain(id) && plain(secret)).then_some((id, secret))
}

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such token, for all its sender is told.
    Invalid,
    /// Said only to those who have the secret.
    Expired(String),
}

/// The user a token speaks for, when its Secret says so. `now` in seconds since the epoch.
pub fn user(object: &Value, id: &str, secret: &str, now: i64) -> Result<User, Refusal> {
    let user = unexpired(object, id, secret).ok_or(Refusal::Invalid)?;
    match field(object, "expiration") {
        Some(at) if at.parse::<Timestamp>().map_err(|_| Refusal::Invalid)?.as_second() <= now => {
            Err(Refusal::Expired(at))
        }
        _ => Ok(user),
    }
}

fn field(object: &Value, name: &str) -> Option<String> {
    let bytes = STANDARD.decode(object["data"].get(name)?.as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

fn unexpired(object: &Value, id: &str, secret: &str) -> Option<User> {
    if object["type"] != SECRET_TYPE || api::meta::deletion_timestamp(object).is_some() {
        return None;
    }
    let field = |name: &str| field(object, name);
    if !same(field("token-secret")?.as_bytes(), secret.as_bytes()) || field("token-id")? != id {
        return None;
    }
    if field("usage-bootstrap-authentication")? != "true" {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in field("auth-extra-groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
        if !extra_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Some(User::new(format!("system:bootstrap:{id}"), &groups))
}

fn extra_group(group: &str) -> bool {
    let Some(suffix) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let inner = suffix.bytes().all(|b| plain(b) || b == b':' || b == b'-');
    inner && suffix.len() <= GROUP_SUFFIX_BYTES_MAX && suffix.bytes().last().is_some_and(plain)
}

/// Compares without telling by its duration where two secrets differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef";

    fn stored(change: impl Fn(&mut Value)) -> Value {
        let encode = |s: &str| STANDARD.encode(s);
        let mut object = json!({"type": SECRET_TYPE, "metadata": {"name": "bootstrap-token-abcdef"}, "data": {
            "token-id": encode("abcdef"), "token-secret": encode(SECRET),
            "usage-bootstrap-authentication": encode("true"),
            "expiration": encode("2030-01-01T00:00:00Z"),
            "auth-extra-groups": encode("system:bootstrappers:kubeadm:default-node-token"),
        }});
        change(&mut object);
        object
    }

    #[test]
    fn forms_are_told_apart() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", SECRET)));
        for other in ["abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef0123456789abcdef", "abcde.0123456789abcdefg"] {
            assert_eq!(split(other), None, "{other}");
        }
    }

    #[test]
    fn a_valid_secret_gives_the_bootstrap_user() {
        let user = user(&stored(|_| {}), "abcdef", SECRET, 1_800_000_000).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        let groups =
            ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated"];
        assert_eq!(user.groups, groups);
    }

    #[test]
    fn anything_off_refuses() {
        let set = |field: &'static str, value: &'static str| {
            stored(move |o| o["data"][field] = STANDARD.encode(value).into())
        };
        let good = |object: &Value| user(object, "abcdef", SECRET, 1_800_000_000).is_ok();
        assert!(!good(&set("token-secret", "0123456789abcdeX")));
        assert!(!good(&set("token-id", "abcdeX")));
        assert!(!good(&set("expiration", "2020-01-01T00:00:00Z")));
        let expired = set("expiration", "2020-01-01T00:00:00Z");
        let told = Refusal::Expired("2020-01-01T00:00:00Z".into());
        assert_eq!(user(&expired, "abcdef", SECRET, 1_800_000_000), Err(told));
        assert_eq!(user(&expired, "abcdef", "0000000000000000", 1_800_000_000), Err(Refusal::Invalid));
        assert!(!good(&set("expiration", "soon")));
        assert!(!good(&set("usage-bootstrap-authentication", "false")));
        assert!(!good(&set("auth-extra-groups", "system:masters")));
        assert!(!good(&set("auth-extra-groups", "system:bootstrappers:")));
        assert!(!good(&stored(|o| o["type"] = "Opaque".into())));
        assert!(!good(&stored(|o| o["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z".into())));
    }
}
