//! How every component but the API server itself talks to an API server: transports, typed requests, list-watch,
//! caches, leader election and event recording.
//!
//! Contract: everything here works the same over the network ([`transport::Remote`]) and inside the server's own
//! process ([`transport::InProcess`]), and against any Kubernetes API server. Reads that matter to a controller come
//! from a [`Cache`], whose snapshots carry a [`Revision`]; writes return the revision they made, so that a writer can
//! wait until its cache has seen it. Not here: what to write (controllers), what an object may contain (`api`).
//!
//! Entry points: [`Client`], [`Api`], [`Cache`], [`leader::Elector`], [`events::Recorder`], [`kubeconfig::load`].

mod api;
mod backoff;
mod cache;
mod client;
mod decode;
pub mod discovery;
mod error;
pub mod events;
pub mod kubeconfig;
pub mod leader;
pub mod list_watch;
mod object;
mod params;
mod request;
mod revision;
pub mod transport;
pub mod watch;

pub use crate::api::{Api, List};
pub use crate::backoff::Backoff;
pub use crate::cache::{Cache, Change, Index, Received, Snapshot, Subscription};
pub use crate::client::Client;
pub use crate::error::Error;
pub use crate::object::{
    GroupVersionResource, Meta, Metadata, NoAnnotations, Object, OwnerReference, PartialObject, nullable,
};
pub use crate::params::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, Propagation, WatchParams};
pub use crate::revision::Revision;
pub use crate::transport::Transport;
pub use ::api::meta::ObjectKey;
