//! The node API (the kubelet's port 10250): logs, exec, attach and port-forward for the API server's node proxy, and
//! what the node runs and uses.
//!
//! Callers prove who they are by a client certificate; nothing is open without one. Every session has bounded buffers:
//! a slow client slows its own process or connection down and costs no memory.
//!
//! Reading order: `serve` (connections) -> `route` -> `handler` -> `logs`, `remote` (exec and attach over WebSocket or
//! SPDY), `port_forward`, `stats`. `spdy` and `websocket` are the wire formats.

mod access;
mod answer;
mod attach;
mod certificate;
mod exec;
mod handler;
mod logs;
mod metrics;
mod pods;
mod port_forward;
mod query;
pub mod remote;
mod route;
mod serve;
pub mod spdy;
mod stats;
mod upgrade;
mod websocket;

pub use certificate::Error as CertificateError;
pub use serve::{Error, Server};
