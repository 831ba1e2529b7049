//! Services as nftables maps: the node's part of ClusterIP, NodePort, load balancer and external addresses.
//!
//! [`plan`] is pure: one Service and its EndpointSlices in, a [`plan::Plan`] out. [`state`] turns plans into elements of
//! the table whose rules [`table`] has, and knows which elements a change touches; [`apply`] has the kernel change them
//! in one transaction. The kernel looks every new connection up in maps, so neither a connection nor a change costs
//! more when there are more Services.
//!
//! Not here: pod interfaces and addresses (the agent's), DNS, NetworkPolicy, and handing out load balancer addresses
//! (a controller's).

pub mod apply;
mod endpoints;
mod flows;
mod health;
mod metrics;
pub mod objects;
pub mod plan;
mod run;
mod settings;
pub mod state;
pub mod table;

pub use endpoints::{Backend, Place, Usable};
pub use flows::Flows;
pub use metrics::Metrics;
pub use run::{Error, Options, cleanup, run};
pub use table::Fixed;
