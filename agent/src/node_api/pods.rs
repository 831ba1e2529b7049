//! `/pods` and `/runningpods`: the pods of this node as their owners see them.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use crate::pod::{PodView, Views};

/// Every pod, with the status this node gives it.
pub fn all(views: &Views) -> Answer {
    list(views, |_| true)
}

/// Pods with a running container.
pub fn running(views: &Views) -> Answer {
    list(views, |view| view.containers.values().any(|container| container.pid.is_some()))
}

fn list(views: &Views, wanted: impl Fn(&PodView) -> bool) -> Answer {
    let mut found = views.list();
    found.retain(|view| wanted(view));
    found.sort_by(|a, b| a.id.cmp(&b.id));
    let items = found.iter().map(|view| object(view)).collect::<Vec<_>>();
    answer::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn object(view: &PodView) -> Value {
    let pod = Pod { status: Some((*view.status).clone()), ..(*view.pod).clone() };
    let mut value = serde_json::to_value(pod).unwrap_or_default();
    // Items of a list carry no type of their own.
    if let Some(object) = value.as_object_mut() {
        object.remove("kind");
        object.remove("apiVersion");
    }
    value
}
