//! Authentication: from a peer and its headers to a [`User`].

pub mod token;

use http::request::Parts;

use api::status::Status;

use crate::server::Server;
use crate::user::{Peer, User};

/// A request whose sender is known.
#[derive(Clone, Debug)]
pub struct Authenticated {
    pub user: User,
}

#[derive(Debug, Default)]
pub struct Authenticator {}

impl Authenticator {
    /// The user behind a request; 401 when credentials are there but bad, or when none are there and anonymous
    /// requests are off.
    pub async fn authenticate(&self, server: &Server, parts: &Parts, peer: &Peer) -> Result<Authenticated, Status> {
        let _ = parts;
        match peer {
            Peer::Component(user) => Ok(Authenticated { user: user.clone() }),
            Peer::Remote { .. } if server.options.allow_anonymous => Ok(Authenticated { user: User::anonymous() }),
            Peer::Remote { .. } => Err(Status::unauthorized()),
        }
    }
}
