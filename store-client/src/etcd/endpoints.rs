//! The members of the etcd cluster and which one to ask. One connection per member; a failing one is left for the
//! next in turn. Invariant: `call` ends within the request timeout, whatever the members do.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, KvClient, MaintenanceClient, TlsOptions, WatchClient,
};
use tokio::time::{Instant, sleep, timeout};

use super::Options;
use super::failure::{Failure, FailureKind};
use crate::{Error, Result};

/// Pings on the connection and the time to answer one: a silent member is noticed without a request.
/// etcd cuts clients that ping more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The member is in the next rack, not on the moon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts: doubles from the first to the second value.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(20);
pub(super) const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A page of the largest values has 750 MiB; the default of 4 MiB would refuse a page of three.
const MESSAGE_BYTES_MAX: usize = i32::MAX as usize;

/// When an attempt that failed may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// Reads, and writes that do no harm when done twice.
    Always,
    /// Writes: only if it is certain that the failed attempt was not executed.
    IfNotSent,
}

pub(super) struct Endpoints {
    members: Vec<Member>,
    current: AtomicUsize,
    request_timeout: Duration,
}

/// One member; clones share its connection.
#[derive(Clone)]
pub(super) struct Member {
    url: String,
    client: Client,
}

impl Member {
    pub fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn maintenance(&self) -> MaintenanceClient {
        self.client.maintenance_client()
    }

    pub fn watch(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl Endpoints {
    /// Prepares a lazy connection to each member.
    pub async fn connect(options: &Options) -> Result<Self> {
        let attempt = format!("connect to etcd at {}", options.endpoints.join(","));
        if options.endpoints.is_empty() {
            return Err(Error::Open { attempt, detail: "no endpoints given".to_owned() });
        }
        let mut members = Vec::new();
        for url in &options.endpoints {
            let client = Client::connect([url], Some(connect_options(options, url)));
            let client =
                client.await.map_err(|error| Error::Open { attempt: attempt.clone(), detail: error.to_string() })?;
            members.push(Member { url: url.clone(), client });
        }
        Ok(Self { members, current: AtomicUsize::new(0), request_timeout: options.request_timeout })
    }

    /// The member to ask now, and its place for [`Endpoints::leave`].
    pub fn current(&self) -> (usize, Member) {
        let place = self.current.load(Ordering::Relaxed) % self.members.len();
        (place, self.members[place].clone())
    }

    /// Turns to the next member, unless somebody else already did.
    pub fn leave(&self, place: usize) {
        let next = (place + 1) % self.members.len();
        let turned = self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
        if turned.is_ok() && next != place {
            tracing::warn!(from = self.members[place].url, to = self.members[next].url, "changing the etcd member");
        }
    }

    /// Makes a request, on other members and again as long as `retry` and the request timeout allow.
    pub async fn call<T, F>(
        &self,
        attempt: &str,
        retry: Retry,
        request: impl Fn(Member) -> F,
    ) -> std::result::Result<T, Failure>
    where
        F: Future<Output = std::result::Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + self.request_timeout;
        let mut backoff = BACKOFF_MIN;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (place, member) = self.current();
            let failure = match timeout(self.patience(retry, left), request(member)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::of(attempt, &error),
                Err(_) => Failure::timeout(attempt, self.request_timeout),
            };
            let may_repeat = match failure.kind {
                FailureKind::NotSent => true,
                FailureKind::Unknown => retry == Retry::Always,
                _ => return Err(failure),
            };
            self.leave(place);
            if !may_repeat || Instant::now() + backoff >= deadline {
                return Err(failure);
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// How long one attempt may take: a read leaves time for another member, a write has no second chance.
    fn patience(&self, retry: Retry, left: Duration) -> Duration {
        match retry {
            Retry::Always if self.members.len() > 1 => left.min(self.request_timeout / 2),
            Retry::Always | Retry::IfNotSent => left,
        }
    }
}

fn connect_options(options: &Options, url: &str) -> ConnectOptions {
    let connect = ConnectOptions::new()
        .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        .with_connect_timeout(CONNECT_TIMEOUT.min(options.request_timeout))
        // A member cut off from the others answers at once that it has no leader, instead of keeping us waiting.
        .with_require_leader(true);
    match &options.tls {
        Some(tls) if !url.starts_with("http://") => {
            let mut client = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca));
            if let Some((certificate, key)) = &tls.identity {
                client = client.identity(Identity::from_pem(certificate, key));
            }
            connect.with_tls(client)
        }
        Some(_) | None => connect,
    }
}
