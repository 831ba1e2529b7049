//! CronJob.

use serde_json::Value;

use super::fill::Lit::{Bool, Int, Str};
use super::fill::{Rows, fill};
use super::place::{Errors, Place};
use super::{Context, Strategy, Verb, job, warnings};
use crate::cron;
use crate::meta;

const SPEC: Rows = &[
    ("concurrencyPolicy", Str("Allow")),
    ("suspend", Bool(false)),
    ("successfulJobsHistoryLimit", Int(3)),
    ("failedJobsHistoryLimit", Int(1)),
];
/// Jobs are named after it, with eleven characters more.
const NAME_MAX_BYTES: usize = 52;
const ZONE_PART_MAX_BYTES: usize = 14;

pub struct CronJob;

impl Strategy for CronJob {
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, SPEC);
        let template = meta::child_mut(spec, "jobTemplate");
        meta::child_mut(template, "metadata");
        job::default_template(meta::child_mut(template, "spec"));
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::job(object, old, "spec.jobTemplate.spec")
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        let (metadata, spec) = (object.field("metadata"), object.field("spec"));
        let name = metadata.field("name");
        if ctx.verb == Verb::Create && name.str().len() > NAME_MAX_BYTES {
            errors.push(name.invalid(format!("must be no more than {NAME_MAX_BYTES} characters")));
        }
        schedule(&spec.field("schedule"), errors);
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            spec.field(field).nonnegative(errors);
        }
        if ctx.verb == Verb::Create {
            time_zone(&spec.field("timeZone"), errors);
        }
        spec.field("concurrencyPolicy").require_one_of(&["Allow", "Forbid", "Replace"], errors);
        let template = spec.field("jobTemplate");
        let job_spec = template.field("spec");
        job::spec_rules(&job_spec, errors);
        if job_spec.field("selector").is_set() {
            errors.push(job_spec.field("selector").invalid("`selector` will be auto-generated"));
        }
        if job_spec.field("manualSelector").is_true() {
            errors.push(job_spec.field("manualSelector").not_supported(&["nil", "false"]));
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        let (zone, was) = (spec.field("timeZone"), before.field("timeZone"));
        if zone.value != was.value {
            time_zone(&zone, errors);
        }
    }
}

fn schedule(schedule: &Place, errors: &mut Errors) {
    if !schedule.require(errors) {
        return;
    }
    if let Err(problem) = cron::Schedule::parse(schedule.str()) {
        errors.push(schedule.invalid(problem.to_string()));
    }
    if schedule.str().contains("TZ") {
        errors.push(schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"));
    }
}

/// The form of a zone's name, and whether the built-in database has it in this spelling.
fn time_zone(zone: &Place, errors: &mut Errors) {
    if !zone.is_set() {
        return;
    }
    let name = zone.str();
    let part_fine = |part: &str| {
        !part.is_empty()
            && part.len() <= ZONE_PART_MAX_BYTES
            && ![".", ".."].contains(&part)
            && !part.starts_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
    };
    if name.is_empty() {
        errors.push(zone.invalid("timeZone must be nil or non-empty string"));
    } else if !name.split('/').all(part_fine) || !is_known(name) {
        errors.push(zone.invalid(format!("unknown time zone {name}")));
    } else if name.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(zone.invalid(detail));
    }
}

fn is_known(name: &str) -> bool {
    let known = jiff::tz::TimeZoneDatabase::bundled().get(name);
    name.eq_ignore_ascii_case("Local") || known.is_ok_and(|zone| zone.iana_name() == Some(name))
}
