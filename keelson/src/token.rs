//! `keelson token`: bootstrap tokens, kept by the API server as Secrets `bootstrap-token-ID` in kube-system. Any client
//! may make such Secrets; these commands know their form and add the authority's hash.

use std::collections::BTreeMap;
use std::time::Duration;

use ::agent::certificates::Token;
use anyhow::{Context, Result, bail};
use api_client::transport::Remote;
use api_client::{Client, DeleteParams, ListParams, ObjectKey, kubeconfig};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::args::{TokenCommand, TokenServer};
use crate::config::DEFAULT_DATA_DIR;
use crate::state;

const NAMESPACE: &str = "kube-system";
const PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Members may become nodes: the roles `keelson:node-bootstrap` and `keelson:node-approve-bootstrap` are bound to it.
pub const NODE_GROUP: &str = "system:bootstrappers:keelson:nodes";
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

pub async fn run(command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::Create { server, ttl, description } => create(&server, ttl, description).await,
        TokenCommand::List { server } => list(&server).await,
        TokenCommand::Delete { server, ids } => delete(&server, &ids).await,
    }
}

/// An administrator's client, and the authority it trusts.
fn connect(server: &TokenServer) -> Result<(Client, Vec<u8>)> {
    let data_dir = server.data_dir.clone().unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let path = server.kubeconfig.clone().unwrap_or_else(|| state::kubeconfig(&data_dir));
    if !path.exists() && server.kubeconfig.is_none() {
        bail!(
            "{} is not there: tokens are made on a server (--data-dir says which), or anywhere with --kubeconfig",
            path.display()
        );
    }
    let config = kubeconfig::load(&path)?;
    let authority = config.tls.authority.as_ref().with_context(|| {
        format!("kubeconfig {} names no certificate authority, whose hash is part of a token", path.display())
    })?;
    let authority = authority.read().context("certificate authority")?;
    let transport = Remote::new(&config).context("set up the connection to the API server")?;
    Ok((Client::new(transport, concat!("keelson-token/", env!("CARGO_PKG_VERSION"))), authority))
}

async fn create(server: &TokenServer, ttl: Duration, description: Option<String>) -> Result<()> {
    let (client, authority) = connect(server)?;
    let pin = tls::certificate::Facts::of_pem(&authority).context("certificate authority")?.pin;
    let token = Token { id: random(6), secret: random(16), pin };
    let mut data = BTreeMap::from([
        ("token-id", token.id.clone()),
        ("token-secret", token.secret.clone()),
        ("usage-bootstrap-authentication", "true".to_owned()),
        ("auth-extra-groups", NODE_GROUP.to_owned()),
    ]);
    if !ttl.is_zero() {
        let ttl = SignedDuration::try_from(ttl).context("--ttl")?;
        let expires = Timestamp::now().checked_add(ttl).context("--ttl")?;
        data.insert("expiration", expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    data.extend(description.map(|text| ("description", text)));
    let name = format!("{PREFIX}{}", token.id);
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE,
        "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": data,
    });
    client.api::<Secret>().create_value(&object).await.context("create the token")?;
    println!("{token}");
    Ok(())
}

async fn list(server: &TokenServer) -> Result<()> {
    let (client, _) = connect(server)?;
    let params = ListParams::namespace(NAMESPACE).fields(format!("type={SECRET_TYPE}"));
    let list = client.api::<Secret>().list(&params).await.context("list tokens")?;
    println!("{:<8} {:<22} {:<8} {:<36} DESCRIPTION", "ID", "EXPIRES", "STATE", "GROUPS");
    for secret in list.items {
        let field = |name: &str| -> String {
            let value = secret.data.as_ref().and_then(|data| data.get(name));
            value.map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default()
        };
        let expiration = field("expiration");
        let state = state(&expiration, Timestamp::now());
        let expires = if expiration.is_empty() { "never".to_owned() } else { expiration };
        let (id, groups, text) = (field("token-id"), field("auth-extra-groups"), field("description"));
        println!("{id:<8} {expires:<22} {state:<8} {groups:<36} {text}");
    }
    Ok(())
}

fn state(expiration: &str, now: Timestamp) -> &'static str {
    match expiration.parse::<Timestamp>() {
        Ok(at) if at <= now => "expired",
        Err(_) if !expiration.is_empty() => "invalid",
        _ => "valid",
    }
}

async fn delete(server: &TokenServer, ids: &[String]) -> Result<()> {
    let (client, _) = connect(server)?;
    for id in ids {
        // A whole token is accepted, too: that is what people have at hand.
        let id = id.split('.').next().unwrap_or(id);
        let key = ObjectKey::new(NAMESPACE, format!("{PREFIX}{id}"));
        match client.api::<Secret>().delete(&key, &DeleteParams::default()).await {
            Ok(_) => println!("token {id} deleted"),
            Err(error) if error.is_not_found() => {
                bail!("there is no token {id}: `keelson token list` shows those there are")
            }
            Err(error) => return Err(error).with_context(|| format!("delete token {id}")),
        }
    }
    Ok(())
}

fn random(length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

/// Reads `24h`, `90m`, `10s`, `7d`, and combinations; `0` is no end.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration such as 24h, 90m or 7d");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut total, mut number) = (Duration::ZERO, String::new());
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let count: u64 = std::mem::take(&mut number).parse().map_err(|_| bad())?;
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(bad()),
        };
        let part = count.checked_mul(unit).map(Duration::from_secs);
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
    }
    if !number.is_empty() || total.is_zero() {
        return Err(bad());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text: &str| duration(text).map(|d| d.as_secs()).ok();
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("7d"), Some(604_800));
        assert_eq!(seconds("0"), Some(0));
        for bad in ["", "h", "10", "1w", "-1h", "1h5"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn tokens_are_random_and_of_the_right_form() {
        let token = Token { id: random(6), secret: random(16), pin: tls::Pin::of_key(b"ca") };
        assert_eq!(token.to_string().parse(), Ok(token));
        assert_ne!(random(16), random(16));
    }

    #[test]
    fn a_token_past_its_time_is_shown_as_such() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let shown = ["", "2026-01-01T00:00:01Z", "2025-12-31T00:00:00Z", "soon"].map(|at| state(at, now));
        assert_eq!(shown, ["valid", "valid", "expired", "invalid"]);
    }
}
