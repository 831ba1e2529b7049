//! `keelson server`: starts the parts asked for, tells who asks that it is ready, and drains.
//!
//! Parts meet only through clients of the API server. A part that ends by itself ends the process: a supervisor
//! starts it again, and pods do not notice.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use api_client::transport::Pem;
use api_client::{Client, Transport, kubeconfig, transport};
use apiserver::{ApiServer, User};
use prometheus_client::registry::Registry;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use crate::args::Component;
use crate::config::Settings;
use crate::control_plane::{self, ControlPlane};
use crate::metrics::exposition;
use crate::supervise::Supervision;
use crate::{metrics_port, node, notify, shutdown};

pub async fn run(settings: Settings) -> Result<()> {
    let asked = shutdown::on_signal()?;
    let mut parts = Parts::default();
    let control_plane = match settings.runs(Component::Apiserver) {
        true => Some(control_plane::start(&settings).await?),
        false => None,
    };
    let clients = match &control_plane {
        Some(control_plane) => Clients::InProcess(control_plane.api.clone()),
        None => Clients::remote(&settings)?,
    };
    if let Some(control_plane) = &control_plane {
        control_plane.bootstrapped(&asked).await;
    }
    start_components(&settings, &clients, control_plane.as_ref(), &mut parts)?;
    let address = control_plane.as_ref().map(|c| c.address);
    let supervision = Supervision { api: control_plane.as_ref().map(|c| c.api.clone()), agent: parts.agent.clone() };
    if let Some(control_plane) = control_plane {
        control_plane.serve(&settings, &mut parts);
    }
    announce(&settings, address);

    parts.run(&asked, supervision).await
}

fn announce(settings: &Settings, address: Option<SocketAddr>) {
    let parts: Vec<String> = settings.components.iter().map(|c| format!("{c:?}").to_lowercase()).collect();
    match address {
        Some(address) => info!(%address, parts = parts.join(","), "keelson is running"),
        None => info!(parts = parts.join(","), "keelson is running"),
    }
    notify::ready();
}

fn start_components(
    settings: &Settings,
    clients: &Clients,
    control_plane: Option<&ControlPlane>,
    parts: &mut Parts,
) -> Result<()> {
    if settings.runs(Component::Controllers) {
        // One identity for all controllers: they are one process and read nearly everything.
        let client = clients.client("system:kube-controller-manager", &["system:masters"], "controller-manager");
        let metrics = reconciler::engine::Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        match control_plane {
            Some(control_plane) => control_plane.metrics.add(move || exposition(&registry)),
            None => {
                let served = metrics_port::serve(settings.metrics_bind, registry, parts.stop.clone());
                parts.spawn("metrics", served);
            }
        }
        let options = reconciler::Options {
            leader_identity: settings.elects_leaders().then(|| settings.identity()),
            cluster_cidrs: std::iter::once(&settings.pod_cidr).chain(&settings.second_pod_cidr).cloned().collect(),
            cluster_dns: settings.cluster_dns.map(|address| address.to_string()),
            load_balancer_addresses: settings.load_balancer_addresses.clone(),
            signer: control_plane.map(|c| c.signer()),
            root_ca: control_plane.map(|c| c.root_ca.clone()).or_else(|| clients.root_ca()),
            metrics,
            ..reconciler::Options::default()
        };
        let stop = parts.stop.clone();
        parts.spawn("controllers", async move { Ok(reconciler::run(client, options, stop).await?) });
    }
    if settings.runs(Component::Scheduler) {
        let client = clients.client("system:kube-scheduler", &[], "scheduler");
        let stop = parts.stop.clone();
        let options = scheduler::Options {
            config: scheduler_config(settings.scheduler_config.as_deref())?,
            leader_identity: settings.elects_leaders().then(|| settings.identity()),
        };
        parts.spawn("scheduler", async move { Ok(scheduler::run(client, options, stop).await?) });
    }
    if settings.runs(Component::Agent) {
        node::start(settings, clients, control_plane, parts)?;
    }
    Ok(())
}

/// The scheduler's configuration, upstream's defaults without a file.
fn scheduler_config(file: Option<&Path>) -> Result<scheduler::Config> {
    let Some(file) = file else { return Ok(scheduler::Config::default()) };
    let text = std::fs::read_to_string(file).with_context(|| format!("--scheduler-config {}", file.display()))?;
    scheduler::Config::parse(&text).with_context(|| format!("--scheduler-config {}", file.display()))
}

