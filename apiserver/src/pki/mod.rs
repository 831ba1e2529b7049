//! The cluster's keys and certificates: made on first start, kept in one directory, re-issued when they
//! near their end, while running too, or are for other names than wanted. Nothing here knows HTTP.
//!
//! Invariant: a private key never exists on disk with a mode wider than 0600, not even for a moment, and a file is
//! either the old or the new one in full (written beside, then renamed).

mod authority;
mod certificate;
mod cluster;
mod files;
mod request;

use std::path::PathBuf;

pub use authority::Authority;
pub(crate) use certificate::names_of;
pub use certificate::{Credential, Subject, Validity};
pub use cluster::{Cluster, Kept, Names};
pub use files::write_private;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} holds no usable {what}: {detail}; move it away to have a new one made", path.display())]
    Unusable { path: PathBuf, what: &'static str, detail: String },
    #[error("making {what}")]
    Make {
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    #[error("reading a certificate: {0}")]
    Parse(String),
}

#[cfg(test)]
mod tests;
