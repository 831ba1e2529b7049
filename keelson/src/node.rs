//! The node part of the process: the agent and the service proxy, and the commands that work on this node.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::args;
use crate::config::{DEFAULT_CONTAINERD_ADDRESS, DEFAULT_DATA_DIR, Settings, node_name};
use crate::control_plane::ControlPlane;
use crate::server::{Clients, Parts};
use crate::state::Instance;

/// Starts the agent and the service proxy.
pub fn start(
    settings: &Settings,
    clients: &Clients,
    control_plane: Option<&ControlPlane>,
    parts: &mut Parts,
) -> Result<()> {
    let name = match &settings.node_name {
        Some(name) => name.clone(),
        None => node_name(&hostname()?)?,
    };
    let mut options = agent_options(&name, &settings.data_dir, &settings.containerd_address);
    options.node_ip = settings.node_ip;
    options.bind.set_port(settings.node_port);
    if let Some(control_plane) = control_plane {
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        names.extend(agent::node::own_addresses(&options)?.iter().map(ToString::to_string));
        let pki = settings.data_dir.join("pki");
        control_plane.identity.node_serving(&name, &names, Timestamp::now()).context("node certificate")?;
        options.serving_certificate = Some(pki.join(format!("node-{name}-serving.crt")));
        options.serving_key = Some(pki.join(format!("node-{name}-serving.key")));
        options.client_ca = Some(pki.join("ca.crt"));
    }
    let network = agent::network::Options::of(&options);
    let client = clients.client(&format!("system:node:{name}"), &["system:nodes"], "agent");
    parts.agent = Some(options.progress.clone());
    let stop = parts.stop.clone();
    parts.spawn("agent", async move { Ok(agent::run(client, options, stop).await?) });

    let client = clients.client("system:kube-proxy", &[], "service-proxy");
    let (nodes, stop) = (client.clone(), parts.stop.clone());
    parts.spawn("pod network", async move { Ok(agent::network::run(nodes, network, stop).await?) });
    let options = service_proxy::Options { node_name: name, table: table(&settings.data_dir, &settings.pod_cidr) };
    let stop = parts.stop.clone();
    parts.spawn("service proxy", async move { Ok(service_proxy::run(client, options, stop).await?) });
    Ok(())
}

fn table(data_dir: &Path, pod_cidr: &str) -> service_proxy::ruleset::Table {
    service_proxy::ruleset::Table { name: Instance::of(data_dir).nftables_table(), pod_cidr: pod_cidr.to_owned() }
}

fn agent_options(name: &str, data_dir: &Path, containerd_address: &Path) -> agent::Options {
    let instance = Instance::of(data_dir);
    let mut options = agent::Options::new(name);
    options.containerd_address = containerd_address.to_owned();
    options.containerd_namespace = instance.containerd_namespace();
    options.state_dir = data_dir.join("agent");
    (options.log_dir, options.container_log_dir) = instance.log_dirs(data_dir);
    options.bridge = instance.bridge();
    options.cgroup_parent = instance.cgroup_parent();
    options
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
    let (data_dir, containerd_address) = locate(node)?;
    agent::cleanup(&agent_options("", &data_dir, &containerd_address)).await.context("remove this node's pods")?;
    service_proxy::cleanup(&table(&data_dir, "")).await.context("remove this node's Services")?;
    Ok(())
}
