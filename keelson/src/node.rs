//! The node part of the process: the agent and the service proxy, and the commands that work on this node.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use api_client::Client;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::warn;

use crate::args;
use crate::cluster::Cluster;
use crate::config::{DEFAULT_CONTAINERD_ADDRESS, DEFAULT_DATA_DIR, Settings, node_name};
use crate::control_plane::ControlPlane;
use crate::guard::Policies;
use crate::metrics_port;
use crate::server::{Clients, Parts};
use crate::state::Instance;

const DNS_PORT: u16 = 53;
/// Names the servers that answer for everything outside the cluster.
const HOST_RESOLVER: &str = "/etc/resolv.conf";

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
    settings.images.apply(&mut options, &settings.data_dir)?;
    settings.eviction.apply(&mut options)?;
    if let Some(control_plane) = control_plane {
        let mut names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        names.extend(agent::node::own_addresses(&options)?.iter().map(ToString::to_string));
        let pki = settings.data_dir.join("pki");
        control_plane.identity.node_serving(&name, &names, Timestamp::now()).context("node certificate")?;
        options.serving_certificate = Some(pki.join(format!("node-{name}-serving.crt")));
        options.serving_key = Some(pki.join(format!("node-{name}-serving.key")));
        options.client_ca = Some(pki.join("ca.crt"));
    }
    let cluster = Cluster {
        pod_cidrs: std::iter::once(&settings.pod_cidr).chain(&settings.second_pod_cidr).cloned().collect(),
        domain: settings.cluster_domain.clone(),
        dns: settings.cluster_dns,
        names: settings.dns.clone(),
        node_ports: settings.node_port_addresses.clone(),
        proxy: settings.proxy.clone(),
    };
    let clients = NodeClients {
        node: clients.client(&format!("system:node:{name}"), &["system:nodes"], "agent"),
        proxy: clients.client("system:kube-proxy", &[], "service-proxy"),
    };
    start_parts(&cluster, &clients, options, &settings.data_dir, parts)
}

/// How the parts of a node reach the API server. A node that joined is one user in both.
pub struct NodeClients {
    pub node: Client,
    pub proxy: Client,
}

/// Starts the agent, the network between nodes, the service proxy and the DNS server of this node.
pub fn start_parts(
    cluster: &Cluster,
    clients: &NodeClients,
    mut options: agent::Options,
    data_dir: &Path,
    parts: &mut Parts,
) -> Result<()> {
    let name = options.node_name.clone();
    let network = agent::network::Options::of(&options);
    options.cluster_domain.clone_from(&cluster.domain);
    options.cluster_dns = cluster.dns.into_iter().map(IpAddr::V4).collect();
    let dns = start_dns(cluster, clients, &name, data_dir, parts)?;
    let (gate, arrivals) = network_policy::gate();
    options.guard = Some(Arc::new(Policies { node: name.clone(), gate }));
    let cni_config_dir = options.cni_config_dir.clone();
    let policies = network_policy::Options {
        node_name: name.clone(),
        table: Instance::of(data_dir).policy_table(),
        active: Arc::new(move || agent::network::is_built_in(&cni_config_dir)),
    };
    let (client, stop) = (clients.proxy.clone(), parts.stop.clone());
    parts.spawn("network policies", async move { Ok(network_policy::run(client, policies, arrivals, stop).await?) });
    let unready = options.unready.subscribe();
    parts.agent = Some(options.progress.clone());
    let (client, stop) = (clients.node.clone(), parts.stop.clone());
    parts.spawn("agent", async move { Ok(agent::run(client, options, stop).await?) });
    let (client, stop) = (clients.proxy.clone(), parts.stop.clone());
    parts.spawn("pod network", async move { Ok(agent::network::run(client, network, stop).await?) });
    start_proxy(cluster, clients.proxy.clone(), name, (dns, unready), data_dir, parts)
}

fn start_proxy(
    cluster: &Cluster,
    client: Client,
    node_name: String,
    (dns, unready): (Option<SocketAddrV4>, watch::Receiver<Arc<BTreeSet<IpAddr>>>),
    data_dir: &Path,
    parts: &mut Parts,
) -> Result<()> {
    let metrics = service_proxy::Metrics::default();
    if let Some(address) = cluster.proxy.metrics()? {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        parts.spawn("proxy metrics", metrics_port::serve_when_free(address, registry, parts.stop.clone()));
    }
    let options = service_proxy::Options {
        node_name,
        dns,
        unready,
        table: table(data_dir, &cluster.pod_cidrs, &cluster.node_ports),
        healthz: cluster.proxy.healthz()?,
        metrics,
    };
    let stop = parts.stop.clone();
    parts.spawn("service proxy", async move { Ok(service_proxy::run(client, options, stop).await?) });
    Ok(())
}

