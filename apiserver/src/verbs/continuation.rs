//! Continue tokens: where the next page of a list begins and at which revision (`storage.EncodeContinue`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use api::status::Status;

const VERSION: &str = "meta.k8s.io/v1";
/// The revision in a token that continues at whatever is the newest state.
pub const NEWEST: i64 = -1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    v: String,
    /// [`NEWEST`] continues inconsistently.
    #[serde(default)]
    pub rv: i64,
    /// First key of the page, below the list's prefix.
    #[serde(default)]
    pub start: String,
}

impl Token {
    pub fn new(revision: i64, start: String) -> Self {
        Self { v: VERSION.to_owned(), rv: revision, start }
    }

    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token has string keys"))
    }

    pub fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| invalid(&e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| invalid(&e.to_string()))?;
        if token.v != VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        if token.start.starts_with('/') || token.start.split('/').any(|part| part == ".." || part == ".") {
            return Err(invalid(&token.start));
        }
        Ok(token)
    }
}

/// 410 for a token whose revision is gone, carrying a token that continues inconsistently; upstream's
/// `handleCompactedErrorForPaging`. The token belongs in `metadata.continue` of the Status.
pub fn expired(start: String) -> (Status, String) {
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                   list without the continue parameter, or use the continue token in this response to retrieve the \
                   remainder of the results. Continuing with the provided token results in an inconsistent list - \
                   objects that were created, modified, or deleted between the time the first chunk was returned and \
                   now may show up in the list.";
    (Status::expired(message), Token::new(NEWEST, start).encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_bad_ones_are_refused() {
        let token = Token::new(7, "ns/a\0".to_owned());
        assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        let bad = |token: &str| assert_eq!(Token::decode(token).unwrap_err().code, 400);
        bad("!");
        bad("e30");
        bad(&Token::new(0, "a".to_owned()).encode());
        bad(&Token::new(5, "../x".to_owned()).encode());
        bad(&Token::new(5, String::new()).encode());
    }
}
