//! `pods/eviction`: deletes a pod if its disruption budget allows it (upstream's `EvictionREST`).

mod budget;

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};
use store_client::Revision;

use api::meta;
use api::schema::Schemas;
use api::selector::LabelSelector;
use api::status::Status;

use super::write::{Admission, Expected, Phase, decode_body, timestamp};
use super::{DeleteOptions, Target, WriteOptions, delete_object};
use crate::admission::Operation;
use crate::body::Body;
use crate::cache::item::encode;
use crate::encode::{Form, plain};
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;
use crate::special::Special;
use crate::status::from_store;

pub static SPECIAL: &[Special] = &[Special { group: "", resource: "pods", subresource: "eviction", handler: create }];

/// Swaps tried before an eviction gives up on a pod or budget that others keep changing.
const ATTEMPTS_MAX: usize = 100;

fn create(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move { evict(server, call, body).await })
}

async fn evict(server: Arc<Server>, call: Call, body: Body) -> Result<Response<Body>, Status> {
    if call.info.verb != "create" || call.info.namespace.is_empty() || call.info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let form = Form::negotiate(&call)?;
    let options = WriteOptions::create(&call.query)?;
    let name = call.info.name.clone();
    let schema = Schemas::builtin().type_named("io.k8s.api.policy.v1.Eviction");
    let expected = Expected {
        schema: schema.expect("the built-in schemas hold every type the rows name"),
        group: "policy",
        version: "v1",
        kind: "Eviction",
        also_accepted: &["policy/v1beta1"],
    };
    let decoded = decode_body(&call.parts.headers, body, &expected, options.field_validation).await?;
    let mut target = Target::of(server, call, "", "v1", "pods")?;
    let mut eviction = decoded.object;
    target.ensure_namespace(&mut eviction)?;
    if meta::name(&eviction) != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let eviction = admit(&mut target, eviction, &name, &options).await?;
    let mut delete_options = match eviction.get("deleteOptions") {
        Some(stated) => DeleteOptions::from_value(stated)?,
        None => DeleteOptions::default(),
    };
    delete_options.dry_run |= options.dry_run;
    remove(&mut target, &name, delete_options).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    plain(StatusCode::CREATED, &status, &form)
}

async fn admit(target: &mut Target, eviction: Value, name: &str, options: &WriteOptions) -> Result<Value, Status> {
    let admission_options = options.to_value("CreateOptions");
    let admission = Admission {
        operation: Operation::Create,
        name,
        old: &Value::Null,
        options: &admission_options,
        dry_run: options.dry_run,
    };
    let kind =
        meta::GroupVersionKind { group: "policy".to_owned(), version: "v1".to_owned(), kind: "Eviction".to_owned() };
    let eviction = target.admit_as(Phase::Mutate, &admission, eviction, kind.clone()).await?;
    target.admit_as(Phase::Validate, &admission, eviction, kind).await
}

/// Asks the budget, where there is one and it counts, and deletes the pod.
async fn remove(target: &mut Target, name: &str, options: DeleteOptions) -> Result<(), Status> {
    for _ in 0..ATTEMPTS_MAX {
        target.fresh().await?;
        let key = target.key(&target.call.info.namespace, name);
        let Some(item) = target.cache.snapshot().get(&key).cloned() else { return Err(target.not_found(name)) };
        let pod = item.value();
        let (pinned, budget) = match ignores_budget(&pod) {
            Ignored::Always => (false, None),
            Ignored::AtThisVersion => (true, None),
            Ignored::No => ask(target, &pod, options.dry_run).await?,
        };
        let mut options = options.clone();
        let own_version = options.resource_version.is_some();
        let wrong_uid = options.uid.as_deref().is_some_and(|uid| uid != meta::uid(&pod));
        if pinned && !own_version {
            options.resource_version = Some(meta::resource_version(&pod).to_owned());
        }
        match mark_and_delete(target, name, options).await {
            Err(status) if status.code == 409 && pinned && !own_version && !wrong_uid => {
                // The pod may have become healthy meanwhile; the client asks again.
                if let Some(budget) = budget {
                    return Err(budget::busy(&budget));
                }
            }
            result => return result,
        }
    }
    Err(target.conflict(name, "the pod keeps changing; try again"))
}

