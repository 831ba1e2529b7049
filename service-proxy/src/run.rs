//! The proxy at work: wait for a change, plan, apply the difference. Changes that come while a transaction is being
//! applied are taken together by the next one.

use std::time::Duration;

use api_client::{Cache, Client, ListParams};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::nft;
use crate::objects::{EndpointSlice, Service};
use crate::plan::{Node, plan};
use crate::ruleset::{self, Ruleset, Table};

/// Pause after a refused transaction before the whole table is written anew.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the proxy's {0} cache ended unexpectedly")]
    CacheEnded(&'static str),
    #[error(transparent)]
    Nft(#[from] nft::Error),
}

#[derive(Clone, Debug)]
pub struct Options {
    pub node: Node,
    pub table: Table,
}

/// Keeps this node's table up to date until `shutdown`. The table stays when it ends: connections go on.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    prepare_kernel();
    let tasks = TaskTracker::new();
    let caches = shutdown.child_token();
    // The caches end with this function, however it ends.
    let _end_caches = caches.clone().drop_guard();
    let services = Cache::<Service>::start(&client, ListParams::default(), &tasks, caches.clone());
    let slices = Cache::<EndpointSlice>::start(&client, ListParams::default(), &tasks, caches);
    let mut service_changes = services.subscribe();
    let mut slice_changes = slices.subscribe();
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = async { tokio::join!(services.synced(), slices.synced()); } => {}
    }
    // Before the first full state is known nothing is touched: what an earlier run left goes on working.
    let mut applied: Option<Ruleset> = None;
    loop {
        let wanted = plan(
            services.snapshot().iter().map(AsRef::as_ref),
            slices.snapshot().iter().map(AsRef::as_ref),
            &options.node,
        );
        let retry = match advance(&options.table, applied.as_ref(), &wanted).await {
            Ok(()) => {
                if applied.is_none() {
                    info!(services = services.snapshot().len(), table = options.table.name, "service proxy is ready");
                }
                applied = Some(wanted);
                false
            }
            Err(error) => {
                // Somebody changed the table under us, or nft is missing: write it whole next time.
                warn!(%error, "applying Services failed");
                applied = None;
                true
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = service_changes.recv() => { change.ok_or(Error::CacheEnded("Service"))?; }
            change = slice_changes.recv() => { change.ok_or(Error::CacheEnded("EndpointSlice"))?; }
            () = tokio::time::sleep(RETRY_PAUSE), if retry => {}
        }
    }
}

async fn advance(table: &Table, applied: Option<&Ruleset>, wanted: &Ruleset) -> Result<(), nft::Error> {
    let transaction = match applied {
        Some(applied) => ruleset::difference(table, applied, wanted),
        None => ruleset::replacement(table, wanted),
    };
    if transaction.is_empty() { Ok(()) } else { nft::apply(&transaction).await }
}

/// Removes the table.
pub async fn cleanup(table: &Table) -> Result<(), Error> {
    Ok(nft::apply(&ruleset::removal(table)).await?)
}

/// Forwarding between interfaces, and netfilter's view of bridged packets: without the latter a pod's answer to a
/// neighbour on the same bridge would not be translated back to the Service's address.
fn prepare_kernel() {
    let bridge = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if !std::path::Path::new(bridge).exists()
        && let Err(error) = std::process::Command::new("modprobe").arg("br_netfilter").status()
    {
        warn!(%error, "loading the kernel module br_netfilter failed");
    }
    for path in ["/proc/sys/net/ipv4/ip_forward", bridge] {
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
            continue;
        }
        if let Err(error) = std::fs::write(path, "1") {
            warn!(path, %error, "setting a kernel parameter that Services need failed");
        }
    }
}
