//! Why a Job or CronJob does not get done.

use serde_json::Value;

use super::set;
use crate::chain::Cause;
use crate::look::{Look, be, condition_is, count, counted, items, kubectl, span, text};

pub fn job_state(job: &Value) -> String {
    let (spec, status) = (&job["spec"], &job["status"]);
    let (active, succeeded, failed) = (count(&status["active"]), count(&status["succeeded"]), count(&status["failed"]));
    if condition_is(job, "Complete", "True").is_some() {
        return "Complete".to_owned();
    }
    let how = if condition_is(job, "Failed", "True").is_some() { "Failed: " } else { "" };
    match spec["completions"].as_i64() {
        Some(wanted) => format!("{how}{succeeded} of {wanted} pods succeeded, {failed} failed, {active} active"),
        None => format!("{how}{succeeded} pods succeeded, {failed} failed, {active} active"),
    }
}

pub fn job(look: &Look, job: &Value) -> Vec<Cause> {
    if condition_is(job, "Complete", "True").is_some() {
        return Vec::new();
    }
    if let Some(failed) = condition_is(job, "Failed", "True").or_else(|| condition_is(job, "FailureTarget", "True")) {
        return vec![failure(look, job, failed)];
    }
    let (namespace, name) = (api::meta::namespace(job), api::meta::name(job));
    if job["spec"]["suspend"] == true {
        let resume = format!("patch job {name} -p '{{\"spec\":{{\"suspend\":false}}}}'");
        let message = "it is suspended, so it has no pods";
        return vec![Cause::new("Suspended", message).about(job).fix("", kubectl(namespace, &resume))];
    }
    let pods = set::owned(look, job);
    let mut causes = Vec::new();
    if let Some(manager) = job["spec"]["managedBy"].as_str().filter(|m| *m != "kubernetes.io/job-controller") {
        let message = format!("it is run by {manager} (managedBy), not by the Job controller");
        causes.push(Cause::new("ManagedBy", message).about(job));
    }
    if pods.is_empty() || count(&job["status"]["active"]) == 0 {
        causes.extend(set::not_created(look, job));
    }
    let active: Vec<&Value> = pods.iter().copied().filter(|pod| pod["status"]["phase"] != "Failed").collect();
    causes.extend(set::pods(look, job, &active));
    let failed = count(&job["status"]["failed"]);
    if failed > 0 {
        causes.push(retried(look, job, &pods, failed));
    }
    if causes.is_empty() && !active.is_empty() {
        let message = format!("{} {} at work", counted(active.len(), "pod"), be(active.len()));
        causes.push(Cause::new("Running", message).about(job));
    }
    causes
}

fn retried(look: &Look, job: &Value, pods: &[&Value], failed: i64) -> Cause {
    let limit = job["spec"]["backoffLimit"].as_i64().unwrap_or(6);
    let message = match job["spec"]["backoffLimitPerIndex"].as_i64() {
        Some(limit) => format!("{failed} of its pods failed so far; each index may fail {limit} times"),
        None => format!(
            "{failed} of its pods failed so far, and it gives up after more than {limit} (backoffLimit); each try waits longer"
        ),
    };
    let below = newest_failure(look, pods);
    Cause::new("Retrying", message).about(job).because(below)
}

/// Why the last pod that failed did.
fn newest_failure(look: &Look, pods: &[&Value]) -> Option<Cause> {
    let failed = pods.iter().filter(|pod| pod["status"]["phase"] == "Failed");
    let newest = failed.max_by_key(|pod| text(&pod["metadata"]["creationTimestamp"]))?;
    Some(Cause::new("PodFailed", "is the last that failed").about(newest).because(look.why(newest)))
}

