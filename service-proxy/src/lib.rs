//! Services as nftables maps: the node's part of ClusterIP and NodePort.
//!
//! [`plan`] is pure: Services and EndpointSlices in, a [`ruleset::Ruleset`] out. [`ruleset::difference`] turns two
//! rulesets into one nftables transaction, so a change costs what changed. The kernel looks every connection up in
//! verdict maps, so its cost does not grow with the number of Services.
//!
//! Not here: pod interfaces and addresses (the agent's), DNS, NetworkPolicy.

mod nft;
pub mod objects;
pub mod plan;
pub mod ruleset;
mod run;

pub use plan::Node;
pub use run::{Error, Options, cleanup, run};
