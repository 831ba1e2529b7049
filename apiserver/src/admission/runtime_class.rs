//! RuntimeClass: a pod takes overhead, node selector and tolerations from its runtime class.

use serde_json::{Value, json};

use api::meta;
use api::quantity::Quantity;
use api::status::Status;

use super::{AdmissionRequest, find};
use crate::server::Server;

pub fn mutate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("", "pods") {
        return Ok(());
    }
    let Some(class) = class(server, request)? else { return Ok(()) };
    let overhead = class["overhead"]["podFixed"].clone();
    if overhead.is_object() {
        let given = &request.object["spec"]["overhead"];
        if given.as_object().is_some_and(|map| !map.is_empty()) && !same_quantities(given, &overhead) {
            return Err(request.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
        }
        meta::child_mut(&mut request.object, "spec")["overhead"] = overhead;
    }
    scheduling(request, &class["scheduling"])
}

fn scheduling(request: &mut AdmissionRequest<'_>, scheduling: &Value) -> Result<(), Status> {
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let (ours, wanted) = (request.object["spec"]["nodeSelector"].get(key).cloned(), value);
        if let Some(ours) = ours.filter(|ours| ours != wanted) {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            return Err(request.forbidden(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(wanted),
                text(&ours)
            )));
        }
        let spec = meta::child_mut(&mut request.object, "spec");
        meta::child_mut(spec, "nodeSelector")[key] = value.clone();
    }
    let spec = meta::child_mut(&mut request.object, "spec");
    for toleration in scheduling["tolerations"].as_array().into_iter().flatten() {
        match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            Some(list) if list.contains(toleration) => {}
            Some(list) => list.push(toleration.clone()),
            None => spec["tolerations"] = json!([toleration]),
        }
    }
    Ok(())
}

pub fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("", "pods") {
        return Ok(());
    }
    let defined = class(server, request)?.map(|class| class["overhead"]["podFixed"].clone()).unwrap_or_default();
    let given = &request.object["spec"]["overhead"];
    if defined.is_object() {
        if !same_quantities(given, &defined) {
            return Err(request.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
        }
    } else if given.as_object().is_some_and(|map| !map.is_empty()) {
        return Err(
            request.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        );
    }
    Ok(())
}

fn class(server: &Server, request: &AdmissionRequest<'_>) -> Result<Option<Value>, Status> {
    let Some(name) = request.object["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
    let found = find(server, "node.k8s.io", "runtimeclasses", "", name);
    let refuse = || request.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"));
    found.map(Some).ok_or_else(refuse)
}

/// Two resource lists of the same amounts, however written.
fn same_quantities(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    let amount = |v: &Value| v.as_str().and_then(|s| Quantity::parse(s).ok());
    a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| amount(other) == amount(value)))
}
