//! Images: their names, what is on the node, and the decision whether a pull is needed.

pub mod name;
pub mod policy;

use std::path::Path;

use crate::runtime::{Error, Runtime};

/// Imports every image of a docker or OCI archive and unpacks it. Returns the names that now exist.
pub async fn import(containerd_address: &Path, namespace: &str, file: &Path) -> Result<Vec<String>, Error> {
    Runtime::new(containerd_address, namespace, "overlayfs", None)?.import_images(file).await
}
