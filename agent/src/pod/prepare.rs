//! What a pod needs before its first container: sandbox, volumes and images, made at the same time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodSpec;

use super::{
    act::{Error, chain},
    observed::{Retry, Sandbox, Volumes},
    owner::Owner,
    plan::Step,
    resources::{Resources, qos},
};
use crate::{sandbox, volume};

/// How long a pod waits for its protection before its sandbox counts as failed, which is tried again.
pub(super) const GUARD_LIMIT: Duration = Duration::from_secs(10);

/// First and longest waits between tries, by what failed.
const SANDBOX_RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(500), SignedDuration::from_secs(30));
const VOLUME_RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(500), SignedDuration::from_secs(30));
/// Contents of volumes that follow objects of the cluster are brought up to date this often (kubelet's
/// `syncFrequency`), later by up to the spread.
const REFRESH: SignedDuration = SignedDuration::from_secs(60);
const REFRESH_SPREAD_MS: i64 = 15_000;

impl Owner {
    /// Sandbox, volumes and images depend on nothing of each other.
    pub(super) async fn prepare(&mut self, steps: Vec<Step>) {
        let containers = steps.iter().filter_map(|step| match step {
            Step::FindImage { container } => self.container(container),
            _ => None,
        });
        let containers = containers.collect::<Vec<_>>();
        containers.iter().for_each(|container| self.claim_image(container));
        let sandbox = async {
            if !steps.contains(&Step::CreateSandbox) {
                return None;
            }
            Some(self.create_sandbox().await)
        };
        let volumes = async {
            if !steps.contains(&Step::PrepareVolumes) {
                return None;
            }
            let context = self.shared.volume_context(self.observed.addresses());
            Some(volume::prepare(&self.pod, &context).await)
        };
        let images = futures_util::future::join_all(containers.iter().map(|container| self.find_image(container)));
        let (sandbox, volumes, images) =
            tokio::join!(timed("sandbox", sandbox), timed("volumes", volumes), timed("images", images));
        if let Some(result) = sandbox {
            self.sandbox_made(result);
        }
        if let Some(result) = volumes {
            self.volumes_made(result);
        }
        for (container, found) in containers.iter().zip(images) {
            self.image_found(container, found);
        }
    }

    async fn create_sandbox(&self) -> Result<sandbox::Record, Error> {
        if let Some(spec) = &self.pod.spec {
            self.shared.cgroups.create_pod(qos(spec), &self.id.uid, Resources::of_pod(spec))?;
        }
        let record = match self.shared.sandboxes.load(&self.id.uid)? {
            Some(record) => record,
            None => self.shared.sandboxes.create(&self.pod, &self.shared.node(), self.newest_attempt()).await?,
        };
        self.guarded(&record).await?;
        Ok(record)
    }

    /// Returns when the pod's addresses are protected.
    async fn guarded(&self, record: &sandbox::Record) -> Result<(), Error> {
        let Some(guard) = self.shared.guard.as_ref().filter(|_| record.attachment.is_some()) else { return Ok(()) };
        let admitted = guard.admit(&self.pod, &record.addresses);
        tokio::time::timeout(GUARD_LIMIT, timed("guard", admitted)).await.map_err(|_elapsed| Error::Unguarded)
    }

    /// When the newest container of the pod was made.
    fn newest_attempt(&self) -> Option<Timestamp> {
        let all = self.observed.containers.values().flat_map(|series| [&series.latest, &series.previous]);
        all.flatten().map(|attempt| attempt.created_at).max()
    }

    fn sandbox_made(&mut self, result: Result<sandbox::Record, Error>) {
        self.observed.sandbox = match result {
            Ok(record) => {
                let ready_at = record.ready_at.unwrap_or_else(Timestamp::now);
                let addresses = record.addresses.clone();
                self.sandbox = Some(record);
                Sandbox::Ready { addresses, ready_at }
            }
            Err(error) => {
                let message = chain(&error);
                self.event(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"), None);
                let before = match &self.observed.sandbox {
                    Sandbox::Failed(retry) => Some(retry),
                    _ => None,
                };
                let (first, last) = SANDBOX_RETRY;
                Sandbox::Failed(Retry::after(before, Timestamp::now(), message, first, last))
            }
        };
    }

    fn volumes_made(&mut self, result: Result<volume::Volumes, volume::Error>) {
        let now = Timestamp::now();
        self.observed.refresh_at = self.pod.spec.as_ref().filter(|spec| has_changing_volumes(spec)).map(|_| {
            // Spread, so that pods started together do not ask together for ever.
            now + REFRESH + SignedDuration::from_millis(rand::random_range(0..REFRESH_SPREAD_MS))
        });
        if let (Volumes::Ready, Err(error)) = (&self.observed.volumes, &result) {
            // What was prepared stays in use; the next refresh may succeed.
            tracing::warn!(pod = %self.id, error = chain(error), "volumes not refreshed");
            return;
        }
        self.observed.volumes = match result {
            Ok(volumes) => {
                self.volumes = volumes;
                Volumes::Ready
            }
            Err(error) => {
                let message = chain(&error);
                self.event(true, "FailedMount", format!("MountVolume.SetUp failed for {message}"), None);
                let before = match &self.observed.volumes {
                    Volumes::Failed(retry) => Some(retry),
                    _ => None,
                };
                let (first, last) = VOLUME_RETRY;
                Volumes::Failed(Retry::after(before, now, message, first, last))
            }
        };
    }
}

/// Notes how long a part of the way to a running container took.
pub(super) async fn timed<T>(what: &'static str, part: impl Future<Output = T>) -> T {
    let begun = std::time::Instant::now();
    let done = part.await;
    tracing::trace!(what, elapsed = ?begun.elapsed(), "done");
    done
}

/// Volumes whose contents follow objects of the cluster.
fn has_changing_volumes(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    })
}
