//! The scheduler: which node a pod runs on.
//!
//! [`cycle::schedule`] is pure: a pod and the [`cluster::Cluster`] in, a node or the reasons against every node out;
//! [`preemption::plan`] is too: which pods would have to make room. [`queue::Queue`] keeps the pods that wait, and knows
//! which change could help which of them. [`run()`] feeds all from watches and carries decisions out: bind, evict, or
//! say why not.
//!
//! Plugins carry upstream's names, order, weights and messages (`pkg/scheduler/framework/plugins`).

pub mod cluster;
pub mod config;
pub mod cycle;
pub mod extender;
pub mod node;
pub mod objects;
pub mod plugins;
pub mod preemption;
pub mod queue;
pub mod resources;
mod run;
pub mod selector;
mod verdict;

pub use config::Config;
pub use run::{Error, Options, run};
