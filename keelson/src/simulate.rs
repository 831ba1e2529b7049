//! `keelson simulate`: nodes without containers, in the cluster of a kubeconfig, to see how a cluster does with many.

use std::sync::Arc;
use std::time::Duration;

use ::simulate::{Options, Runtime, Shape, Span, Timing};
use anyhow::{Context, Result};
use api_client::{Client, kubeconfig, transport};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::args::Simulate;
use crate::{config, logging, shutdown, state};

/// On every simulated node, so that `kubectl delete node -l` finds them afterwards.
const LABEL: &str = "simulate.keelson.dev/node";

pub async fn run(arguments: Simulate) -> Result<()> {
    logging::start(&arguments.log)?;
    let path = arguments.kubeconfig.clone().unwrap_or_else(|| state::kubeconfig(config::DEFAULT_DATA_DIR.as_ref()));
    let connection = kubeconfig::load(&path).with_context(|| format!("kubeconfig {}", path.display()))?;
    let transport = transport::Remote::new(&connection).context("set up the connection to the API server")?;
    let client = Client::new(transport, concat!("keelson-simulate/", env!("CARGO_PKG_VERSION")));
    // Without this, a typo in the kubeconfig would look like a quiet cluster.
    let version: serde_json::Value = client.get_path("/version").await.context("ask the API server for its version")?;
    let asked: CancellationToken = shutdown::on_signal()?;
    let options = options(&arguments);
    info!(nodes = options.names.len(), server = %version["gitVersion"], "simulating nodes; SIGTERM ends it");
    info!("the nodes stay when this ends: kubectl delete node -l {LABEL}");
    ::simulate::run(client, options, Arc::new(Runtime::default()), asked).await.context("simulate")
}

fn options(arguments: &Simulate) -> Options {
    let width = arguments.nodes.to_string().len();
    let names = (1..=arguments.nodes).map(|number| format!("{}{number:0width$}", arguments.prefix)).collect();
    let mut shape = Shape::default();
    shape.labels.insert(LABEL.to_owned(), String::new());
    let sizes = [("cpu", &arguments.cpu), ("memory", &arguments.memory), ("pods", &arguments.pods)];
    shape.resources.extend(sizes.map(|(name, quantity)| (name.to_owned(), quantity.clone())));
    let milliseconds = |ms| Span::exactly(Duration::from_millis(ms));
    let timing = Timing {
        start: milliseconds(arguments.start_ms),
        ready: milliseconds(arguments.ready_ms),
        stop: milliseconds(arguments.stop_ms),
        heartbeat: Duration::from_secs(arguments.heartbeat_seconds.max(1)),
        lease_duration: Duration::from_secs(arguments.heartbeat_seconds.max(1) * 4),
        ..Timing::default()
    };
    Options { shape, timing, ..Options::new(names) }
}
