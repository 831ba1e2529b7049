//! Cells of the kinds that run pods.

use jiff::Timestamp;
use serde_json::Value;

use crate::meta;
use crate::table::text::{self, field, or};
use crate::table::{View, human, since};

pub fn ready_replicas(view: &View) -> Value {
    format!("{}/{}", view.int("/status/readyReplicas"), view.int("/spec/replicas")).into()
}

pub fn template_containers(view: &View) -> Vec<Value> {
    text::containers(view.at("/spec/template/spec/containers"))
}
pub fn bare_template_containers(view: &View) -> Vec<Value> {
    text::containers(view.at("/template/spec/containers"))
}
pub fn job_template_containers(view: &View) -> Vec<Value> {
    text::containers(view.at("/spec/jobTemplate/spec/template/spec/containers"))
}

pub fn template_labels(view: &View) -> Value {
    text::labels(view.at("/template/metadata/labels")).into()
}
pub fn node_selector(view: &View) -> Value {
    text::labels(view.at("/spec/template/spec/nodeSelector")).into()
}
/// A plain map of labels.
pub fn plain_selector(view: &View) -> Value {
    text::labels(view.at("/spec/selector")).into()
}
pub fn selector(view: &View) -> Value {
    text::selector(view.at("/spec/selector"), "<none>").into()
}
pub fn deployment_selector(view: &View) -> Value {
    text::selector(view.at("/spec/selector"), "").into()
}
pub fn job_template_selector(view: &View) -> Value {
    text::selector(view.at("/spec/jobTemplate/spec/selector"), "<none>").into()
}

/// The controller that owns an object, as `kind.group/name`.
pub fn controller(view: &View) -> Value {
    let owners = view.list("/metadata/ownerReferences");
    let Some(owner) = owners.iter().find(|o| o.get("controller") == Some(&Value::Bool(true))) else {
        return "<none>".into();
    };
    let (group, _) = meta::split_api_version(field(owner, "apiVersion"));
    let kind = field(owner, "kind");
    let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    format!("{}/{}", kind.to_lowercase(), field(owner, "name")).into()
}

pub fn suspended(view: &View) -> Value {
    match view.at("/spec/suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
    .into()
}

pub fn last_schedule(view: &View) -> Value {
    match view.text("/status/lastScheduleTime") {
        "" => "<none>".into(),
        time => since(time, view.now).into(),
    }
}

/// Status, completions and duration of a job.
pub fn job(view: &View) -> Vec<Value> {
    let holds = |kind: &str| {
        let found = view.list("/status/conditions").iter().find(|c| field(c, "type") == kind);
        found.is_some_and(|c| field(c, "status") == "True")
    };
    let status = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if meta::deletion_timestamp(view.object).is_some() {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| holds(kind)).unwrap_or("Running")
    };
    let succeeded = view.int("/status/succeeded");
    let completions = match (view.at("/spec/completions").as_i64(), view.int("/spec/parallelism")) {
        (Some(total), _) => format!("{succeeded}/{total}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let (start, end) = (view.text("/status/startTime"), view.text("/status/completionTime"));
    let duration = match (start.parse::<Timestamp>(), end.parse::<Timestamp>()) {
        (Err(_), _) => String::new(),
        (Ok(start), end) => human(end.unwrap_or(view.now).as_second() - start.as_second()),
    };
    vec![status.into(), completions.into(), or(&duration, "").into()]
}

/// Minimum available and maximum unavailable.
pub fn disruption_budget(view: &View) -> Vec<Value> {
    let shown = |pointer: &str| match view.at(pointer) {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => "N/A".to_owned(),
    };
    vec![shown("/spec/minAvailable").into(), shown("/spec/maxUnavailable").into()]
}
