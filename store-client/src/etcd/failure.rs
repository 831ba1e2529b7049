//! What an error of the etcd client means: final, certainly not executed, or unknown.
//! etcd tells its errors apart only by text (`rpctypes` of etcd's API); the texts stand here and nowhere else.

use std::error::Error as _;

use bytes::Bytes;
use tonic::Code;

use crate::{Error, Revision, VALUE_BYTES_MAX};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const REQUEST_TOO_LARGE: &str = "etcdserver: request is too large";
const NO_LEADER: &str = "etcdserver: no leader";
const NOT_CAPABLE: &str = "etcdserver: not capable";

/// Errors of etcd that arrive before the request has been proposed.
const NOT_PROPOSED: [&str; 3] = [NO_LEADER, NOT_CAPABLE, "etcdserver: too many requests"];

/// A failed attempt and what may be done about it.
#[derive(Debug)]
pub(super) struct Failure {
    pub kind: FailureKind,
    pub attempt: String,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    Compacted,
    Future,
    Full,
    TooLarge,
    Corrupt,
    /// etcd answered that it will not do this, now or later.
    Refused,
    /// The request did not reach etcd, or not the log.
    NotSent,
    /// Nobody knows whether it was done.
    Unknown,
}

impl Failure {
    pub fn of(attempt: &str, error: &etcd_client::Error) -> Self {
        Self { kind: kind(error), attempt: attempt.to_owned(), detail: describe(error) }
    }

    pub fn timeout(attempt: &str, limit: std::time::Duration) -> Self {
        let detail = format!("no answer from etcd within {} ms", limit.as_millis());
        Self { kind: FailureKind::Unknown, attempt: attempt.to_owned(), detail }
    }

    pub fn into_error(self, key: Option<&Bytes>, requested: Option<Revision>, compacted: Revision) -> Error {
        let requested = requested.unwrap_or_default();
        match self.kind {
            // etcd does not say how far it is compacted or where it stands; `Shared::with_figures` asks.
            FailureKind::Compacted => Error::Compacted { requested, compacted: compacted.max(requested.next()) },
            FailureKind::Future => Error::Future { requested, current: Revision::ZERO },
            FailureKind::Full => Error::Full { detail: format!("{}: {}", self.attempt, self.detail) },
            FailureKind::TooLarge => {
                let key = key.cloned().unwrap_or_default();
                Error::TooLarge { key, bytes: VALUE_BYTES_MAX, max: VALUE_BYTES_MAX }
            }
            FailureKind::Corrupt => Error::Corrupt { place: "etcd".to_owned(), detail: self.detail },
            FailureKind::Refused | FailureKind::NotSent | FailureKind::Unknown => {
                Error::Unavailable { attempt: self.attempt, detail: self.detail }
            }
        }
    }
}

fn kind(error: &etcd_client::Error) -> FailureKind {
    let status = match error {
        etcd_client::Error::GRpcStatus(status) => status,
        etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => return FailureKind::Unknown,
        etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => return FailureKind::Refused,
        _ => return FailureKind::Unknown,
    };
    match (status.code(), status.message()) {
        (_, COMPACTED) => FailureKind::Compacted,
        (_, FUTURE) => FailureKind::Future,
        (_, NO_SPACE) => FailureKind::Full,
        (_, REQUEST_TOO_LARGE) => FailureKind::TooLarge,
        (_, text) if NOT_PROPOSED.contains(&text) => FailureKind::NotSent,
        (Code::DataLoss, _) => FailureKind::Corrupt,
        (Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition, _) => {
            FailureKind::Refused
        }
        (Code::Unavailable, _) if never_connected(status) => FailureKind::NotSent,
        _ => FailureKind::Unknown,
    }
}

/// Whether the connection could not be made, so that the request cannot have arrived.
fn never_connected(status: &tonic::Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The error with its causes, which tonic keeps out of its message.
fn describe(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
