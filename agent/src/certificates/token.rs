//! The token a machine joins with: a bootstrap token of Kubernetes and the hash of the cluster's authority, in one
//! string, `ID.SECRET@sha256:HASH`. The hash lets the machine trust the server before it trusts anything else; it is
//! kubeadm's `--discovery-token-ca-cert-hash`.

use std::fmt;
use std::str::FromStr;

use tls::Pin;

const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 16;

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
    pub pin: Pin,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error(
        "the token has no authority's hash: a token is written ID.SECRET@sha256:HASH, as `keelson token create` \
         prints it"
    )]
    NoPin,
    #[error("the token's hash is damaged: {0}; was the token copied in full?")]
    Pin(tls::BadPin),
    #[error(
        "the token has not the form ID.SECRET@sha256:HASH with 6 and 16 lower case letters and digits; was it copied \
         in full?"
    )]
    Form,
}

impl Token {
    /// What is sent as bearer token.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let (credential, pin) = match text.split_once('@') {
            Some((credential, pin)) => (credential, Some(pin)),
            None => (text, None),
        };
        let (id, secret) = credential.split_once('.').ok_or(BadToken::Form)?;
        let plain = |s: &str| s.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if id.len() != ID_BYTES || secret.len() != SECRET_BYTES || !plain(id) || !plain(secret) {
            return Err(BadToken::Form);
        }
        let pin = pin.ok_or(BadToken::NoPin)?.parse().map_err(BadToken::Pin)?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), pin })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.id, self.secret, self.pin)
    }
}

/// Without the secret: options are logged.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written_and_mistakes_named() {
        let token = Token { id: "abcdef".into(), secret: "0123456789abcdef".into(), pin: Pin::of_key(b"ca") };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert_eq!(format!(" {token}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
        assert_eq!("abcdef.0123456789abcdef".parse::<Token>(), Err(BadToken::NoPin));
        assert!(matches!("abcdef.0123456789abcdef@sha256:12".parse::<Token>(), Err(BadToken::Pin(_))));
        for bad in ["", "x", "abcdef.0123", &token.to_string()[1..]] {
            assert_eq!(bad.parse::<Token>(), Err(BadToken::Form), "{bad}");
        }
    }
}
