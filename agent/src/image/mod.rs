//! Images: their names, what is on the node, and the decision whether a pull is needed.

pub mod access;
pub mod credentials;
pub mod drop_in;
pub mod files;
pub mod gc;
pub mod hosts;
pub mod name;
pub mod platform;
pub mod policy;
pub mod pull;
pub mod registry;
pub mod uses;

use std::{path::Path, sync::Arc};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Options,
    runtime::{Error, Runtime},
};

/// What the pods of an agent share about images.
pub struct Images {
    pub pulls: pull::Pulls,
    pub uses: Arc<uses::Uses>,
    pub files: files::Files,
}

impl Images {
    pub fn new(options: &Options, runtime: &Runtime, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        let (registries, at_once) = (options.registry_config_dir.clone(), options.max_parallel_image_pulls);
        Self {
            pulls: pull::Pulls::new(runtime.clone(), registries, at_once, tasks, shutdown),
            uses: Arc::default(),
            files: files::Files { given: options.registry_credentials.clone() },
        }
    }
}

/// Imports every image of a docker or OCI archive and unpacks it. Returns the names that now exist.
pub async fn import(containerd_address: &Path, namespace: &str, file: &Path) -> Result<Vec<String>, Error> {
    Runtime::new(containerd_address, namespace, "overlayfs", None)?.import_images(file).await
}

/// An error with its sources: what users read in events and statuses.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
