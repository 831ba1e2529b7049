//! What the process tells its supervisor while it runs: a line of status, and the sign of life that a watchdog wants.
//!
//! The sign is given only after the parts gave theirs: the API server has answered a request, the agent's main loop a
//! question. It is given by the task that also waits for the parts to end, so a process that is stuck in any of these
//! places falls silent, is killed and started again; pods do not notice.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use agent::progress::State;
use anyhow::{Context, Result, bail};
use apiserver::user::Peer;
use apiserver::{ApiServer, User};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use crate::notify;

/// How often the parts are asked when no watchdog sets the pace. Their answers only feed the log then.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Signs of life in the time the watchdog waits for one: two may fail.
const SIGNS_PER_LIMIT: u32 = 3;
const PING: &str = "/livez/ping";

/// The parts that can tell how they are.
#[derive(Default)]
pub struct Supervision {
    pub api: Option<ApiServer>,
    pub agent: Option<agent::Progress>,
}

impl Supervision {
    /// Tells the supervisor until dropped.
    pub async fn run(self) -> Infallible {
        let pace = notify::watchdog().map_or(LOOK_EVERY, |limit| limit / SIGNS_PER_LIMIT);
        let mut ticks = tokio::time::interval(pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut states = self.agent.as_ref().map(agent::Progress::watch);
        notify::status(&text(states.as_mut()));
        loop {
            tokio::select! {
                _ = ticks.tick() => match self.signs_of_life(pace).await {
                    Ok(()) => notify::alive(),
                    Err(error) => warn!("no sign of life: {error:#}"),
                },
                () = changed(states.as_mut()) => notify::status(&text(states.as_mut())),
            }
        }
    }

    async fn signs_of_life(&self, limit: Duration) -> Result<()> {
        if let Some(api) = &self.api {
            within(limit, "the API server to answer", answers(api)).await??;
        }
        if let Some(agent) = &self.agent {
            within(limit, "the agent's main loop to answer", agent.sign_of_life()).await?;
        }
        Ok(())
    }
}

async fn within<T>(limit: Duration, what: &str, sign: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, sign).await.with_context(|| format!("waited {limit:?} for {what}"))
}

/// A request through the whole pipeline. `/livez` itself fails until the default objects of a new cluster are in place,
/// which on a slow host takes longer than the watchdog waits; its `ping` needs nothing but a pipeline that turns.
async fn answers(api: &ApiServer) -> Result<()> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::get(PING).body(body).context("make a request")?;
    let response = api.call(request, Peer::Component(User::new("system:keelson", &["system:masters"]))).await;
    if !response.status().is_success() {
        bail!("the API server answered {} to {PING}", response.status());
    }
    Ok(())
}

/// The next change of the agent's state; never without an agent.
async fn changed(states: Option<&mut watch::Receiver<State>>) {
    let changed = match states {
        Some(states) => states.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

fn text(states: Option<&mut watch::Receiver<State>>) -> String {
    states.map_or_else(|| "Ready".to_owned(), |states| states.borrow_and_update().to_string())
}
