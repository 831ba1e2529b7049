//! `keelson agent`: a node of a cluster whose servers are elsewhere. It joins with a token, then is its certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use api_client::Client;
use api_client::transport::Remote;
use tracing::info;

use ::agent::certificates::{Certificates, Files, JoinError, JoinOptions, Token, join};

use crate::config::{self, AgentSettings, node_name};
use crate::node::NodeClients;
use crate::server::Parts;
use crate::supervise::Supervision;
use crate::{cluster, node, notify, shutdown};

const USER_AGENT: &str = concat!("keelson-agent/", env!("CARGO_PKG_VERSION"));
/// Tokens are about a hundred bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

pub async fn run(settings: AgentSettings) -> Result<()> {
    let asked = shutdown::on_signal()?;
    let name = match &settings.node_name {
        Some(name) => name.clone(),
        None => node_name(&node::hostname()?)?,
    };
    let files = Files::new(pki(&settings.data_dir));
    let options = JoinOptions {
        servers: settings.servers.clone(),
        token: token(&settings)?,
        node_name: name.clone(),
        files: files.clone(),
    };
    notify::status("Joining the cluster");
    let config = match join(&options, &asked).await {
        Ok(config) => config,
        Err(JoinError::Stopped) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let remote = Remote::new(&config).context("set up the connection to the cluster")?;
    let client = Client::new(remote.clone(), USER_AGENT);

    let mut options = node::agent_options(&name, &settings.data_dir, &settings.containerd_address);
    options.node_ip = settings.node_ip;
    options.bind.set_port(settings.node_port);
    settings.images.apply(&mut options, &settings.data_dir)?;
    settings.eviction.apply(&mut options)?;
    options.labels.clone_from(&settings.node_labels);
    options.taints.clone_from(&settings.taints);
    options.client_ca = Some(files.authority());
    let reconnect = Arc::new(move || remote.reconnect());
    options.certificates = Some(Certificates { files, reconnect });

    let Some(mut cluster) = cluster::learn(&client, &settings.data_dir, &settings.cluster, &asked).await? else {
        return Ok(());
    };
    cluster.names.clone_from(&settings.dns);
    cluster.proxy.clone_from(&settings.proxy);
    cluster.node_ports.clone_from(&settings.node_port_addresses);
    let mut parts = Parts::default();
    let clients = NodeClients { node: client.clone(), proxy: client };
    node::start_parts(&cluster, &clients, options, &settings.data_dir, &mut parts)?;
    info!(node = name, servers = settings.servers.join(","), "keelson agent is running");
    notify::ready();
    let supervision = Supervision { api: None, agent: parts.agent.clone() };
    parts.run(&asked, supervision).await
}

/// Where a joined node keeps its keys: beside, not in, what `keelson cleanup` removes.
fn pki(data_dir: &Path) -> PathBuf {
    data_dir.join("pki")
}

/// The token given, or in the file given.
fn token(settings: &AgentSettings) -> Result<Option<Token>> {
    let text = match (&settings.token, &settings.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => config::read_small(path, TOKEN_FILE_BYTES_MAX).context("--token-file")?,
        (None, None) => return Ok(None),
    };
    Ok(Some(text.parse().context("--token")?))
}
