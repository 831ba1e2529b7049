//! Bearer tokens: fetched from the server that a registry's challenge names, with the credential where there is one.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, Request, StatusCode, header};
use serde::Deserialize;

use super::{DOCUMENT_BYTES_MAX, Error, Session, challenge::Bearer, check, collect};
use crate::image::{credentials::Credential, hosts::is_loopback};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Token {
    token: String,
    access_token: String,
}

/// The error document of registries.
#[derive(Deserialize)]
struct Document {
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Problem {
    code: String,
    message: String,
}

pub(super) fn basic(credential: &Credential) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", credential.username, credential.password)))
}

/// What an error document says, in one line.
pub(super) fn told(document: &[u8]) -> Option<String> {
    let document: Document = serde_json::from_slice(document).ok()?;
    let problems = document.errors.into_iter().map(|problem| {
        let code = problem.code.to_lowercase();
        if problem.message.is_empty() { code } else { format!("{code}: {}", problem.message) }
    });
    Some(problems.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}

impl Session {
    /// The header that a token makes. Tokens live for minutes; an expired one is refused and fetched again.
    pub(super) async fn token(&self, bearer: &Bearer) -> Result<String, Error> {
        let wanted = format!("repository:{}:pull", self.repository);
        let scope = if bearer.scope.is_empty() { &wanted } else { &bearer.scope };
        let mut url = format!("{}?scope={}", bearer.realm, encode(scope));
        if !bearer.service.is_empty() {
            url = format!("{url}&service={}", encode(&bearer.service));
        }
        let mut request = Request::builder().method(Method::GET).uri(&url);
        // Whoever answers in plain text may name any realm: a password follows only where it is not readable on the way.
        let is_safe = super::origin(&url).is_some_and(|(scheme, authority)| {
            let (host, own) = (super::host(&authority), super::host(&self.endpoint.authority));
            scheme == "https" || is_loopback(host) || host == own
        });
        if let Some(credential) = self.credential.as_ref().filter(|_| is_safe) {
            request = request.header(header::AUTHORIZATION, basic(credential));
        }
        let answer = self.send(request, &Method::GET, &url).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(Error::Answer { url, problem: "no tokens are given here".to_owned() });
        }
        let answer = check(answer, &Method::GET, &url, "token").await?;
        let document = collect(answer.into_body(), &url, DOCUMENT_BYTES_MAX).await?;
        let token: Token = serde_json::from_slice(&document).unwrap_or_default();
        match [token.token, token.access_token].into_iter().find(|token| !token.is_empty()) {
            Some(token) => Ok(format!("Bearer {token}")),
            None => Err(Error::Answer { url, problem: "no token in it".to_owned() }),
        }
    }
}

/// For a query value.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                encoded.push(byte.into());
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{encode, told};

    #[test]
    fn queries_are_encoded_and_error_documents_read() {
        assert_eq!(encode("repository:a/b:pull,push x"), "repository:a/b:pull%2Cpush%20x");
        let document = br#"{"errors":[{"code":"DENIED","message":"no"},{"code":"OTHER"}]}"#;
        assert_eq!(told(document).as_deref(), Some("denied: no, other"));
        assert_eq!(told(b"<html>"), None);
    }
}
