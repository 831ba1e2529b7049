//! TTL after finished: deletes jobs some time after they have ended, with all that they own.

use std::time::Duration;

use api_client::{Cache, DeleteParams, Object, ObjectKey, Propagation};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use super::job::status;
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};

pub struct TtlAfterFinished {
    jobs: Cache<Job>,
}

impl TtlAfterFinished {
    pub fn new(caches: &Caches) -> Self {
        Self { jobs: caches.get() }
    }
}

#[async_trait]
impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.jobs);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("batch", "jobs")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let left = self.jobs.get(key).and_then(|job| left(&job, work.now()));
        match left {
            None => return Ok(Done::Settled),
            Some(left) if !left.is_zero() => return Ok(Done::After(left)),
            Some(_) => {}
        }
        // The time may just have been made longer: what counts is what the server has.
        let Some(live) = work.live::<Job>().find(key).await? else { return Ok(Done::Settled) };
        match left_now(&live, work) {
            Some(left) if left.is_zero() => {
                let params = DeleteParams::default().propagation(Propagation::Foreground);
                work.delete::<Job>(key, live.metadata.uid.as_deref().unwrap_or_default(), params).await?;
                tracing::info!(job = %live.key(), "deleted after its time to live");
                Ok(Done::Settled)
            }
            left => Ok(Done::after(left)),
        }
    }
}

fn left_now(job: &Job, work: &Work) -> Option<Duration> {
    left(job, work.now())
}

/// What is left of an ended job's time; `None` when it stays.
fn left(job: &Job, now: Timestamp) -> Option<Duration> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let status = job.status.as_ref().filter(|_| job.metadata.deletion_timestamp.is_none())?;
    let end = status::holds(status, "Complete").or_else(|| status::holds(status, "Failed"))?;
    let since = now.duration_since(end.last_transition_time.as_ref()?.0);
    let left = SignedDuration::from_secs(i64::from(seconds)).saturating_sub(since);
    Some(Duration::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(ttl: Value, condition: &str, expected: Option<u64>) {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let condition = json!({"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T11:59:00Z"});
        let job = json!({
            "spec": {"ttlSecondsAfterFinished": ttl, "template": {}}, "status": {"conditions": [condition]},
        });
        let job: Job = serde_json::from_value(job).unwrap();
        assert_eq!(left(&job, now), expected.map(Duration::from_secs));
    }

    #[test]
    fn time_runs_from_the_end() {
        check(json!(null), "Complete", None);
        check(json!(100), "Suspended", None);
        check(json!(100), "Complete", Some(40));
        check(json!(60), "Failed", Some(0));
        check(json!(0), "Complete", Some(0));
    }
}
