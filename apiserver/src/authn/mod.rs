//! Authentication: from a peer and its headers to a [`User`]. Client certificate first, then bearer token, else
//! anonymous. Credentials that are there but bad are answered 401, never taken for anonymous.

pub mod bootstrap_token;
pub mod certificate;
pub mod impersonation;
pub mod token;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use api::status::Status;

use crate::pki;
use crate::server::Server;
use crate::user::{Peer, User};
use token::{Claims, Issuer, Known};

/// Tokens whose signature is remembered as good; beyond it all are forgotten. About 1 KB each.
const REMEMBERED_MAX: usize = 16 * 1024;
/// How browsers, which can set no header, send a bearer token (`bearertoken/websocket`).
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    #[error(transparent)]
    Key(#[from] token::KeyError),
}

/// A request whose sender is known.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub user: User,
}

/// Why a token is not accepted, in the words a TokenReview shows.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("invalid bearer token")]
    Invalid,
    #[error("bootstrap token {id} expired at {at}")]
    Expired { id: String, at: String },
    #[error("[invalid bearer token, {0}]")]
    ServiceAccount(#[from] token::Error),
}

/// A good token.
#[derive(Debug)]
pub struct Bearer {
    pub user: User,
    pub audiences: Vec<String>,
}

#[derive(Debug)]
pub struct Authenticator {
    certificates: certificate::Verifier,
    issuer: Issuer,
    audiences: Vec<String>,
    /// By hash of the token. Only the signature's outcome: time and bound objects are looked at each time.
    remembered: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
    pub(crate) modes: impersonation::Modes,
}

impl Authenticator {
    /// `issuer` is the URL in the tokens, and also the audience of tokens for this server.
    pub fn new(identity: &pki::Cluster, issuer: &str) -> Result<Self, Error> {
        Ok(Self {
            certificates: certificate::Verifier::new(identity.authority.certificate())?,
            issuer: Issuer::new(issuer, &identity.token_key_pem)?,
            audiences: vec![issuer.to_owned()],
            remembered: Mutex::default(),
            modes: impersonation::Modes::default(),
        })
    }

    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }
    /// The audiences of tokens meant for this server.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// The user behind a request; 401 when credentials are there but bad, or when none are there and anonymous
    /// requests are off.
    pub async fn authenticate(&self, server: &Server, parts: &Parts, peer: &Peer) -> Result<Authenticated, Status> {
        let (certificates, _) = match peer {
            Peer::Component(user) => return Ok(Authenticated { user: user.clone() }),
            Peer::Remote { certificates, address } => (certificates, address),
        };
        let now = Timestamp::now().as_second();
        let bearer = bearer_token(&parts.headers);
        if !certificates.is_empty() {
            match self.certificates.user(certificates, now) {
                Ok(user) => return Ok(Authenticated { user }),
                Err(error) => tracing::debug!(%error, "client certificate not accepted"),
            }
            if bearer.is_none() {
                return Err(Status::unauthorized());
            }
        }
        if let Some(token) = bearer {
            let good = self.bearer(server, &token, &self.audiences, now).await;
            return good.map(|good| Authenticated { user: good.user }).map_err(|error| {
                tracing::debug!(%error, "bearer token not accepted");
                match error {
                    // Who has the secret of an expired token may know; a machine's operator has to.
                    TokenError::Expired { .. } => Status::new(401, "Unauthorized", error.to_string()),
                    _ => Status::unauthorized(),
                }
            });
        }
        if server.options.allow_anonymous {
            return Ok(Authenticated { user: User::anonymous() });
        }
        Err(Status::unauthorized())
    }

    /// Whose token it is, if it is good for one of the audiences.
    pub async fn bearer(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<Bearer, TokenError> {
        match self.claims(token) {
            Ok(claims) => {
                let common = claims.audiences(audiences, &self.audiences)?;
                claims.check(now, &Objects(server))?;
                return Ok(Bearer { user: claims.user(), audiences: common });
            }
            Err(token::Error::NotOurs) => {}
            Err(error) => return Err(error.into()),
        }
        let Some((id, secret)) = bootstrap_token::split(token) else { return Err(TokenError::Invalid) };
        let key = format!("kube-system/{}{id}", bootstrap_token::SECRET_PREFIX);
        let found = server.resource("", "secrets").and_then(|(_, cache)| cache.snapshot().get(&key).map(|i| i.value()));
        let user = match found {
            Some(found) => bootstrap_token::user(&found, id, secret, now),
            None => Err(bootstrap_token::Refusal::Invalid),
        };
        let implied = audiences.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
        user.map(|user| Bearer { user, audiences: implied }).map_err(|refusal| match refusal {
            bootstrap_token::Refusal::Invalid => TokenError::Invalid,
            bootstrap_token::Refusal::Expired(at) => TokenError::Expired { id: id.to_owned(), at },
        })
    }

    fn claims(&self, token: &str) -> Result<Arc<Claims>, token::Error> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.remembered().get(&hash) {
            return Ok(Arc::clone(claims));
        }
        let claims = Arc::new(self.issuer.verify(token)?);
        let mut remembered = self.remembered();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(hash, Arc::clone(&claims));
        Ok(claims)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<Claims>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks bound objects up in the cache.
struct Objects<'s>(&'s Server);

impl token::Objects for Objects<'_> {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Known> {
        let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        let (_, cache) = self.0.resource("", resource)?;
        let json = cache.snapshot().get(&key)?.json();
        let head: Head<'_> = serde_json::from_slice(&json).ok()?;
        let deleted = head.metadata.deletion_timestamp.and_then(|t| t.parse::<Timestamp>().ok());
        Some(Known { uid: head.metadata.uid.to_string(), deleted_at: deleted.map(Timestamp::as_second) })
    }
}

/// What a token's check needs of an object; the rest is skipped, not decoded: this runs for every request with a token.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: HeadMetadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMetadata<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    deletion_timestamp: Option<Cow<'a, str>>,
}

/// The bearer token of a request, if it has one in a form upstream takes for one.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().ok()?.trim();
        let mut parts = text.splitn(3, ' ');
        let (scheme, token) = (parts.next()?, parts.next()?);
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let encoded = protocols.flat_map(|v| v.split(',')).find_map(|p| p.trim().strip_prefix(WEBSOCKET_TOKEN))?;
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok().filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_bearer_credentials_are_tokens() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            bearer_token(&headers)
        };
        assert_eq!(check("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(check("bearer abc").as_deref(), Some("abc"));
        for other in ["Basic YWRtaW46YWRtaW4=", "Bearer", "Bearer ", "Bearer  ", "garbage", ""] {
            assert_eq!(check(other), None, "{other:?}");
        }
    }

    #[test]
    fn browsers_send_the_token_as_a_protocol() {
        let mut headers = HeaderMap::new();
        let value = format!("{WEBSOCKET_TOKEN}YWJj, v5.channel.k8s.io");
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&value).unwrap());
        assert_eq!(bearer_token(&headers).as_deref(), Some("abc"));
    }
}
