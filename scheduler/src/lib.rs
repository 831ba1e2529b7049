//! The scheduler: which node a pod runs on.
//!
//! [`cycle::schedule`] is pure: a pod and the [`cluster::Cluster`] in, a node or the reasons against every node out.
//! [`queue::Queue`] keeps the pods that wait, and knows which change could help which of them. [`run()`] feeds both
//! from watches and carries decisions out: bind, or say why not.
//!
//! Plugins carry upstream's names, order, weights and messages (`pkg/scheduler/framework/plugins`).
//! Not here: preemption, volume binding, dynamic resources, extenders, profiles.

pub mod cluster;
pub mod cycle;
pub mod node;
pub mod objects;
pub mod plugins;
pub mod queue;
pub mod resources;
mod run;
mod verdict;

pub use run::{Error, Options, run};