/// Starts this node's DNS server, unless the cluster has its own. Returns where it listens.
fn start_dns(
    cluster: &Cluster,
    clients: &NodeClients,
    node: &str,
    data_dir: &Path,
    parts: &mut Parts,
) -> Result<Option<SocketAddrV4>> {
    if cluster.dns.is_none() {
        return Ok(None);
    }
    let address = Instance::of(data_dir).dns_address();
    agent::network::host_address::add(address.into())
        .with_context(|| format!("give this host the address {address}"))?;
    let listener = dns::Listener::bind((address, DNS_PORT).into()).or_else(|error| {
        warn!(%error, "port {DNS_PORT} of {address} is taken: cluster DNS is served on another, for Services alone");
        dns::Listener::bind((address, 0).into())
    });
    let listener = listener.with_context(|| format!("listen on {address} for cluster DNS"))?;
    let bound = SocketAddrV4::new(address, listener.address().port());
    let options = dns::Options {
        node_name: node.to_owned(),
        domain: cluster.domain.clone(),
        resolv_conf: HOST_RESOLVER.into(),
        servers: cluster.names.servers()?,
        stub_domains: cluster.names.stub_domains()?,
        // Below what `cleanup` removes.
        state_file: Some(data_dir.join("agent/dns.json")),
    };
    let agent = concat!("keelson-dns/", env!("CARGO_PKG_VERSION"));
    let clients =
        dns::Clients { node: clients.node.with_user_agent(agent), proxy: clients.proxy.with_user_agent(agent) };
    let stop = parts.stop.clone();
    parts.spawn("dns", async move { Ok(dns::run(clients, listener, options, stop).await?) });
    Ok(Some(bound))
}

/// `pod_cidrs` may be empty, where only the table's name counts.
fn table(data_dir: &Path, pod_cidrs: &[String], node_ports: &[api::cidr::Cidr]) -> service_proxy::Fixed {
    service_proxy::Fixed {
        name: Instance::of(data_dir).nftables_table(),
        pods: pod_cidrs.iter().filter_map(|range| api::cidr::Cidr::parse(range)).collect(),
        masquerades_egress: true,
        node_port_ranges: node_ports.to_vec(),
        localhost_node_ports: true,
    }
}

pub fn agent_options(name: &str, data_dir: &Path, containerd_address: &Path) -> agent::Options {
    let instance = Instance::of(data_dir);
    let mut options = agent::Options::new(name);
    options.containerd_address = containerd_address.to_owned();
    options.containerd_namespace = instance.containerd_namespace();
    options.state_dir = data_dir.join("agent");
    (options.log_dir, options.container_log_dir) = instance.log_dirs(data_dir);
    options.bridge = instance.bridge();
    options.host_port_table = instance.host_port_table();
    options.cgroup_parent = instance.cgroup_parent();
    options
}

pub fn hostname() -> Result<String> {
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

/// Empties this node's containerd namespace, unless somebody else has containers in it: returns what is left.
pub async fn remove_images(node: args::Node) -> Result<agent::runtime::Contents> {
    let (data_dir, containerd_address) = locate(node)?;
    let options = agent_options("", &data_dir, &containerd_address);
    agent::remove_images(&options).await.context("remove this node's images")
}

/// `keelson cleanup`.
pub async fn cleanup(node: args::Node) -> Result<()> {
    let (data_dir, containerd_address) = locate(node)?;
    agent::cleanup(&agent_options("", &data_dir, &containerd_address)).await.context("remove this node's pods")?;
    let dns = Instance::of(&data_dir).dns_address();
    agent::network::host_address::remove(dns.into()).with_context(|| format!("take {dns} from this host"))?;
    network_policy::cleanup(&Instance::of(&data_dir).policy_table()).context("remove this node's network policies")?;
    service_proxy::cleanup(&table(&data_dir, &[], &[])).context("remove this node's Services")?;
    Ok(())
}