enum Ignored {
    Always,
    /// As long as the pod does not change.
    AtThisVersion,
    No,
}

/// Pods that disrupt nothing (`canIgnorePDB`).
fn ignores_budget(pod: &Value) -> Ignored {
    match pod["status"]["phase"].as_str().unwrap_or_default() {
        _ if meta::deletion_timestamp(pod).is_some() => Ignored::Always,
        "Succeeded" | "Failed" => Ignored::Always,
        "Pending" => Ignored::AtThisVersion,
        _ => Ignored::No,
    }
}

/// Takes one disruption from the pod's budget. Returns whether the pod must not change before it is deleted, and the
/// budget's name in that case.
async fn ask(target: &Target, pod: &Value, dry_run: bool) -> Result<(bool, Option<String>), Status> {
    let namespace = &target.call.info.namespace;
    for _ in 0..ATTEMPTS_MAX {
        target.fresh().await?;
        let Some((row, cache)) = target.server.resource("policy", "poddisruptionbudgets") else {
            return Ok((false, None));
        };
        let snapshot = cache.snapshot();
        let prefix = format!("{namespace}/");
        let budgets: Vec<(Value, u64)> = snapshot
            .range(&prefix, "")
            .map(|(_, item)| (item.value(), item.revision()))
            .filter(|(budget, _)| selects(budget, pod))
            .collect();
        let (mut budget, revision) = match budgets.len() {
            0 => return Ok((false, None)),
            1 => budgets.into_iter().next().unwrap_or_default(),
            _ => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::new(500, "", why));
            }
        };
        if !ready(pod) && budget::lets_unhealthy_go(&budget) {
            return Ok((true, Some(meta::name(&budget).to_owned())));
        }
        budget::take_one(&mut budget, meta::name(pod), &timestamp(target.now))?;
        if dry_run {
            return Ok((false, None));
        }
        let key = format!("{}/{namespace}/{}", row.storage_prefix(), meta::name(&budget));
        match target.server.store.update(key.into(), encode(&budget).into(), Revision(revision)).await {
            Ok(_) => return Ok((false, None)),
            Err(store_client::Error::Conflict { .. } | store_client::Error::NotFound { .. }) => {}
            Err(error) => return Err(from_store(&error)),
        }
    }
    Err(Status::timeout("couldn't update PodDisruptionBudget due to conflicts"))
}

fn selects(budget: &Value, pod: &Value) -> bool {
    LabelSelector::from_object(budget["spec"].get("selector")).is_ok_and(|selector| selector.matches(meta::labels(pod)))
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Says in the pod's status why it goes, then deletes it.
async fn mark_and_delete(target: &mut Target, name: &str, mut options: DeleteOptions) -> Result<(), Status> {
    let namespace = target.call.info.namespace.clone();
    if !options.dry_run {
        let revision = mark(target, name, &options).await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(revision.to_string());
        }
    }
    let admission_options = options.to_value();
    delete_object(target, &namespace, name, &options, &admission_options).await?;
    Ok(())
}

async fn mark(target: &Target, name: &str, options: &DeleteOptions) -> Result<u64, Status> {
    let key = target.key(&target.call.info.namespace, name);
    for _ in 0..ATTEMPTS_MAX {
        target.fresh().await?;
        let Some(item) = target.cache.snapshot().get(&key).cloned() else { return Err(target.not_found(name)) };
        let old = item.value();
        super::deletion::check_preconditions(target, &old, name, options)?;
        let mut pod = old.clone();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True",
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        });
        super::binding::set_condition(&mut pod, condition, &timestamp(target.now));
        if pod == old {
            return Ok(item.revision());
        }
        match target.server.store.update(target.store_key(&key), encode(&pod).into(), Revision(item.revision())).await {
            Ok(revision) => return Ok(revision.get()),
            Err(store_client::Error::Conflict { .. }) => {}
            Err(store_client::Error::NotFound { .. }) => return Err(target.not_found(name)),
            Err(error) => return Err(from_store(&error)),
        }
    }
    Err(target.conflict(name, "the pod keeps changing; try again"))
}
