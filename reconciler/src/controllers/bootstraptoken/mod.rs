//! Removes bootstrap tokens whose time is over (upstream's `tokencleaner`).

use std::collections::BTreeMap;
use std::time::Duration;

use api_client::{Cache, DeleteParams, ListParams, Meta, ObjectKey};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Deserialize;

use crate::engine::{Cached, Caches, Controller, Done, Error, Inputs, Output, Work};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// A Secret that holds a bootstrap token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Token {
    pub metadata: Meta,
    pub data: BTreeMap<String, ByteString>,
}

api_client::projection!(
    Token as k8s_openapi::api::core::v1::Secret,
    Meta,
    // The secret itself is nothing this controller should hold.
    trim = |token| token.data.retain(|name, _| name == "expiration")
);

impl Cached for Token {
    fn params() -> ListParams {
        ListParams::namespace(NAMESPACE).fields(format!("type={TYPE}"))
    }
}

impl Token {
    /// When it ends; `None` for never, and for what is no time (the authenticator refuses such a token).
    fn expires(&self) -> Option<Timestamp> {
        std::str::from_utf8(&self.data.get("expiration")?.0).ok()?.parse().ok()
    }
}

/// What is left of a token's time; `None` when it is over.
fn left(expires: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(expires.duration_since(now)).ok().filter(|left| !left.is_zero())
}

pub struct TokenCleaner {
    tokens: Cache<Token>,
}

impl TokenCleaner {
    pub fn new(caches: &Caches) -> Self {
        Self { tokens: caches.get() }
    }
}

#[async_trait]
impl Controller for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.tokens);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "secrets")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(token) = self.tokens.get(key) else { return Ok(Done::Settled) };
        let Some(expires) = token.expires() else { return Ok(Done::Settled) };
        if let Some(left) = left(expires, work.now()) {
            return Ok(Done::After(left));
        }
        work.delete::<Token>(key, &token.metadata.uid, DeleteParams::default()).await?;
        Ok(Done::Settled)
    }
}

#[cfg(test)]
mod tests {
    use api_client::Object;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_has_its_time_and_its_secret_is_not_kept() {
        let object = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "data": {
            "expiration": "MjAyNi0wMS0wMVQwMDowMDowMFo=", "token-secret": "eA==",
        }});
        let mut token: Token = serde_json::from_value(object).unwrap();
        token.trim();
        assert_eq!(token.data.len(), 1);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let expires = token.expires().unwrap();
        assert_eq!(left(expires, at("2025-12-31T23:59:00Z")), Some(Duration::from_secs(60)));
        assert_eq!(left(expires, at("2026-01-01T00:00:00Z")), None);
        assert_eq!(Token::default().expires(), None);
    }
}
