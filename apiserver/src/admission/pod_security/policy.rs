//! The labels of a namespace as a policy: a level and a version for each mode.

use serde_json::{Map, Value};

use api::field;

/// The minor version whose standards `latest` means.
pub const LATEST_MINOR: u32 = 36;
const LABEL: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelVersion {
    pub level: Level,
    /// Minor version; `None` is the latest.
    pub version: Option<u32>,
}

impl LevelVersion {
    /// The version to judge by; versions to come are judged as the latest.
    pub fn minor(self) -> u32 {
        self.version.unwrap_or(LATEST_MINOR).min(LATEST_MINOR)
    }
}

impl std::fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub enforce: LevelVersion,
    pub warn: LevelVersion,
}

impl Policy {
    pub fn is_privileged(&self) -> bool {
        self.enforce.level == Level::Privileged && self.warn.level == Level::Privileged
    }

    /// The policy of these labels, and what is wrong with them. A label that can't be read counts as `restricted`.
    /// The `warn` level is at least the enforced one where the label is absent, as upstream does it.
    pub fn of_labels(labels: Option<&Map<String, Value>>) -> (Self, Vec<field::Error>) {
        let mut errors = Vec::new();
        let mut mode = |name: &str| {
            let text = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
            let (level_key, version_key) = (format!("{LABEL}{name}"), format!("{LABEL}{name}-version"));
            let level = text(&level_key).map(|value| {
                parse_level(value).unwrap_or_else(|| {
                    errors.push(wrong(&level_key, value, "must be one of privileged, baseline, restricted"));
                    Level::Restricted
                })
            });
            let version = text(&version_key).map(|value| {
                parse_version(value).unwrap_or_else(|| {
                    errors.push(wrong(&version_key, value, "must be \"latest\" or \"v1.x\""));
                    None
                })
            });
            (level, version)
        };
        let (enforce, enforce_version) = mode("enforce");
        let _audit = mode("audit");
        let (warn, warn_version) = mode("warn");
        let enforce = LevelVersion { level: enforce.unwrap_or_default(), version: enforce_version.unwrap_or_default() };
        let mut warn_level =
            LevelVersion { level: warn.unwrap_or_default(), version: warn_version.unwrap_or_default() };
        if warn.is_none() && enforce.level > warn_level.level {
            warn_level.level = enforce.level;
            if warn_version.is_none() {
                warn_level.version = enforce.version;
            }
        }
        (Self { enforce, warn: warn_level }, errors)
    }
}

fn wrong(key: &str, value: &str, why: &str) -> field::Error {
    field::Error::invalid(format!("metadata.labels[{key}]"), value, why)
}

fn parse_level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

/// `Some(None)` is the latest.
fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor == "0" || !minor.starts_with('0');
    minor.parse().ok().filter(|_| plain && minor.bytes().all(|b| b.is_ascii_digit())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(labels: Value) -> (Policy, usize) {
        let (policy, errors) = Policy::of_labels(labels.as_object());
        (policy, errors.len())
    }

    #[test]
    fn labels_make_a_policy() {
        let key = |name: &str| format!("{LABEL}{name}");
        let (read, errors) = policy(json!({key("enforce"): "baseline", key("enforce-version"): "v1.20"}));
        assert_eq!(
            (read.enforce.to_string(), read.warn.to_string(), errors),
            ("baseline:v1.20".into(), "baseline:v1.20".into(), 0)
        );
        let (read, _) = policy(json!({key("enforce"): "baseline", key("warn"): "privileged"}));
        assert_eq!(read.warn.level, Level::Privileged);
        let (read, errors) = policy(json!({key("enforce"): "tight", key("warn-version"): "v2"}));
        assert_eq!((read.enforce.level, errors), (Level::Restricted, 2));
        assert!(policy(json!({})).0.is_privileged());
    }
}
