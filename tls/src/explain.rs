//! What is wrong with a server's certificate, in words that say what to do. TLS libraries answer "invalid peer
//! certificate"; an operator needs to know whether to fix a clock, a token or an address.

use std::error::Error as StdError;
use std::io;

use jiff::Timestamp;
use rustls::CertificateError;
use rustls_pki_types::UnixTime;

use crate::pin::Mismatch;

/// Why a handshake failed for the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It becomes good later, by this host's clock. Seconds.
    NotYetValid {
        now: i64,
        not_before: i64,
    },
    Expired {
        now: i64,
        not_after: i64,
    },
    /// None of its authorities has the pinned key.
    Pin {
        wanted: String,
        shown: String,
    },
    /// Not from the authority we trust.
    UnknownIssuer,
    /// Good, but for other names.
    Name {
        detail: String,
    },
    /// The server refused ours.
    ClientCertificate {
        detail: String,
    },
    Other(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |seconds: i64| Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default();
        match self {
            Self::NotYetValid { now, not_before } => write!(
                f,
                "the server's certificate is not valid before {}, and this host's clock says {}: the clock is behind by \
                 at least {} (or the server's was ahead); set it, by NTP for example",
                at(*not_before),
                at(*now),
                duration(not_before - now),
            ),
            Self::Expired { now, not_after } => write!(
                f,
                "the server's certificate has expired at {}, and this host's clock says {}, {} later: set the clock if \
                 it is wrong; a running Keelson server renews its certificate by itself, a stopped one at its next start",
                at(*not_after),
                at(*now),
                duration(now - not_after),
            ),
            Self::Pin { wanted, shown } => write!(
                f,
                "the server belongs to another cluster than the token: the token pins an authority with the key \
                 {wanted}, the server shows {shown}; check the address, or make a token on that server \
                 (keelson token create)",
            ),
            Self::UnknownIssuer => f.write_str(
                "the server's certificate is from another authority than the one this node joined: check the address; \
                 if the cluster was made anew, join it with a new token",
            ),
            Self::Name { detail } => write!(
                f,
                "the server's certificate is for other names than this address ({detail}): use one of them, or start \
                 the server with --tls-san for this one",
            ),
            Self::ClientCertificate { detail } => write!(f, "the server refuses this node's certificate: {detail}"),
            Self::Other(detail) => f.write_str(detail),
        }
    }
}

/// The problem behind an error of a connection, where it is one of TLS.
pub fn problem(error: &(dyn StdError + 'static)) -> Option<Problem> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(of(tls));
        }
        // An io::Error hides the error it carries from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

fn of(error: &rustls::Error) -> Problem {
    let seconds = |at: UnixTime| i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::NotValidYetContext { time, not_before } => {
                Problem::NotYetValid { now: seconds(*time), not_before: seconds(*not_before) }
            }
            CertificateError::ExpiredContext { time, not_after } => {
                Problem::Expired { now: seconds(*time), not_after: seconds(*not_after) }
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Problem::UnknownIssuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Problem::Name { detail: problem.to_string() }
            }
            CertificateError::Other(other) => match other.0.downcast_ref::<Mismatch>() {
                Some(Mismatch { wanted, shown }) => Problem::Pin { wanted: wanted.to_string(), shown: shown.clone() },
                None => Problem::Other(error.to_string()),
            },
            _ => Problem::Other(error.to_string()),
        },
        rustls::Error::AlertReceived(alert) => Problem::ClientCertificate { detail: format!("{alert:?}") },
        _ => Problem::Other(error.to_string()),
    }
}

/// `3d 4h`, `2h 5m`, `90s`: two units at most.
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0..=1) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wrong_clock_is_named_with_its_distance() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let early = CertificateError::NotValidYetContext { time: at(1_000_000), not_before: at(1_007_500) };
        let wrapped = io::Error::other(rustls::Error::from(early));
        let text = problem(&wrapped).unwrap().to_string();
        assert!(text.contains("behind by at least 2h 5m"), "{text}");
        let late = CertificateError::ExpiredContext { time: at(1_000_000), not_after: at(1_000_000 - 3 * 86_400) };
        let text = problem(&io::Error::other(rustls::Error::from(late))).unwrap().to_string();
        assert!(text.contains("3d 0h later"), "{text}");
        assert_eq!(problem(&io::Error::other("refused")), None);
    }
}
