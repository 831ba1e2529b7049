//! Job.

mod policies;
mod status;
mod update;

use serde_json::Value;

use super::fill::Lit::{Bool, Int, Str};
use super::fill::{each, fill, has};
use super::place::{Errors, Place};
use super::pod::{defaults, template};
use super::{Context, Strategy, format, warnings, workload};
use crate::field::Error;
use crate::meta;

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";

const MANAGED_BY_MAX_BYTES: usize = 63;
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const INDEXED_FAILED_MAX: i64 = 100_000;
/// Above so many completions, per-index retries need tighter limits.
const COMPLETIONS_SOFT_LIMIT: i64 = 100_000;
const HIGH_COMPLETIONS_LIMIT: i64 = 10_000;

pub struct Job;

impl Strategy for Job {
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        let (completions, parallelism) = (has(spec, "completions"), has(spec, "parallelism"));
        if !completions && !parallelism {
            fill(spec, &[("completions", Int(1))]);
        }
        let backoff = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
        let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        fill(
            spec,
            &[
                ("parallelism", Int(1)),
                ("backoffLimit", Int(backoff)),
                ("completionMode", Str("NonIndexed")),
                ("suspend", Bool(false)),
                ("podReplacementPolicy", Str(replacement)),
                ("manualSelector", Bool(false)),
            ],
        );
        default_template(spec);
        let labels = spec.get("template").and_then(|t| t.get("metadata")).and_then(|m| m.get("labels")).cloned();
        let metadata = meta::metadata_mut(object);
        let unlabelled = metadata.get("labels").and_then(Value::as_object).is_none_or(|l| l.is_empty());
        if let Some(labels) = labels.filter(|l| unlabelled && l.as_object().is_some_and(|l| !l.is_empty())) {
            metadata.insert("labels".into(), labels);
        }
    }

    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        generate_selector(object);
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        generated_selector(object, errors);
        full_spec(&object.field("spec"), errors);
        index_names(object, errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        // Upstream checks the spec once as a job's and once as an update's.
        full_spec(&new.field("spec"), errors);
        update::rules(new, old, errors);
    }

    fn status_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        status::rules(new, old, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::job(object, old, "spec")
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let succeeded = object.get("status").and_then(|s| s.get("succeeded")).and_then(Value::as_i64).unwrap_or(0);
        vec![("status.successful", succeeded.to_string())]
    }
}

/// The parts of a job's spec that CronJob templates default too.
pub fn default_template(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| fill(pattern, &[("status", Str("True"))]));
        });
    }
    defaults::template(meta::child_mut(spec, "template"));
}

/// The job owns its pods by a label with its own uid (`generateSelector`).
fn generate_selector(object: &mut Value) {
    let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
    let spec = meta::child_mut(object, "spec");
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let metadata = meta::child_mut(meta::child_mut(spec, "template"), "metadata");
    let labels = meta::object_mut(meta::child_mut(metadata, "labels"));
    let values = [(LEGACY_JOB_NAME, &name), (JOB_NAME, &name), (LEGACY_CONTROLLER_UID, &uid), (CONTROLLER_UID, &uid)];
    for (key, value) in values {
        labels.entry(key).or_insert_with(|| value.as_str().into());
    }
    let matching = meta::object_mut(meta::child_mut(meta::child_mut(spec, "selector"), "matchLabels"));
    matching.entry(CONTROLLER_UID).or_insert_with(|| uid.as_str().into());
}

/// `validateGeneratedSelector`: nobody forged the labels.
fn generated_selector(object: &Place, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let selector = spec.field("selector");
    if spec.field("manualSelector").is_true() || !selector.is_set() {
        return;
    }
    let (name, uid) = (metadata.field("name"), metadata.field("uid"));
    if uid.is_empty() {
        errors.push(uid.required(""));
    }
    let template = spec.field("template");
    let template_metadata = template.field("metadata");
    let labels = template_metadata.field("labels");
    let expected = [(LEGACY_CONTROLLER_UID, &uid), (LEGACY_JOB_NAME, &name), (CONTROLLER_UID, &uid), (JOB_NAME, &name)];
    for (key, value) in expected {
        let label = labels.key(key);
        if !label.is_set() {
            errors.push(label.required(format!("must be '{}'", value.str())));
        } else if label.str() != value.str() {
            errors.push(label.invalid(format!("must be '{}'", value.str())));
        }
    }
    let expected: serde_json::Map<String, Value> =
        expected.iter().map(|(key, value)| ((*key).to_owned(), value.value.clone())).collect();
    let expected = Value::Object(expected);
    if workload::matches(&selector, &Place::root(&expected)) == Ok(false) {
        errors.push(selector.invalid("`selector` not auto-generated"));
    }
}

