//! Service account tokens in projected volumes: asked for when there is none, and again well before expiry.
//!
//! The file on disk says when its token was issued and when it ends, so nothing has to be remembered.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccountTokenProjection},
};
use serde::Deserialize;

/// A token is replaced after this part of its life (`token.Manager.requiresRefresh`).
const REFRESH_AFTER_PERCENT: i64 = 80;
/// …and after this long in any case.
const REFRESH_AFTER_MAX_SECONDS: i64 = 24 * 3600;

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Vec<String>,
    iat: i64,
    exp: i64,
}

/// Whether the token on disk is for the same audience and fresh enough at `now`.
pub fn is_fresh(token: &str, projection: &ServiceAccountTokenProjection, now: Timestamp) -> bool {
    let payload = token.split('.').nth(1).and_then(|p| BASE64_URL_SAFE_NO_PAD.decode(p).ok());
    let Some(claims) = payload.and_then(|p| serde_json::from_slice::<Claims>(&p).ok()) else { return false };
    let audience_fits = projection.audience.as_ref().is_none_or(|a| a.is_empty() || claims.aud.contains(a));
    let life = (claims.exp - claims.iat).max(0);
    let refresh_after = (life * REFRESH_AFTER_PERCENT / 100).min(REFRESH_AFTER_MAX_SECONDS);
    audience_fits && now.as_second() < claims.iat + refresh_after
}

/// The request for a token that only holds while the pod exists.
pub fn request(pod: &Pod, projection: &ServiceAccountTokenProjection) -> TokenRequest {
    let audience = projection.audience.clone().filter(|a| !a.is_empty());
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: audience.map(|audience| vec![audience]),
            expiration_seconds: projection.expiration_seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(aud: &str, iat: i64, exp: i64) -> String {
        let claims = serde_json::json!({ "aud": [aud], "iat": iat, "exp": exp }).to_string();
        format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_token_is_replaced_before_it_ends_or_when_it_is_for_somebody_else() {
        let any = ServiceAccountTokenProjection::default();
        let vault = ServiceAccountTokenProjection { audience: Some("vault".to_owned()), ..any.clone() };
        assert!(is_fresh(&token("api", 0, 1000), &any, at(799)));
        assert!(!is_fresh(&token("api", 0, 1000), &any, at(800)));
        assert!(!is_fresh(&token("api", 0, 10_000_000), &any, at(REFRESH_AFTER_MAX_SECONDS)));
        assert!(!is_fresh(&token("api", 0, 1000), &vault, at(1)));
        assert!(!is_fresh("garbage", &any, at(0)));
    }
}
