//! Service account tokens: claims, signing and checking of JSON Web Tokens. Pure but for the signature's randomness:
//! time is an argument, and whether the objects a token names still exist is asked through [`Objects`].
//!
//! Invariant: a token is accepted only with our issuer, one of our keys, a time within its bounds, and every object it
//! is bound to still there with the same UID.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::user::{self, User};

/// Clocks may differ by this much (go-jose's `DefaultLeeway`).
const LEEWAY_SECONDS: i64 = 60;
/// How far in the future a token of ours may have been made. Only this cluster makes them, always valid from now on: one
/// from the future says that the clock was set back since, and refusing it would cut off every pod until the clock has
/// caught up. Upstream allows a minute.
const SET_BACK_SECONDS: i64 = 24 * 3600;
/// Longer ones are not ours; bounds the work an unauthenticated caller can cause.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
const EXTRA_PREFIX: &str = "authentication.kubernetes.io/";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not a token of this issuer at all: other authenticators may know it.
    #[error("not a service account token")]
    NotOurs,
    #[error("invalid signature, no keys found")]
    UnknownKey,
    #[error("invalid signature")]
    Signature,
    #[error("token audiences {token} is invalid for the target audiences {wanted}")]
    Audience { token: String, wanted: String },
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYetValid,
    #[error("service account token is issued in the future")]
    IssuedInFuture,
    #[error("serviceaccounts {0:?} not found")]
    NoAccount(String),
    #[error("service account UID ({found}) does not match claim ({claimed})")]
    AccountReplaced { found: String, claimed: String },
    #[error("service account {0} has been deleted")]
    AccountDeleted(String),
    #[error("service account token has been invalidated")]
    Invalidated,
    #[error("{kind} UID ({found}) does not match service account {kind} ref claim ({claimed})")]
    ObjectReplaced { kind: &'static str, found: String, claimed: String },
}

#[derive(Debug, thiserror::Error)]
#[error("service account signing key: {0}")]
pub struct KeyError(String);

/// Name and UID of an object a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// Upstream's private claims, under `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    #[serde(default)]
    pub serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    #[serde(default)]
    pub exp: i64,
    #[serde(default)]
    pub iat: i64,
    #[serde(default)]
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(default, rename = "kubernetes.io")]
    pub binding: Binding,
    #[serde(default)]
    pub nbf: i64,
    #[serde(default)]
    pub sub: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(input)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// What the cluster knows of an object a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub uid: String,
    /// Seconds since the epoch.
    pub deleted_at: Option<i64>,
}

/// Where bound objects are looked up, by plural resource of the core group.
pub trait Objects {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Known>;
}

/// Signs and checks with one P-256 key.
pub struct Issuer {
    issuer: String,
    key_id: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    jwk: Value,
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("issuer", &self.issuer).field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Issuer {
    pub fn new(issuer: impl Into<String>, key_pem: &str) -> Result<Self, KeyError> {
        let pair = KeyPair::from_pem(key_pem).map_err(|e| KeyError(e.to_string()))?;
        let encoding = EncodingKey::from_ec_pem(key_pem.as_bytes()).map_err(|e| KeyError(e.to_string()))?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
        // Uncompressed point: 0x04, x, y.
        let [0x04, point @ ..] = pair.public_key_raw() else {
            return Err(KeyError("not an uncompressed P-256 point".to_owned()));
        };
        let (x, y) = point.split_at(point.len() / 2);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let decoding = DecodingKey::from_ec_components(&x, &y).map_err(|e| KeyError(e.to_string()))?;
        let jwk = json!({ "use": "sig", "kty": "EC", "kid": key_id, "crv": "P-256", "alg": "ES256", "x": x, "y": y });
        // Only the signature and its algorithm are left to the library; the claims are judged here, in upstream's words.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        Ok(Self { issuer: issuer.into(), key_id, encoding, decoding, validation, jwk })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public key as a JSON Web Key.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let mut header = Header::new(Algorithm::ES256);
        (header.typ, header.kid) = (None, Some(self.key_id.clone()));
        jsonwebtoken::encode(&header, claims, &self.encoding).map_err(|e| KeyError(e.to_string()))
    }

    /// Whose token it is and that nobody altered it; says nothing of time, audience and objects.
    pub fn verify(&self, token: &str) -> Result<Claims, Error> {
        if token.len() > TOKEN_BYTES_MAX || issuer_of(token).is_none_or(|iss| iss != self.issuer) {
            return Err(Error::NotOurs);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Error::NotOurs)?;
        if header.kid.as_ref().is_some_and(|kid| *kid != self.key_id) {
            return Err(Error::UnknownKey);
        }
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation);
        decoded.map(|data| data.claims).map_err(|_| Error::Signature)
    }
}

