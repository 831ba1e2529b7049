//! NetworkPolicies as nftables sets: which connections the pods of this node take and make.
//!
//! [`plan`] is pure: policies and this node's pods in, chains and the sets they look into out. [`members`] keeps the
//! sets' elements up with the pods of the whole cluster, so that a change costs what changed. [`table`] says it in the
//! kernel's words, [`state`] holds what the plan is made from, and [`run`] drives it. The agent meets it at the
//! [`gate`]: a pod starts when it is protected.
//!
//! Not here: Services (a policy sees a connection after it was sent on to an endpoint), pod addresses (the agent's).

pub mod gate;
#[cfg(test)]
mod kernel_tests;
pub mod members;
pub mod objects;
pub mod plan;
pub mod policy;
pub mod ranges;
mod run;
mod state;
pub mod table;

pub use gate::{Arrivals, Gate, gate};
pub use objects::Pod;
pub use run::{Error, Options, cleanup, run};