/// Indexed pods get host names from the job's.
fn index_names(object: &Place, errors: &mut Errors) {
    let (metadata, spec) = (object.field("metadata"), object.field("spec"));
    let name = metadata.field("name");
    let completions = spec.field("completions").int().unwrap_or(0);
    if spec.field("completionMode").str() == "Indexed" && completions > 0 {
        let longest = format!("{}-{}", name.str(), completions - 1);
        if !format::label(&longest).is_empty() {
            errors.push(name.invalid(format!("will not able to create pod with invalid DNS label: {longest}")));
        }
    }
}

/// `ValidateJobSpec`: the spec of a job, with its selector.
fn full_spec(spec: &Place, errors: &mut Errors) {
    spec_rules(spec, errors);
    let selector = spec.field("selector");
    if selector.is_set() {
        format::label_selector(&selector, errors);
    } else {
        errors.push(selector.required(""));
    }
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    if workload::matches(&selector, &labels) == Ok(false) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

/// `validateJobSpec`: also of a CronJob's template.
pub fn spec_rules(spec: &Place, errors: &mut Errors) {
    for count in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.field(count).nonnegative(errors);
    }
    let (per_index, max_failed) = (spec.field("backoffLimitPerIndex"), spec.field("maxFailedIndexes"));
    if max_failed.is_set() && !per_index.is_set() {
        errors.push(per_index.required("when maxFailedIndexes is specified"));
    }
    managed_by(&spec.field("managedBy"), errors);
    let mode = spec.field("completionMode");
    mode.one_of(&["NonIndexed", "Indexed"], errors);
    if mode.str() == "Indexed" {
        indexed(spec, errors);
    } else if ["", "NonIndexed"].contains(&mode.str()) {
        for place in [&per_index, &max_failed].into_iter().filter(|p| p.is_set()) {
            errors.push(place.invalid("requires indexed completion mode"));
        }
    }
    policies::failure(spec, errors);
    policies::success(spec, errors);
    policies::replacement(spec, errors);
    pod_template(spec, errors);
}

fn managed_by(place: &Place, errors: &mut Errors) {
    if !place.is_set() {
        return;
    }
    errors.extend(format::domain_prefixed_path(place.str()).into_iter().map(|p| place.invalid(p)));
    if place.str().len() > MANAGED_BY_MAX_BYTES {
        errors.push(place.too_long(MANAGED_BY_MAX_BYTES));
    }
}

fn indexed(spec: &Place, errors: &mut Errors) {
    let at_most = |place: &Place, max: i64, why: &str, errors: &mut Errors| {
        if place.int().is_some_and(|n| n > max) {
            errors.push(place.invalid(format!("must be less than or equal to {max}{why}")));
        }
    };
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    let (max_failed, per_index) = (spec.field("maxFailedIndexes"), spec.field("backoffLimitPerIndex"));
    if !completions.is_set() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    at_most(&parallelism, INDEXED_PARALLELISM_MAX, " when completion mode is Indexed", errors);
    if let Some(total) = completions.int() {
        if max_failed.int().is_some_and(|n| n > total) {
            errors.push(max_failed.invalid("must be less than or equal to completions"));
        }
        if total > COMPLETIONS_SOFT_LIMIT && per_index.is_set() {
            let why =
                format!(" when completions are above {COMPLETIONS_SOFT_LIMIT} and used with backoff limit per index");
            if !max_failed.is_set() {
                let detail = format!("must be specified when completions is above {COMPLETIONS_SOFT_LIMIT}");
                errors.push(max_failed.required(detail));
            }
            at_most(&parallelism, HIGH_COMPLETIONS_LIMIT, &why, errors);
            at_most(&max_failed, HIGH_COMPLETIONS_LIMIT, &why, errors);
        }
    }
    at_most(&max_failed, INDEXED_FAILED_MAX, "", errors);
}

fn pod_template(spec: &Place, errors: &mut Errors) {
    let place = spec.field("template");
    template::rules(&place, errors);
    let pod = place.field("spec");
    let policy = pod.field("restartPolicy");
    match policy.str() {
        "Always" | "" => errors.push(Error::required(policy.path(), "valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        "OnFailure" => {
            if spec.field("podFailurePolicy").is_set() {
                errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
            }
        }
        _ => errors.push(policy.not_supported(&["OnFailure", "Never"])),
    }
}