/// The `iss` of an unverified token.
fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Payload {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload: Payload = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    Some(payload.iss)
}

impl Claims {
    /// The audiences of the token that are among `wanted`; an error when there is none.
    pub fn audiences(&self, wanted: &[String], implicit: &[String]) -> Result<Vec<String>, Error> {
        let own = if self.aud.is_empty() { implicit } else { &self.aud };
        let common: Vec<String> = own.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if common.is_empty() {
            let list = |l: &[String]| crate::authz::rule::quoted(l.iter().map(String::as_str));
            return Err(Error::Audience { token: list(own), wanted: list(wanted) });
        }
        Ok(common)
    }

    /// Time bounds and bound objects. `now` in seconds since the epoch.
    pub fn check(&self, now: i64, objects: &dyn Objects) -> Result<(), Error> {
        if self.nbf != 0 && now + SET_BACK_SECONDS < self.nbf {
            return Err(Error::NotYetValid);
        }
        if now - LEEWAY_SECONDS > self.exp {
            return Err(Error::Expired);
        }
        if now + SET_BACK_SECONDS < self.iat {
            return Err(Error::IssuedInFuture);
        }
        let gone = |known: &Known| known.deleted_at.is_some_and(|at| at < now - LEEWAY_SECONDS);
        let Binding { namespace, serviceaccount: account, pod, secret, node, .. } = &self.binding;
        let known = objects
            .find("serviceaccounts", namespace, &account.name)
            .ok_or_else(|| Error::NoAccount(account.name.clone()))?;
        if known.uid != account.uid {
            return Err(Error::AccountReplaced { found: known.uid, claimed: account.uid.clone() });
        }
        if gone(&known) {
            return Err(Error::AccountDeleted(format!("{namespace}/{}", account.name)));
        }
        let bound = [
            ("secrets", "secret", secret, namespace.as_str()),
            ("pods", "pod", pod, namespace.as_str()),
            // With a pod, the node is information about the pod, not what the token is bound to.
            ("nodes", "node", if pod.is_some() { &None } else { node }, ""),
        ];
        for (resource, kind, reference, namespace) in bound {
            let Some(reference) = reference else { continue };
            let known = objects.find(resource, namespace, &reference.name).ok_or(Error::Invalidated)?;
            if known.uid != reference.uid {
                let claimed = reference.uid.clone();
                return Err(Error::ObjectReplaced { kind, found: known.uid, claimed });
            }
            if gone(&known) {
                return Err(Error::Invalidated);
            }
        }
        Ok(())
    }

    /// Who the token speaks for.
    pub fn user(&self) -> User {
        let binding = &self.binding;
        let mut user = user::service_account(&binding.namespace, &binding.serviceaccount.name);
        user.uid.clone_from(&binding.serviceaccount.uid);
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(format!("{EXTRA_PREFIX}{key}"), vec![value.to_owned()]);
            }
        };
        if !self.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", self.jti));
        }
        if let Some(pod) = &binding.pod {
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &binding.node {
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        user
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
