//! The harness: real processes on this host (containerd, etcd, `keelson`, kubectl) as Rust values that stop what they
//! started. `xtask` drives the same pieces for developers, so that what is tested is what `cargo xtask up` runs.
//!
//! This crate must not depend on any other crate of the workspace outside its dev-dependencies: `xtask` has to build
//! on a machine that has no protobuf compiler yet.

pub mod cluster;
pub mod containerd;
pub mod host;
pub mod hosts;
pub mod http;
pub mod image;
pub mod kubectl;
pub mod leftovers;
pub mod packages;
pub mod process;
pub mod registry;
pub mod wait;
