//! What a cron job does at a moment, told in lines.

use std::sync::Arc;

use expect_test::{Expect, expect};
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::plan::{Input, plan};

/// `NAME [running|ok|failed] [start=TIME] [listed]`
fn job(text: &str) -> (Arc<Job>, bool) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut job = json!({"metadata": {"name": words[0], "namespace": "a", "uid": words[0]}, "status": {}});
    for word in &words[1..] {
        let end = |kind: &str| json!([{"type": kind, "status": "True"}]);
        match word.split_once('=').unwrap_or((word, "")) {
            ("ok", _) => {
                job["status"]["conditions"] = end("Complete");
                job["status"]["completionTime"] = "2026-01-01T11:30:00Z".into();
            }
            ("failed", _) => job["status"]["conditions"] = end("Failed"),
            ("start", time) => job["status"]["startTime"] = format!("2026-01-01T{time}:00Z").into(),
            _ => {}
        }
    }
    (Arc::new(serde_json::from_value(job).unwrap()), words.contains(&"listed"))
}

/// At noon of 1 January 2026; created at ten.
fn check(spec: Value, status: Value, jobs: &[&str], expected: Expect) {
    let mut cron_job = json!({
        "metadata": {"name": "c", "namespace": "a", "uid": "u", "creationTimestamp": "2026-01-01T10:00:00Z"},
        "spec": {"schedule": "*/10 * * * *", "jobTemplate": {"spec": {"template": {}}}, "concurrencyPolicy": "Allow"},
        "status": status,
    });
    spec.as_object().unwrap().iter().for_each(|(name, value)| cron_job["spec"][name] = value.clone());
    let jobs: Vec<(Arc<Job>, bool)> = jobs.iter().map(|text| job(text)).collect();
    let active: Vec<Value> = jobs
        .iter()
        .filter(|(_, listed)| *listed)
        .map(|(job, _)| json!({"name": job.metadata.name, "namespace": "a", "uid": job.metadata.uid}))
        .collect();
    if !active.is_empty() {
        cron_job["status"]["active"] = active.into();
    }
    let cron_job: CronJob = serde_json::from_value(cron_job).unwrap();
    let jobs: Vec<Arc<Job>> = jobs.into_iter().map(|(job, _)| job).collect();
    let now = "2026-01-01T12:00:05Z".parse().unwrap();
    let input = Input { cron_job: &cron_job, jobs: &jobs, missing: &[], not_before: None, local: &TimeZone::UTC, now };
    let plan = plan(&input);
    let mut told = Vec::new();
    let name = |job: &Arc<Job>| job.metadata.name.clone().unwrap();
    told.extend(plan.remove.iter().map(|job| format!("remove {}", name(job))));
    told.extend(plan.replace.iter().map(|r| format!("replace {}", r.name.clone().unwrap())));
    told.extend(plan.start.map(|s| format!("start {} for {}", s.name, s.job["metadata"]["annotations"])));
    told.extend(plan.events.iter().map(|e| format!("{}: {}", e.reason, e.message)));
    let active = plan.status.active.unwrap_or_default();
    let active: Vec<String> = active.into_iter().map(|r| r.name.unwrap()).collect();
    told.push(format!("active {active:?}, success {:?}", plan.status.last_successful_time.map(|t| t.0.to_string())));
    told.push(format!("again {:?}", plan.again));
    expected.assert_eq(&(told.join("\n") + "\n"));
}

#[test]
fn the_last_missed_time_is_run() {
    check(
        json!({}),
        json!({}),
        &[],
        expect![[r#"
        start c-29454480 for {"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T12:00:00Z"}
        active [], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({}),
        json!({"lastScheduleTime": "2026-01-01T12:00:00Z"}),
        &[],
        expect![[r#"
        active [], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({"timeZone": "Asia/Tokyo"}),
        json!({"lastScheduleTime": "2026-01-01T11:50:00Z"}),
        &[],
        expect![[r#"
        start c-29454480 for {"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T21:00:00+09:00"}
        active [], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({"schedule": "* * * * *"}),
        json!({}),
        &[],
        expect![[r#"
        start c-29454480 for {"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T12:00:00Z"}
        TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        active [], success None
        again Some(55.1s)
    "#]],
    );
}

#[test]
fn what_runs_is_let_run_refuses_or_goes() {
    let last = json!({"lastScheduleTime": "2026-01-01T11:50:00Z"});
    check(
        json!({}),
        last.clone(),
        &["c-1 running listed"],
        expect![[r#"
        start c-29454480 for {"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T12:00:00Z"}
        active ["c-1"], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({"concurrencyPolicy": "Forbid"}),
        last.clone(),
        &["c-1 running listed"],
        expect![[r#"
        JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid
        active ["c-1"], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({"concurrencyPolicy": "Replace"}),
        last.clone(),
        &["c-1 running listed"],
        expect![[r#"
        replace c-1
        start c-29454480 for {"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T12:00:00Z"}
        active ["c-1"], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({"concurrencyPolicy": "Forbid"}),
        last,
        &["c-1 ok listed"],
        expect![[r#"
        start c-29454480 for {"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T12:00:00Z"}
        SawCompletedJob: Saw completed job: c-1, condition: Complete
        active [], success Some("2026-01-01T11:30:00Z")
        again Some(595.1s)
    "#]],
    );
}

#[test]
fn the_past_and_the_suspended_are_not_run() {
    let last = json!({"lastScheduleTime": "2026-01-01T11:40:00Z"});
    check(
        json!({"suspend": true}),
        last.clone(),
        &["x running"],
        expect![[r#"
        UnexpectedJob: Saw a job that the controller did not create or forgot: x
        active [], success None
        again None
    "#]],
    );
    check(
        json!({"startingDeadlineSeconds": 3}),
        last.clone(),
        &[],
        expect![[r#"
        active [], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({"startingDeadlineSeconds": 10}),
        last.clone(),
        &[],
        expect![[r#"
        start c-29454480 for {"batch.kubernetes.io/cronjob-scheduled-timestamp":"2026-01-01T12:00:00Z"}
        active [], success None
        again Some(595.1s)
    "#]],
    );
    check(
        json!({"timeZone": "Mars/Phobos"}),
        last.clone(),
        &[],
        expect![[r#"
        UnknownTimeZone: invalid timeZone: "Mars/Phobos": unknown time zone Mars/Phobos
        active [], success None
        again None
    "#]],
    );
    check(
        json!({"schedule": "0 0 31 2 *"}),
        last.clone(),
        &[],
        expect![[r#"
        InvalidSchedule: invalid schedule: 0 0 31 2 * : time difference between two schedules is less than 1 second
        active [], success None
        again None
    "#]],
    );
    check(
        json!({"schedule": "often"}),
        last,
        &[],
        expect![[r#"
        UnparseableSchedule: unparseable schedule: "often" : expected exactly 5 fields, found 1: [often]
        active [], success None
        again None
    "#]],
    );
}

#[test]
fn history_is_kept_to_its_limits() {
    let jobs = ["a ok start=10:00", "b ok start=10:10", "c ok", "d failed start=11:00", "e failed start=10:30 listed"];
    let spec = json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1, "suspend": true});
    check(
        spec,
        json!({}),
        &jobs,
        expect![[r#"
        remove a
        remove b
        remove e
        SawCompletedJob: Saw completed job: e, condition: Failed
        active [], success Some("2026-01-01T11:30:00Z")
        again None
    "#]],
    );
}
