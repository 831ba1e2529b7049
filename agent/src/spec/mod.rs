//! The OCI runtime spec of a container.

pub mod env;
