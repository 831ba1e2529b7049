//! Simulated nodes: everything an API server sees of a node and its pods, without a container.
//!
//! Contract: [`run`] registers nodes, renews their leases, and takes every pod that is bound to one of them from
//! Pending to Running and Ready, through exits and restarts, to its end, until its token is cancelled. It talks only
//! to the API server, and like a real agent it derives what to do from the API server and the [`Runtime`], so it may
//! be stopped and started anywhere. Thousands of nodes share one watch of pods, one timer queue and one lease writer.
//! Not here: who starts it (`keelson simulate`, the scenario tests), faults, clocks.
//!
//! Entry points: [`run`], [`Options`], [`Runtime`].

mod behaviour;
mod heartbeat;
mod objects;
mod options;
mod pods;
mod progress;
mod runtime;
mod status;

use std::sync::Arc;

use api_client::Client;
use tokio_util::sync::CancellationToken;

pub use behaviour::PREFIX;
pub use options::{Options, Shape, Span, Timing};
pub use runtime::{Container, Happening, Runtime};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the nodes' {0} task ended unexpectedly")]
    TaskEnded(&'static str),
}

/// Runs the nodes of `options` until `shutdown`. What runs on them is in `runtime` and outlives this call.
pub async fn run(
    client: Client,
    options: Options,
    runtime: Arc<Runtime>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let nodes = heartbeat::Nodes::new(&client, &options);
    let pods = pods::Pods::new(&client, &options, runtime);
    let work = async {
        tokio::select! {
            () = nodes.run() => Err(Error::TaskEnded("heartbeat")),
            () = pods.run() => Err(Error::TaskEnded("pod")),
        }
    };
    shutdown.run_until_cancelled(work).await.unwrap_or(Ok(()))
}
