//! Leader election by Lease: at most one holder acts. The leading work runs under a token that is cancelled when the
//! lease could not be renewed in time, before anybody else may take it.

pub mod plan;

use std::time::Duration;

use ::api::meta::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use plan::{Action, Observed, Record};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Api, Client, Error, Object};

/// Upstream's defaults (`LeaderElectionConfiguration`): a lease lasts this long without renewal…
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// …its holder stops acting when it could not renew for this long…
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// …and everybody tries this often.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Takes part in one election.
pub struct Elector {
    leases: Api<Lease>,
    key: ObjectKey,
    identity: String,
    observed: Observed,
    started: Instant,
}

impl Elector {
    /// `identity` must differ between processes; host name and a random part are usual.
    pub fn new(client: &Client, lease: ObjectKey, identity: impl Into<String>) -> Self {
        Self {
            leases: client.api(),
            key: lease,
            identity: identity.into(),
            observed: Observed::default(),
            started: Instant::now(),
        }
    }

    /// Waits until this process leads, then runs `work` with a token that is cancelled when leadership is lost or
    /// `shutdown` is. Returns when the work has ended; the lease is released if it is still ours.
    pub async fn run<W, F>(mut self, shutdown: CancellationToken, work: W) -> Result<(), Error>
    where
        W: FnOnce(CancellationToken) -> F,
        F: Future<Output = ()>,
    {
        loop {
            match self.try_lead().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => warn!(lease = %self.key, %error, "leader election: can't read or write the lease"),
            }
            let pause = RETRY_PERIOD.mul_f64(1.0 + 0.2 * rand::random::<f64>());
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
        info!(lease = %self.key, identity = %self.identity, "leading");
        let leading = shutdown.child_token();
        let work = work(leading.clone());
        tokio::pin!(work);
        let renewing = self.renew(leading.clone());
        tokio::select! {
            () = &mut work => {}
            () = renewing => {
                leading.cancel();
                work.await;
            }
        }
        leading.cancel();
        self.release().await
    }

    /// Renews until it failed for [`RENEW_DEADLINE`] or `leading` is cancelled.
    async fn renew(&mut self, leading: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            if leading.run_until_cancelled(tokio::time::sleep(RETRY_PERIOD)).await.is_none() {
                return;
            }
            let attempt = tokio::time::timeout_at(renewed + RENEW_DEADLINE, self.try_lead()).await;
            match attempt {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    warn!(lease = %self.key, holder = %self.observed.record.holder, "leadership lost");
                    return;
                }
                Ok(Err(error)) => warn!(lease = %self.key, %error, "lease not renewed"),
                Err(_) => warn!(lease = %self.key, "lease not renewed in time"),
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                warn!(lease = %self.key, "RENEW_DEADLINE reached: no longer leading");
                return;
            }
        }
    }

    /// One round: read, decide, write. True when we hold the lease afterwards.
    async fn try_lead(&mut self) -> Result<bool, Error> {
        let Some(lease) = self.leases.find(&self.key).await? else {
            let created = self.leases.create_value(&self.new_lease()).await;
            return match created {
                Ok((lease, _)) => Ok(self.see(&lease)),
                Err(e) if e.is_already_exists() => Ok(false),
                Err(e) => Err(e),
            };
        };
        self.see(&lease);
        let now = micro_time();
        let spec = match plan::decide(&self.observed, &self.identity, self.started.elapsed()) {
            Action::Wait => {
                debug!(lease = %self.key, holder = %self.observed.record.holder, "somebody else leads");
                return Ok(false);
            }
            Action::Renew => json!({"renewTime": now, "leaseDurationSeconds": LEASE_DURATION.as_secs()}),
            Action::Acquire { transitions } => json!({
                "holderIdentity": self.identity, "acquireTime": now, "renewTime": now,
                "leaseTransitions": transitions, "leaseDurationSeconds": LEASE_DURATION.as_secs(),
            }),
        };
        match self.write(lease, spec).await {
            Ok(lease) => Ok(self.see(&lease)),
            // Somebody was faster.
            Err(e) if e.is_conflict() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Notes the lease; true when it is ours.
    fn see(&mut self, lease: &Lease) -> bool {
        self.observed.see(record(lease), self.started.elapsed());
        self.observed.record.holder == self.identity
    }

    /// Writes the spec on condition that nobody wrote since we read. As a whole: upstream's roles of components that
    /// elect a leader lack the verb `patch`.
    async fn write(&self, seen: Lease, spec: Value) -> Result<Lease, Error> {
        let mut lease = json!(seen);
        for (field, value) in spec.as_object().into_iter().flatten() {
            lease["spec"][field] = value.clone();
        }
        Ok(self.leases.replace(&self.key, &lease).await?.0)
    }

    async fn release(&mut self) -> Result<(), Error> {
        let Some(lease) = self.leases.find(&self.key).await? else { return Ok(()) };
        if !self.see(&lease) {
            return Ok(());
        }
        info!(lease = %self.key, "releasing the lease");
        let spec = json!({"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time()});
        match self.write(lease, spec).await {
            Err(e) if !e.is_conflict() => Err(e),
            _ => Ok(()),
        }
    }

    fn new_lease(&self) -> Value {
        let now = micro_time();
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.key.name, "namespace": self.key.namespace},
            "spec": {
                "holderIdentity": self.identity, "leaseDurationSeconds": LEASE_DURATION.as_secs(),
                "acquireTime": now, "renewTime": now, "leaseTransitions": 0,
            },
        })
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        lease_duration: Duration::from_secs(seconds),
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: Object::metadata(lease).resource_version.clone().unwrap_or_default(),
    }
}

/// Now, as a `metav1.MicroTime`.
fn micro_time() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
