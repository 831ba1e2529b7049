//! `pods/binding` and `bindings`: assigns a pod to a node, once (upstream's `BindingREST`).

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use store_client::Revision;

use api::field;
use api::meta;
use api::schema::Schemas;
use api::status::Status;

use super::write::{Admission, Expected, Phase, decode_body, timestamp};
use super::{Target, WriteOptions};
use crate::admission::Operation;
use crate::body::Body;
use crate::cache::item::encode;
use crate::encode::{Form, plain};
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;
use crate::special::Special;
use crate::status::from_store;

pub static SPECIAL: &[Special] = &[
    Special { group: "", resource: "pods", subresource: "binding", handler: create },
    Special { group: "", resource: "bindings", subresource: "", handler: create },
];

/// Swaps tried before a binding gives up on a pod that others keep changing.
const ATTEMPTS_MAX: usize = 100;

fn create(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move { bind(server, call, body).await })
}

async fn bind(server: Arc<Server>, call: Call, body: Body) -> Result<Response<Body>, Status> {
    let named = !call.info.subresource.is_empty();
    if call.info.verb != "create" || call.info.namespace.is_empty() || named == call.info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let form = Form::negotiate(&call)?;
    let options = WriteOptions::create(&call.query)?;
    let schema = Schemas::builtin().type_named("io.k8s.api.core.v1.Binding");
    let expected = Expected {
        schema: schema.expect("the built-in schemas hold every type the rows name"),
        group: "",
        version: "v1",
        kind: "Binding",
        also_accepted: &[],
    };
    let decoded = decode_body(&call.parts.headers, body, &expected, options.field_validation).await?;
    let name = if named { call.info.name.clone() } else { meta::name(&decoded.object).to_owned() };
    let mut target = Target::of(server, call, "", "v1", "pods")?;
    let mut binding = decoded.object;
    target.ensure_namespace(&mut binding)?;
    let binding = admit(&mut target, binding, &name, &options).await?;
    assign(&target, &binding, &name, options.dry_run).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    plain(StatusCode::CREATED, &status, &form)
}

/// Admission and `ValidatePodBinding`.
async fn admit(target: &mut Target, binding: Value, name: &str, options: &WriteOptions) -> Result<Value, Status> {
    let admission_options = options.to_value("CreateOptions");
    let admission = Admission {
        operation: Operation::Create,
        name,
        old: &Value::Null,
        options: &admission_options,
        dry_run: options.dry_run,
    };
    let kind = meta::GroupVersionKind { group: String::new(), version: "v1".to_owned(), kind: "Binding".to_owned() };
    let binding = target.admit_as(Phase::Mutate, &admission, binding, kind.clone()).await?;
    if meta::name(&binding) != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let mut errors = Vec::new();
    let kind_of_target = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind_of_target, "" | "Node") {
        errors.push(field::Error::not_supported("target.kind", kind_of_target, &["Node", "<empty>"]));
    }
    if binding["target"]["name"].as_str().unwrap_or_default().is_empty() {
        errors.push(field::Error::required("target.name", ""));
    }
    if !errors.is_empty() {
        let listed: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(Status::new(500, "", listed.join(", ")));
    }
    target.admit_as(Phase::Validate, &admission, binding, kind).await
}

async fn assign(target: &Target, binding: &Value, name: &str, dry_run: bool) -> Result<(), Status> {
    let conflict = |why: String| Status::conflict("", "pods/binding", name, why);
    let key = target.key(&target.call.info.namespace, name);
    for _ in 0..ATTEMPTS_MAX {
        target.fresh().await?;
        let Some(item) = target.cache.snapshot().get(&key).cloned() else { return Err(target.not_found(name)) };
        let mut pod = item.value();
        for (stated, stored) in
            [(meta::uid(binding), meta::uid(&pod)), (meta::resource_version(binding), meta::resource_version(&pod))]
        {
            if !stated.is_empty() && stated != stored {
                return Err(target.conflict(
                    name,
                    format!("Precondition failed: {stated} in precondition, {stored} in object meta"),
                ));
            }
        }
        if meta::deletion_timestamp(&pod).is_some() {
            return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
            return Err(conflict(format!("pod {name} is already assigned to node {node:?}")));
        }
        if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        assigned(&mut pod, binding, &timestamp(target.now));
        if dry_run {
            return Ok(());
        }
        let revision = Revision(item.revision());
        match target.server.store.update(target.store_key(&key), encode(&pod).into(), revision).await {
            Ok(revision) => {
                target.server.cache.catch_up(revision).await;
                return Ok(());
            }
            Err(store_client::Error::Conflict { .. }) => {}
            Err(store_client::Error::NotFound { .. }) => return Err(target.not_found(name)),
            Err(error) => return Err(from_store(&error)),
        }
    }
    Err(conflict("the pod keeps changing; try again".to_owned()))
}

/// The pod on its node, with the binding's labels and annotations.
fn assigned(pod: &mut Value, binding: &Value, now: &str) {
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    for field in ["annotations", "labels"] {
        let Some(added) = binding["metadata"][field].as_object().filter(|map| !map.is_empty()) else { continue };
        let map = meta::object_mut(meta::child_mut(meta::child_mut(pod, "metadata"), field));
        map.extend(added.clone());
    }
    let scheduled = json!({"type": "PodScheduled", "status": "True"});
    set_condition(pod, scheduled, now);
}

/// Puts a condition in, keeping the transition time when the status stays (`UpdatePodCondition`).
pub(super) fn set_condition(pod: &mut Value, condition: Value, now: &str) {
    let Value::Object(mut condition) = condition else { return };
    let conditions = meta::child_mut(meta::child_mut(pod, "status"), "conditions");
    if !conditions.is_array() {
        *conditions = Value::Array(Vec::new());
    }
    let Some(list) = conditions.as_array_mut() else { return };
    condition.insert("lastProbeTime".to_owned(), Value::Null);
    let same_type = |existing: &&mut Value| existing["type"] == condition["type"];
    match list.iter_mut().find(same_type) {
        Some(existing) => {
            let kept = existing["status"] == condition["status"] && existing["lastTransitionTime"].is_string();
            let time = if kept { existing["lastTransitionTime"].clone() } else { now.into() };
            condition.insert("lastTransitionTime".to_owned(), time);
            *existing = Value::Object(condition);
        }
        None => {
            condition.insert("lastTransitionTime".to_owned(), now.into());
            list.push(Value::Object(Map::from_iter(condition)));
        }
    }
}
