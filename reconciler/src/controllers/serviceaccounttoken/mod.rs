//! Tokens in Secrets of the type `kubernetes.io/service-account-token`: filled in for their account, and deleted with
//! it. Keys are those of the Secrets.
//!
//! The token itself comes from the API server (TokenRequest), bound to the Secret, so it ends with it and no signing
//! key leaves the server. Upstream signs a token without an end of its own kind; this one ends in 136 years, which is
//! as long as the API gives any. Not here: upstream's clean-up of tokens that were made for every account before
//! v1.24, as no cluster of ours has any.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api_client::{Cache, DeleteParams, ListParams, Meta, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine::{Cached, Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::ServiceAccount;

const TYPE: &str = "kubernetes.io/service-account-token";
const UID: &str = "kubernetes.io/service-account.uid";
/// The longest that TokenRequest gives.
const LIFETIME_SECONDS: i64 = 1 << 32;

/// A Secret that holds, or is to hold, a token.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TokenSecret {
    pub metadata: Meta<Annotations>,
    pub data: BTreeMap<String, ByteString>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Annotations {
    #[serde(rename = "kubernetes.io/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/service-account.uid")]
    uid: String,
}

api_client::projection!(
    TokenSecret as k8s_openapi::api::core::v1::Secret,
    Meta<Annotations>,
    // Whether there is a token counts; the token itself is nothing this controller should hold.
    trim = |secret| {
        secret.data.retain(|name, _| matches!(name.as_str(), "token" | "ca.crt" | "namespace"));
        if let Some(token) = secret.data.get_mut("token") {
            token.0.truncate(1);
        }
    }
);

impl Cached for TokenSecret {
    fn params() -> ListParams {
        ListParams::default().fields(format!("type={TYPE}"))
    }
}

/// What to do about a Secret.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    /// Its account is gone, or another one of that name.
    Delete,
    /// Add what is missing.
    Fill {
        token: bool,
    },
}

fn plan(secret: &TokenSecret, account: Option<&ServiceAccount>, root_ca: Option<&str>) -> Step {
    let wanted = &secret.metadata.annotations.uid;
    let Some(account) = account.filter(|a| wanted.is_empty() || a.metadata.uid == *wanted) else { return Step::Delete };
    let has = |key: &str| secret.data.get(key).is_some_and(|value| !value.0.is_empty());
    let token = !has("token");
    let authority = root_ca.is_some_and(|ca| secret.data.get("ca.crt").is_none_or(|have| have.0 != ca.as_bytes()));
    if token || authority || !has("namespace") || *wanted != account.metadata.uid {
        return Step::Fill { token };
    }
    Step::Nothing
}

pub struct Tokens {
    secrets: Cache<TokenSecret>,
    accounts: Cache<ServiceAccount>,
    root_ca: Option<String>,
}

impl Tokens {
    pub fn new(caches: &Caches, root_ca: Option<String>) -> Self {
        Self { secrets: caches.get(), accounts: caches.get(), root_ca }
    }
}

#[async_trait]
impl Controller for Tokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn queue(&self) -> &'static str {
        "serviceaccount_tokens_secret"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.secrets);
        let secrets = self.secrets.clone();
        inputs.watch(&self.accounts, move |change, wake| {
            let uid =
                |account: &Option<std::sync::Arc<ServiceAccount>>| account.as_ref().map(|a| a.metadata.uid.clone());
            if uid(&change.old) == uid(&change.new) {
                return;
            }
            let all = secrets.snapshot();
            let own = all.namespace(&change.key.namespace);
            own.filter(|s| s.metadata.annotations.account == change.key.name).for_each(|s| wake(s.metadata.key()));
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "secrets"), Output::exclusive("", "serviceaccounts/token")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Done::Settled) };
        let name = secret.metadata.annotations.account.as_str();
        if name.is_empty() || secret.metadata.is_deleting() {
            return Ok(Done::Settled);
        }
        let account_key = ObjectKey::new(key.namespace.as_str(), name);
        // The account may have been made just before the Secret, and deleting must not rest on a cache that is behind.
        let account = match self.accounts.get(&account_key) {
            Some(account) if plan(&secret, Some(&account), self.root_ca.as_deref()) != Step::Delete => {
                Some((*account).clone())
            }
            _ => work.live::<ServiceAccount>().find(&account_key).await?,
        };
        match plan(&secret, account.as_ref(), self.root_ca.as_deref()) {
            Step::Nothing => {}
            Step::Delete => {
                work.delete::<TokenSecret>(key, &secret.metadata.uid, DeleteParams::default()).await?;
            }
            Step::Fill { token } => {
                let account = account.expect("without an account the plan is to delete");
                let token = if token { Some(request(work, &account_key, &secret).await?) } else { None };
                let patch = fill(&secret, &account, token.as_deref(), self.root_ca.as_deref());
                work.patch::<TokenSecret>(key, &Patch::Merge(patch)).await?;
            }
        }
        Ok(Done::Settled)
    }
}

/// A token for the account that is worth something as long as the Secret exists.
async fn request(work: &Work, account: &ObjectKey, secret: &TokenSecret) -> Result<String, Error> {
    work.declared("", "serviceaccounts", "token")?;
    let (name, uid) = (&secret.metadata.name, &secret.metadata.uid);
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": name, "uid": uid});
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "expirationSeconds": LIFETIME_SECONDS, "boundObjectRef": bound},
    });
    let answer: Value = work.live::<ServiceAccount>().post_subresource(account, "token", &request).await?;
    let token = answer["status"]["token"].as_str().filter(|token| !token.is_empty());
    let none = || Error::Object { object: format!("ServiceAccount {account}"), why: "the server gave no token".into() };
    token.map(str::to_owned).ok_or_else(none)
}

/// A merge patch that holds only for this version of the Secret.
fn fill(secret: &TokenSecret, account: &ServiceAccount, token: Option<&str>, root_ca: Option<&str>) -> Value {
    let bytes = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    let mut data = json!({"namespace": bytes(&secret.metadata.namespace)});
    if let Some(token) = token {
        data["token"] = bytes(token);
    }
    if let Some(root_ca) = root_ca {
        data["ca.crt"] = bytes(root_ca);
    }
    let metadata = json!({
        "resourceVersion": secret.metadata.resource_version, "annotations": {UID: account.metadata.uid},
    });
    json!({"metadata": metadata, "data": data})
}
