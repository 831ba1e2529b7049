//! The pods of a job. Those of an indexed job carry their index as annotation, label, host name and in their
//! environment.

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::plan::{FINALIZER, NewPod};
use crate::controllers::pods;
use crate::objects::Owner;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// Longest prefix that a server appends a suffix to without cutting it (`names.MaxGeneratedNameLength`).
const PREFIX_LENGTH_MAX: usize = 58;

/// One pod for each of `new`.
pub fn pods(job: &Job, new: &[NewPod]) -> Vec<Value> {
    let template = job.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut base = pods::from_template(&template, &Owner::of(job));
    let finalizers = &mut base["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|f| f == FINALIZER) => {}
        Some(list) => list.push(FINALIZER.into()),
        None => *finalizers = json!([FINALIZER]),
    }
    let name = job.metadata.name.as_deref().unwrap_or_default();
    new.iter().map(|new| pod(&base, name, new)).collect()
}

fn pod(base: &Value, job: &str, new: &NewPod) -> Value {
    let mut pod = base.clone();
    let Some(index) = new.index else { return pod };
    let metadata = &mut pod["metadata"];
    metadata["generateName"] = prefix(job, index).into();
    metadata["annotations"][INDEX] = index.to_string().into();
    metadata["labels"][INDEX] = index.to_string().into();
    if let Some((counted, ignored)) = new.failures {
        metadata["annotations"][INDEX_FAILURES] = counted.to_string().into();
        if ignored > 0 {
            metadata["annotations"][INDEX_IGNORED_FAILURES] = ignored.to_string().into();
        }
    }
    pod["spec"]["hostname"] = format!("{job}-{index}").into();
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(add_environment);
    }
    pod
}

fn prefix(job: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let length = job.len().min(PREFIX_LENGTH_MAX - end.len());
    format!("{}{end}", &job[..length])
}

/// A variable of that name in the template is left as it is.
fn add_environment(container: &mut Value) {
    let variable =
        json!({"name": INDEX_ENV, "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}}});
    match container["env"].as_array_mut() {
        Some(list) if list.iter().any(|v| v["name"] == INDEX_ENV) => {}
        Some(list) => list.push(variable),
        None => container["env"] = json!([variable]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_leave_room_for_a_suffix() {
        assert_eq!(prefix("job", 12), "job-12-");
        let long = "j".repeat(63);
        assert_eq!(prefix(&long, 7), format!("{}-7-", "j".repeat(55)));
    }
}
