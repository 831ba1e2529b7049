//! What a cron job needs now: old jobs to remove, the job to start, and its status. Pure.

use api::cron::Schedule;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use super::next;
use crate::controllers::job::status::{holds, is_finished};
use crate::objects::Owner;

/// Beyond so many missed times the user is warned: more likely a clock is wrong.
const MISSED_MAX: i64 = 100;
/// A look at the due time comes a little later, for clocks that are not quite the same (`nextScheduleDelta`).
const PADDING: Duration = Duration::from_millis(100);
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// A cron job and the jobs it controls.
pub struct Input<'a> {
    pub cron_job: &'a CronJob,
    pub jobs: &'a [Arc<Job>],
    /// Uids in the list of active jobs that the server no longer has.
    pub missing: &'a [String],
    /// Times up to this one count as run: the schedule was changed then.
    pub not_before: Option<Timestamp>,
    /// The zone of cron jobs that name none.
    pub local: &'a TimeZone,
    pub now: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// A job to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub at: Timestamp,
    pub name: String,
    pub job: Value,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Ended jobs beyond the history limits.
    pub remove: Vec<Arc<Job>>,
    /// Running jobs that the new one replaces.
    pub replace: Vec<ObjectReference>,
    pub start: Option<Start>,
    /// The status apart from what removing and starting jobs changes in it.
    pub status: CronJobStatus,
    pub events: Vec<Event>,
    pub again: Option<Duration>,
}

impl Plan {
    fn say(&mut self, reason: &'static str, message: impl Into<String>) {
        self.events.push(Event { warning: false, reason, message: message.into() });
    }
    fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        self.events.push(Event { warning: true, reason, message: message.into() });
    }
}

pub fn plan(input: &Input) -> Plan {
    let status = input.cron_job.status.clone().unwrap_or_default();
    let mut plan = Plan { status, ..Plan::default() };
    let spec = &input.cron_job.spec;
    plan.remove = beyond_history(spec, input.jobs);
    look_at_jobs(input, &mut plan);
    if input.cron_job.metadata.deletion_timestamp.is_none() {
        start(input, spec, &mut plan);
    }
    plan
}

/// The oldest ended jobs beyond the limits (`cleanupFinishedJobs`).
fn beyond_history(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let beyond = |kind: &str, limit: Option<i32>| -> Vec<Arc<Job>> {
        let Some(limit) = limit else { return Vec::new() };
        let ended = |job: &&Arc<Job>| job.status.as_ref().is_some_and(|s| holds(s, kind).is_some());
        let living = jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
        let mut ended: Vec<Arc<Job>> = living.filter(ended).cloned().collect();
        let started = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.clone());
        // Jobs that never started count as the youngest.
        ended.sort_by_key(|job| (started(job).is_none(), started(job), job.metadata.name.clone()));
        let keep = usize::try_from(limit).unwrap_or_default();
        ended.truncate(ended.len().saturating_sub(keep));
        ended
    };
    let mut all = beyond("Complete", spec.successful_jobs_history_limit);
    all.extend(beyond("Failed", spec.failed_jobs_history_limit));
    all
}

/// Brings the list of active jobs and the last success up to date.
fn look_at_jobs(input: &Input, plan: &mut Plan) {
    for job in input.jobs {
        let (name, uid) = (job.metadata.name.clone().unwrap_or_default(), job.metadata.uid.as_ref());
        let status = job.status.clone().unwrap_or_default();
        let listed = plan.status.active.iter().flatten().any(|r| r.uid.as_ref() == uid);
        if !is_finished(Some(&status)) {
            if !listed {
                let message = format!("Saw a job that the controller did not create or forgot: {name}");
                plan.warn("UnexpectedJob", message);
            }
            continue;
        }
        let complete = holds(&status, "Complete").is_some();
        if listed {
            drop_active(&mut plan.status, uid.map(String::as_str));
            let condition = if complete { "Complete" } else { "Failed" };
            plan.say("SawCompletedJob", format!("Saw completed job: {name}, condition: {condition}"));
        }
        if complete && status.completion_time > plan.status.last_successful_time {
            plan.status.last_successful_time = status.completion_time;
        }
    }
    for uid in input.missing {
        let gone = plan.status.active.iter().flatten().find(|r| r.uid.as_ref() == Some(uid));
        if let Some(name) = gone.map(|r| r.name.clone().unwrap_or_default()) {
            drop_active(&mut plan.status, Some(uid));
            plan.say("MissingJob", format!("Active job went missing: {name}"));
        }
    }
}