/// The running parts. Each has a name, ends by `stop`, and is waited for.
#[derive(Default)]
pub struct Parts {
    tasks: JoinSet<Result<()>>,
    /// Those that have not ended yet.
    names: HashMap<Id, &'static str>,
    pub stop: CancellationToken,
    /// How far the agent is, once there is one.
    pub agent: Option<agent::Progress>,
}

impl Parts {
    /// Until asked to stop or a part ends by itself; then everything drains.
    pub async fn run(mut self, asked: &CancellationToken, supervision: Supervision) -> Result<()> {
        let ended = tokio::select! {
            () = asked.cancelled() => Ok(()),
            never = supervision.run() => match never {},
            ended = self.first_end() => ended,
        };
        notify::stopping();
        let asked = Instant::now();
        let left = self.drain().await;
        if left.is_empty() {
            info!(after = ?asked.elapsed(), "every part has stopped");
        } else {
            error!(parts = left.join(","), "parts did not stop in {:?}; leaving them", shutdown::DRAIN_LIMIT);
        }
        ended
    }

    pub fn spawn(&mut self, name: &'static str, part: impl Future<Output = Result<()>> + Send + 'static) {
        let id = self.tasks.spawn(part).id();
        self.names.insert(id, name);
    }

    /// The next part to end and how it did; `None` when there is none.
    async fn next_end(&mut self) -> Option<(&'static str, Result<()>)> {
        let (id, outcome) = match self.tasks.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(panicked(error))),
        };
        Some((self.names.remove(&id).expect("every part has a name"), outcome))
    }

    /// Returns when a part ends though nobody asked it to: that is always a failure.
    async fn first_end(&mut self) -> Result<()> {
        match self.next_end().await {
            None => std::future::pending().await,
            Some((name, Ok(()))) => Err(anyhow!("{name} ended unexpectedly")),
            Some((name, Err(error))) => Err(error.context(format!("{name} failed"))),
        }
    }

    /// Asks every part to end and waits for all, up to the drain limit. Returns the names of those that did not.
    async fn drain(mut self) -> Vec<&'static str> {
        let asked = Instant::now();
        self.stop.cancel();
        let all = async {
            while let Some((part, outcome)) = self.next_end().await {
                match outcome {
                    Ok(()) => debug!(part, after = ?asked.elapsed(), "stopped"),
                    Err(problem) => error!(part, "while stopping: {problem:#}"),
                }
            }
        };
        if tokio::time::timeout(shutdown::DRAIN_LIMIT, all).await.is_ok() {
            return Vec::new();
        }
        let mut left: Vec<&str> = self.names.into_values().collect();
        left.sort_unstable();
        left
    }
}

fn panicked(error: JoinError) -> anyhow::Error {
    anyhow!(error).context("panicked")
}

/// How parts reach the API server.
pub enum Clients {
    /// As any user: the wiring says who a part is.
    InProcess(ApiServer),
    /// As the user of one kubeconfig.
    Remote { transport: Arc<dyn Transport>, root_ca: Option<String> },
}

impl Clients {
    fn remote(settings: &Settings) -> Result<Self> {
        let Some(path) = &settings.kubeconfig else { bail!("--kubeconfig is needed without an API server here") };
        let config = kubeconfig::load(path).with_context(|| format!("kubeconfig {}", path.display()))?;
        let root_ca = config.tls.authority.as_ref().map(Pem::read).transpose()?;
        let root_ca = root_ca.map(|pem| String::from_utf8_lossy(&pem).into_owned());
        let transport = transport::Remote::new(&config).context("set up the connection to the API server")?;
        Ok(Self::Remote { transport, root_ca })
    }

    /// A client for the part `name`, acting as `user` where the identity is ours to give.
    pub fn client(&self, user: &str, groups: &[&str], name: &str) -> Client {
        let agent = format!("keelson-{name}/{}", env!("CARGO_PKG_VERSION"));
        let transport: Arc<dyn Transport> = match self {
            Self::InProcess(api) => control_plane::transport(api.clone(), User::new(user, groups)),
            Self::Remote { transport, .. } => Arc::clone(transport),
        };
        Client::new(transport, &agent)
    }

    fn root_ca(&self) -> Option<String> {
        match self {
            Self::InProcess(_) => None,
            Self::Remote { root_ca, .. } => root_ca.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_does_not_stop_is_named() {
        let mut parts = Parts::default();
        let stop = parts.stop.clone();
        parts.spawn("obedient", async move {
            stop.cancelled().await;
            Ok(())
        });
        parts.spawn("deaf", std::future::pending());
        parts.spawn("failing", async { bail!("broken") });
        let error = parts.first_end().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "failing failed: broken");
        assert_eq!(parts.drain().await, ["deaf"]);
    }
}
