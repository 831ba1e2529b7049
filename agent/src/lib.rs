//! The node agent: pods of one node through containerd.
//!
//! Desired pods come from a watch on this node's pods. Observed state comes from containerd and the kernel, never from
//! the agent's memory, so a restarted agent takes running pods back without touching them, and a stopped agent leaves
//! them running. Each pod has one owner task (`pod::owner`) which runs pure decisions (`pod::plan`, `pod::status`)
//! and acts on them with small steps that are safe to repeat.
//!
//! Reading order: `options` -> `run` -> `pod` (plan, status, owner) -> `sandbox`, `spec`, `runtime` -> `logs`, `node`.
//! Not here: scheduling, Service routing, DNS. The agent knows the cluster only through `cluster::Cluster`.

pub mod certificates;
pub mod cgroup;
mod cleanup;
pub mod cluster;
pub mod guard;
pub mod image;
mod lock;
pub mod logs;
pub mod network;
pub mod node;
pub mod node_api;
pub mod options;
pub mod paths;
pub mod pod;
pub mod probe;
pub mod progress;
mod run;
pub mod runtime;
pub mod sandbox;
pub mod spec;
pub mod volume;

pub use cleanup::{Error as CleanupError, cleanup, remove_images};
pub use guard::Guard;
pub use options::Options;
pub use progress::Progress;
pub use run::{Error, run};
pub use sandbox::pid::pause;