fn failure(look: &Look, job: &Value, condition: &Value) -> Cause {
    let (namespace, name) = (api::meta::namespace(job), api::meta::name(job));
    let spec = &job["spec"];
    let again = kubectl(
        namespace,
        &format!(
            "replace --force -f JOB.yaml  # a Job that failed is made anew: kubectl -n {namespace} get job {name} -o yaml"
        ),
    );
    let reason = text(&condition["reason"]);
    let message = match reason {
        "BackoffLimitExceeded" => {
            let limit = spec["backoffLimit"].as_i64().unwrap_or(6);
            format!("it gave up: more of its pods failed than its backoffLimit of {limit} allows")
        }
        "DeadlineExceeded" => {
            let limit = count(&spec["activeDeadlineSeconds"]);
            format!("it was not done within its activeDeadlineSeconds ({})", span(limit))
        }
        "PodFailurePolicy" => format!("a rule of its podFailurePolicy ended it: {}", text(&condition["message"])),
        "FailedIndexes" => {
            format!("it is through, and some indexes failed for good: {}", text(&job["status"]["failedIndexes"]))
        }
        "MaxFailedIndexesExceeded" => {
            let limit = count(&spec["maxFailedIndexes"]);
            format!(
                "more indexes failed for good than its maxFailedIndexes of {limit}: {}",
                text(&job["status"]["failedIndexes"])
            )
        }
        _ => text(&condition["message"]).to_owned(),
    };
    let below = newest_failure(look, &set::owned(look, job));
    Cause::new(if reason.is_empty() { "Failed" } else { reason }, message).about(job).because(below).fix("", again)
}

pub fn cron_job(look: &Look, cron: &Value) -> Vec<Cause> {
    let (namespace, name) = (api::meta::namespace(cron), api::meta::name(cron));
    let spec = &cron["spec"];
    if spec["suspend"] == true {
        let resume = format!("patch cronjob {name} -p '{{\"spec\":{{\"suspend\":false}}}}'");
        let message = "it is suspended, so it makes no Jobs";
        return vec![Cause::new("Suspended", message).about(cron).fix("", kubectl(namespace, &resume))];
    }
    let mut causes = Vec::new();
    const TROUBLES: &[&str] = &[
        "UnparseableSchedule",
        "UnknownTimeZone",
        "InvalidSchedule",
        "MissSchedule",
        "TooManyMissedTimes",
        "FailedCreate",
        "FailedNeedsStart",
    ];
    if let Some(event) = look.event(cron, TROUBLES) {
        let (reason, message) = (text(&event["reason"]), text(&event["message"]));
        causes.push(Cause::new(reason, format!("its controller says {reason}: {message}")).about(cron));
    }
    let jobs = jobs(look, cron);
    let active = items(&cron["status"]["active"]).count();
    if spec["concurrencyPolicy"] == "Forbid" && active > 0 {
        let running = jobs.iter().find(|job| count(&job["status"]["active"]) > 0).copied();
        let since = running.and_then(|job| look.since(&job["metadata"]["creationTimestamp"]));
        let since = since.map(|s| format!(" for {s}")).unwrap_or_default();
        let none = "and no other is started beside it (concurrencyPolicy Forbid)";
        causes.push(match running {
            // That its pods are at work is what one expects.
            Some(job) => Cause::new("Forbidden", format!("still runs{since}, {none}"))
                .about(job)
                .because(look.why(job).into_iter().filter(|cause| cause.reason != "Running")),
            None => Cause::new("Forbidden", format!("a Job of it still runs, {none}")).about(cron),
        });
    }
    let newest = jobs.first();
    if let Some(job) = newest.filter(|job| condition_is(job, "Failed", "True").is_some()) {
        causes.push(Cause::new("LastJobFailed", ", its last Job, failed").about(job).because(look.why(job)));
    }
    causes
}

/// The Jobs of a CronJob, the newest first.
fn jobs<'w>(look: &Look<'w>, cron: &Value) -> Vec<&'w Value> {
    let uid = api::meta::uid(cron);
    let mine = |job: &&Value| items(&job["metadata"]["ownerReferences"]).any(|o| o["uid"] == uid);
    let mut jobs: Vec<&Value> = look.world.list("jobs.batch", api::meta::namespace(cron)).iter().filter(mine).collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(text(&job["metadata"]["creationTimestamp"]).to_owned()));
    jobs
}
