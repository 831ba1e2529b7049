//! The front door of the cluster: every request takes the one pipeline (authenticate, authorize, decode, admit,
//! default, validate, commit, encode) into the store, and every read is served from the watch cache.
//!
//! Entry points: [`ApiServer::start`] and [`ApiServer::call`]; the latter carries remote requests (TLS) and those of
//! components in the same process alike, with the same identities and checks.
//! Not here: anything about one kind (that is `api::catalogue` and `api::strategy`), controllers, the node.
//! No other crate may know `store-client`; all communication between components goes through [`ApiServer::call`].

pub mod admission;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod cache;
mod component_status;
mod convert;
mod definitions;
mod deletion_rules;
pub mod discovery;
pub mod encode;
pub mod endpoint;
mod expressions;
pub mod health;
pub mod kubeconfig;
pub mod metrics;
pub mod nodeproxy;
pub mod openapi;
pub mod openid;
pub mod options;
pub mod pipeline;
pub mod pki;
pub mod request;
mod resource_metrics;
pub mod review;
pub mod serve;
mod server;
pub mod service;
pub mod special;
pub mod status;
mod token_request;
mod upkeep;
pub mod user;
pub mod verbs;
pub mod version;

pub use body::Body;
pub use options::Options;
pub use request::{Call, RequestInfo};
pub use server::{ApiServer, Error, Server};
pub use user::{Peer, User};

#[cfg(test)]
mod tests;
