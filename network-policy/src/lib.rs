//! NetworkPolicies as nftables sets: which connections the pods of this node take and make.
//!
//! [`plan`] is pure: policies and this node's pods in, chains and the sets they look into out. [`members`] keeps the
//! sets' elements up with the pods of the whole cluster, so that a change costs what changed.
//!
//! Not here: Services (a policy sees a connection after it was sent on to an endpoint), pod addresses (the agent's).

pub mod members;
pub mod objects;
pub mod plan;
pub mod policy;
pub mod ranges;