pub fn drop_active(status: &mut CronJobStatus, uid: Option<&str>) {
    let Some(active) = &mut status.active else { return };
    active.retain(|r| r.uid.as_deref() != uid);
    if active.is_empty() {
        status.active = None;
    }
}

fn start(input: &Input, spec: &CronJobSpec, plan: &mut Plan) {
    let Some(zone) = zone(input, spec, plan) else { return };
    if spec.suspend == Some(true) {
        return;
    }
    let text = &spec.schedule;
    if text.contains("TZ") {
        plan.warn(
            "UnsupportedSchedule",
            format!(
                "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            ),
        );
    }
    let schedule = match Schedule::parse(text) {
        Ok(schedule) => schedule,
        Err(error) => return plan.warn("UnparseableSchedule", format!("unparseable schedule: {text:?} : {error}")),
    };
    let since = last_time(input, plan);
    let deadline = spec.starting_deadline_seconds.map(|seconds| input.now - SignedDuration::from_secs(seconds));
    // What is due since the last run says when to look again; the deadline only limits what may be started.
    let (all, startable) = (
        next::due(&schedule, &zone, since, input.now),
        next::due(&schedule, &zone, deadline.map_or(since, |d| d.max(since)), input.now),
    );
    let (Ok(all), Ok(startable)) = (all, startable) else {
        return plan.warn("InvalidSchedule", format!("invalid schedule: {text} : {}", next::Never));
    };
    let from = all.map_or(since, |due| due.latest);
    let wait = next::next(&schedule, &zone, from).map(|time| time.duration_since(input.now));
    plan.again = wait.map(|wait| Duration::try_from(wait).unwrap_or_default() + PADDING);
    let Some(due) = startable else { return };
    if due.missed > MISSED_MAX {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.warn("TooManyMissedTimes", message);
    }
    begin(input, spec, &zone, due.latest, deadline, plan);
}

/// The zone of the schedule; `None` when it can't be had, with a warning.
fn zone(input: &Input, spec: &CronJobSpec, plan: &mut Plan) -> Option<TimeZone> {
    let in_schedule = ["TZ=", "CRON_TZ="].iter().find_map(|prefix| spec.schedule.strip_prefix(prefix));
    let in_schedule = in_schedule.and_then(|rest| rest.split_whitespace().next());
    let Some(name) = in_schedule.or(spec.time_zone.as_deref()) else { return Some(input.local.clone()) };
    let zone = TimeZone::get(name).or_else(|_| jiff::tz::TimeZoneDatabase::bundled().get(name));
    if zone.is_err() {
        plan.warn("UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}"));
    }
    zone.ok()
}

/// The last run, or else the creation.
fn last_time(input: &Input, plan: &Plan) -> Timestamp {
    let last = plan.status.last_schedule_time.as_ref().or(input.cron_job.metadata.creation_timestamp.as_ref());
    let last = last.map_or(input.now, |time| time.0);
    input.not_before.map_or(last, |time| time.max(last))
}

/// Starts the job of this time, unless it is too late, done, or another one is in its way.
fn begin(
    input: &Input,
    spec: &CronJobSpec,
    zone: &TimeZone,
    at: Timestamp,
    deadline: Option<Timestamp>,
    plan: &mut Plan,
) {
    if deadline.is_some_and(|deadline| at < deadline) {
        let time = at.strftime("%a, %d %b %Y %H:%M:%S +0000");
        return plan.warn("MissSchedule", format!("Missed scheduled time to start a job: {time}"));
    }
    let cron_job = input.cron_job.metadata.name.as_deref().unwrap_or_default();
    let name = format!("{cron_job}-{}", at.as_second() / 60);
    let active = plan.status.active.clone().unwrap_or_default();
    let done = plan.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == at);
    if done || active.iter().any(|r| r.name.as_deref() == Some(&name)) {
        return;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return plan.say("JobAlreadyActive", message);
        }
        Some("Replace") => plan.replace = active,
        _ => {}
    }
    let job = job(input.cron_job, spec, zone, at, &name);
    plan.start = Some(Start { at, name, job });
}

fn job(cron_job: &CronJob, spec: &CronJobSpec, zone: &TimeZone, at: Timestamp, name: &str) -> Value {
    let metadata = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let time = match local.offset().seconds() {
        0 => local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    annotations.insert(SCHEDULED_AT.into(), time);
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "labels": metadata.labels, "annotations": annotations,
            "ownerReferences": [Owner::of(cron_job).reference()],
        },
        "spec": spec.job_template.spec,
    })
}
