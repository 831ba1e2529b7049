//! A node that joined takes its Node with it when it leaves: nothing else would.

use std::path::Path;
use std::time::Duration;

use agent::certificates::{Files, access};
use anyhow::{Context, Result, bail};
use api_client::transport::Remote;
use api_client::{Client, DeleteParams, ObjectKey};
use k8s_openapi::api::core::v1::Node;

/// Uninstalling must not wait for a cluster that is gone.
const LIMIT: Duration = Duration::from_secs(10);
const USER: &str = "system:node:";

/// Deletes the Node of this host with the node's own certificate; gives its name.
pub async fn cluster(data_dir: &Path, servers: &[String]) -> Result<String> {
    let files = Files::new(data_dir.join("pki"));
    let facts = files.client().facts()?.context("this host has not joined a cluster")?;
    let Some(name) = facts.common_name.strip_prefix(USER) else {
        bail!("the certificate in {} is not a node's", data_dir.display());
    };
    if servers.is_empty() {
        bail!("the settings name no server");
    }
    let transport = Remote::new(&access(servers, &files)).context("set up the connection to the cluster")?;
    let client = Client::new(transport, concat!("keelson-uninstall/", env!("CARGO_PKG_VERSION")));
    let nodes = client.api::<Node>();
    let key = ObjectKey::new("", name);
    match tokio::time::timeout(LIMIT, nodes.delete(&key, &DeleteParams::default())).await {
        Ok(Err(error)) if !error.is_not_found() => Err(error).with_context(|| format!("delete node {name}")),
        Ok(_) => Ok(name.to_owned()),
        Err(_) => bail!("the servers did not answer within {LIMIT:?}"),
    }
}
