//! Reads nodes' summaries when somebody asks. Of each node the last two answers are kept, since a rate lies between
//! two; a node that was not asked for long is asked twice, a moment apart.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http::Request;
use http::header;
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;

use super::Windows;
use super::usage::{Sample, Summary, Window};
use crate::nodeproxy::{self, Protection};
use crate::server::Server;

/// An answer serves everybody for this long. Autoscalers look every 15 seconds.
const FRESH_FOR: Duration = Duration::from_secs(10);
/// An answer older than this says nothing of what goes on now.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// Between the two answers of a node that was not asked for long.
const APART: Duration = Duration::from_secs(1);
/// A node that takes longer has no metrics this time.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Nodes asked at a time.
const PARALLEL: usize = 16;
/// Largest summary of a node; one of 500 pods has some 300 KiB.
const SUMMARY_BYTES_MAX: usize = 8 << 20;

/// What was read of the nodes lately.
#[derive(Default)]
pub struct Collector {
    nodes: Mutex<HashMap<String, Arc<Node>>>,
}

/// One who asks waits for another who is asking the same node.
type Node = tokio::sync::Mutex<Option<Kept>>;

struct Kept {
    window: Window,
    read: Instant,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("it has no address: {0}")]
    Address(#[from] api::status::Status),
    #[error(transparent)]
    Connection(#[from] nodeproxy::Error),
    #[error("no answer within {} s", ANSWER_WAIT_MAX.as_secs())]
    Timeout,
    #[error("it answered {0}")]
    Refused(http::StatusCode),
    #[error("read its summary: {0}")]
    Body(#[source] crate::body::BoxError),
    #[error("decode its summary: {0}")]
    Summary(#[from] serde_json::Error),
}

impl Collector {
    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What these nodes tell; those that don't are left out.
    pub async fn read(&self, server: &Arc<Server>, names: BTreeSet<String>) -> Windows {
        self.forget(server);
        let read = stream::iter(names).map(|name| async move {
            let node = self.nodes().entry(name.clone()).or_default().clone();
            match read(server, &node, &name).await {
                Ok(window) => Some((name, window)),
                Err(error) => {
                    tracing::debug!(node = name, %error, "no resource metrics");
                    None
                }
            }
        });
        read.buffer_unordered(PARALLEL).filter_map(std::future::ready).collect().await
    }

    /// Drops nodes that are gone, and what is of no use any more.
    fn forget(&self, server: &Server) {
        let known = server.resource("", "nodes").map(|(_, cache)| cache.snapshot());
        self.nodes().retain(|name, node| {
            let exists = known.as_ref().is_some_and(|nodes| nodes.get(name).is_some());
            let stale = |kept: &Option<Kept>| kept.as_ref().is_none_or(|kept| kept.read.elapsed() > STALE_AFTER);
            // One that is being asked is in use.
            exists && !node.try_lock().is_ok_and(|kept| stale(&kept))
        });
    }
}

async fn read(server: &Arc<Server>, node: &Node, name: &str) -> Result<Window, Error> {
    let mut kept = node.lock().await;
    let older = match kept.take() {
        Some(fresh) if fresh.read.elapsed() < FRESH_FOR => {
            let window = fresh.window.clone();
            *kept = Some(fresh);
            return Ok(window);
        }
        Some(usable) if usable.read.elapsed() < STALE_AFTER => usable.window.newer,
        _ => {
            let first = ask(server, name).await?;
            tokio::time::sleep(APART).await;
            Arc::new(first)
        }
    };
    let window = Window { older, newer: Arc::new(ask(server, name).await?) };
    *kept = Some(Kept { window: window.clone(), read: Instant::now() });
    Ok(window)
}

async fn ask(server: &Arc<Server>, name: &str) -> Result<Sample, Error> {
    tokio::time::timeout(ANSWER_WAIT_MAX, request(server, name)).await.map_err(|_| Error::Timeout)?
}

async fn request(server: &Arc<Server>, name: &str) -> Result<Sample, Error> {
    let (host, port) = nodeproxy::node_address(server, name).await?;
    let mut request = Request::new(crate::body::empty());
    *request.uri_mut() = http::Uri::from_static("/stats/summary");
    if let Ok(value) = format!("{host}:{port}").parse() {
        request.headers_mut().insert(header::HOST, value);
    }
    let response = server.nodes.send(server, (&host, port), Protection::Node, request).await?;
    if !response.status().is_success() {
        return Err(Error::Refused(response.status()));
    }
    let body = Limited::new(response.into_body(), SUMMARY_BYTES_MAX).collect().await.map_err(Error::Body)?;
    let summary: Summary = serde_json::from_slice(&body.to_bytes())?;
    Ok(summary.into())
}
