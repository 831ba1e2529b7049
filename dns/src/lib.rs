//! Cluster DNS, served by every node to its own pods, after Kubernetes' DNS specification 1.1.
//!
//! [`zone`] answers for the cluster's domain out of two caches and is pure. [`resolve`] decides which part answers a
//! question: the zone, the rest of the client's search path, or a name server outside ([`forward`]). [`server`] is
//! the wire. A lookup never leaves the node unless it asks for a name outside the cluster, and what was known when
//! the API server went away goes on being answered.

mod cache;
pub mod forward;
mod kept;
pub mod objects;
mod resolv_conf;
pub mod resolve;
mod run;
pub mod server;
pub mod zone;

pub use run::{Clients, Error, Options, run};
pub use server::Listener;
