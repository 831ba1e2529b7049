//! The node part of the process: the service proxy, and the commands that work on this node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::args;
use crate::config::{DEFAULT_CONTAINERD_ADDRESS, DEFAULT_DATA_DIR, Settings, node_name};
use crate::server::{Clients, Parts};
use crate::state::Instance;

/// Starts the node's parts.
pub fn start(settings: &Settings, clients: &Clients, parts: &mut Parts) -> Result<()> {
    let name = match &settings.node_name {
        Some(name) => name.clone(),
        None => node_name(&hostname()?)?,
    };
    let client = clients.client("system:kube-proxy", &[], "service-proxy");
    let options = service_proxy::Options { node_name: name, table: table(&settings.data_dir, &settings.pod_cidr) };
    let stop = parts.stop.clone();
    parts.spawn("service proxy", async move { Ok(service_proxy::run(client, options, stop).await?) });
    Ok(())
}

fn table(data_dir: &Path, pod_cidr: &str) -> service_proxy::ruleset::Table {
    service_proxy::ruleset::Table { name: Instance::of(data_dir).nftables_table(), pod_cidr: pod_cidr.to_owned() }
}

fn hostname() -> Result<String> {
    let name = nix::unistd::gethostname().context("read the host's name")?;
    name.into_string().map_err(|name| anyhow::anyhow!("the host's name {name:?} is not text: give --node-name"))
}

fn locate(node: args::Node) -> Result<(PathBuf, PathBuf)> {
    let data_dir = node.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let data_dir = std::path::absolute(&data_dir).with_context(|| format!("data directory {}", data_dir.display()))?;
    Ok((data_dir, node.containerd_address.unwrap_or_else(|| DEFAULT_CONTAINERD_ADDRESS.into())))
}

/// `keelson image import`.
pub async fn import(node: args::Node, archives: &[PathBuf]) -> Result<()> {
    let (data_dir, containerd_address) = locate(node)?;
    let namespace = Instance::of(&data_dir).containerd_namespace();
    for archive in archives {
        let names = agent::image::import(&containerd_address, &namespace, archive)
            .await
            .with_context(|| format!("import {}", archive.display()))?;
        for name in names {
            println!("{name}");
        }
    }
    Ok(())
}

/// `keelson cleanup`.
pub async fn cleanup(node: args::Node) -> Result<()> {
    let (data_dir, _) = locate(node)?;
    service_proxy::cleanup(&table(&data_dir, "")).await.context("remove this node's Services")?;
    Ok(())
}
