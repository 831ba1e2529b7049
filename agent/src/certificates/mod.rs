//! The certificates of a node that joined: asked of the API server by CertificateSigningRequest, kept in one
//! directory, renewed while running.
//!
//! ```text
//! ca.crt                  the cluster's authority, pinned by the join token
//! node-client.{crt,key}   the node towards the API server
//! node-serving.{crt,key}  the node API's port
//! ```
//!
//! Invariant: a key is made once and stays, so that a renewal replaces one file, atomically; the node *is* its client
//! key (see [`NODE_KEY`]).

mod files;
mod join;
mod renew;
mod request;
mod token;

use std::sync::Arc;

pub use files::{Files, Pair};
pub use join::{Error as JoinError, JoinOptions, join};
pub(crate) use renew::{client as renew_client, serving as renew_serving};
pub(crate) use request::Names;
pub use token::{BadToken, Token};

/// Annotation of the Node: the hash of its client key. The approver of certificate requests compares a newcomer's with
/// it, so that no other machine can become this node while the Node exists.
pub const NODE_KEY: &str = "keelson.io/node-key";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {path}")]
    File { action: &'static str, path: String, source: std::io::Error },
    #[error("{path} holds no usable {what}: {detail}; move it away to have a new one made")]
    Unusable { path: String, what: &'static str, detail: String },
    #[error("make a certificate request: {0}")]
    Make(#[from] rcgen::Error),
}

/// How the agent's run keeps its certificates.
#[derive(Clone)]
pub struct Certificates {
    pub files: Files,
    /// Called when the client certificate was replaced: connections made with the old one must not outlive it.
    pub reconnect: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}
