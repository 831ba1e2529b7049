//! How long a job waits before it replaces failed pods: 10 s after the first failure, doubling with each further one
//! without a success in between, up to 10 minutes. Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::objects::{ContainerStatus, Pod};

const FIRST: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(600);

/// What is remembered of a job's failures. Lost with the process: a new one starts without delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub failures_after_last_success: i32,
    pub last_failure: Option<Timestamp>,
}

impl Record {
    /// The record after these pods ended (`backoffStore.newBackoffRecord`).
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let latest = |pods: &[Arc<Pod>]| pods.iter().map(|p| finished_at(p)).max();
        let Some(success) = latest(succeeded) else {
            let count = i32::try_from(failed.len()).unwrap_or(i32::MAX);
            let last_failure = latest(failed).or(self.last_failure);
            let failures = self.failures_after_last_success.saturating_add(count);
            return Self { failures_after_last_success: failures, last_failure };
        };
        let later: Vec<Timestamp> = failed.iter().map(|p| finished_at(p)).filter(|t| *t > success).collect();
        let count = i32::try_from(later.len()).unwrap_or(i32::MAX);
        Self { failures_after_last_success: count, last_failure: later.into_iter().max() }
    }

    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        remaining(self.failures_after_last_success, self.last_failure?, now)
    }
}

/// What is left of the delay after so many failures, if anything is (`getRemainingTimeForFailuresCount`).
pub fn remaining(failures: i32, last_failure: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures).ok()?.checked_sub(1)?;
    let delay = 2u32.checked_pow(doublings).map_or(LAST, |factor| FIRST.saturating_mul(factor).min(LAST));
    let since = now.duration_since(last_failure);
    let left = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX).saturating_sub(since);
    Duration::try_from(left).ok().filter(|left| !left.is_zero())
}

/// When a pod ended: the last of its containers, or else what comes closest (`getFinishedTime`).
pub fn finished_at(pod: &Pod) -> Timestamp {
    by_containers(pod)
        .or_else(|| pod.condition("Ready").filter(|c| c.status == "False").and_then(|c| c.last_transition_time))
        .or_else(|| {
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
            pod.metadata.deletion_timestamp.map(|end| end - SignedDuration::from_secs(grace))
        })
        .or(pod.metadata.creation_timestamp)
        .unwrap_or_default()
}

fn by_containers(pod: &Pod) -> Option<Timestamp> {
    let is_sidecar = |name: &str| {
        let mut all = pod.spec.init_containers.iter();
        all.any(|c| c.name == name && c.restart_policy == "Always")
    };
    let sidecars = pod.status.init_container_statuses.iter().filter(|s| is_sidecar(&s.name));
    let ends = pod.status.container_statuses.iter().chain(sidecars).map(ended);
    // One that still runs makes the time unknown.
    ends.collect::<Option<Vec<Timestamp>>>()?.into_iter().max()
}

fn ended(status: &ContainerStatus) -> Option<Timestamp> {
    status.state.terminated.as_ref()?.finished_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn ended_at(seconds: i64) -> Arc<Pod> {
        let state = json!({"terminated": {"exitCode": 1, "finishedAt": at(seconds).to_string()}});
        let pod = json!({"status": {"containerStatuses": [{"name": "c", "state": state}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn delays_double_up_to_the_last() {
        let check = |failures: i32, after: i64, expected: Option<u64>| {
            assert_eq!(remaining(failures, at(0), at(after)), expected.map(Duration::from_secs));
        };
        check(0, 0, None);
        check(1, 0, Some(10));
        check(1, 4, Some(6));
        check(1, 10, None);
        check(2, 0, Some(20));
        check(6, 0, Some(320));
        check(7, 0, Some(600));
        check(2000, 1, Some(599));
    }

    #[test]
    fn a_success_resets_what_failed_before_it() {
        let record = Record::default().after(&[], &[ended_at(1), ended_at(5)]);
        assert_eq!(record, Record { failures_after_last_success: 2, last_failure: Some(at(5)) });
        let record = record.after(&[], &[ended_at(9)]);
        assert_eq!(record.failures_after_last_success, 3);
        assert_eq!(record.after(&[], &[]), record);
        assert_eq!(record.after(&[ended_at(20)], &[]), Record::default());
        let mixed = record.after(&[ended_at(20)], &[ended_at(15), ended_at(21), ended_at(25)]);
        assert_eq!(mixed, Record { failures_after_last_success: 2, last_failure: Some(at(25)) });
    }

    #[test]
    fn the_end_of_a_pod_is_found_where_it_is_written() {
        let pod = |value: serde_json::Value| serde_json::from_value::<Pod>(value).unwrap();
        assert_eq!(finished_at(&ended_at(3)), at(3));
        let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": at(4).to_string()});
        assert_eq!(finished_at(&pod(json!({"status": {"conditions": [ready]}}))), at(4));
        let deleted = json!({"deletionTimestamp": at(40).to_string(), "deletionGracePeriodSeconds": 30});
        assert_eq!(finished_at(&pod(json!({"metadata": deleted}))), at(10));
        let created = json!({"creationTimestamp": at(2).to_string()});
        assert_eq!(finished_at(&pod(json!({"metadata": created}))), at(2));
    }
}
