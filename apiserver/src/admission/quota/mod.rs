//! ResourceQuota: what a write adds to a namespace's use is checked against every quota of the namespace and, if all
//! have room, added to their status before the object is written.
//!
//! Invariant: used never exceeds hard by writes of this server or of others: the status is replaced only if nobody
//! changed it since it was read. A write that fails afterwards leaves a little too much counted; the quota controller
//! corrects that, never the other way round.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use api::meta;
use api::quantity::{Format, Quantity};
use api::quota::{self, Amounts, amounts};
use api::status::Status;

use super::{AdmissionRequest, Operation, all};
use crate::bootstrap;
use crate::server::Server;

/// Reads tried again when others change the same quota; then the writer is told to.
const ATTEMPTS_MAX: usize = 10;

/// One lock per namespace with writes under way, so that they queue instead of competing.
#[derive(Debug, Default)]
pub struct Quota {
    namespaces: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Quota {
    pub async fn validate(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let resizes = request.is("", "pods", "resize");
        if request.namespace.is_empty() || !writes || !(request.info.subresource.is_empty() || resizes) {
            return Ok(());
        }
        if all(server, "", "resourcequotas", request.namespace).is_empty() {
            return Ok(());
        }
        let added = added(request);
        if added.is_empty() {
            return Ok(());
        }
        let lock = self.lock_of(request.namespace);
        let _queued = lock.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            server.cache.fresh().await?;
            let changes = plan(request, &added, &all(server, "", "resourcequotas", request.namespace))?;
            if request.dry_run || charge(server, changes).await? {
                return Ok(());
            }
        }
        let why = "status unknown for quota: it changed too often; please try again";
        Err(request.forbidden(why))
    }

    fn lock_of(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else holds a lock that only this map knows.
        namespaces.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(namespaces.entry(namespace.to_owned()).or_default())
    }
}

/// What the write adds, without zeros. An update counts only for kinds whose use can change.
fn added(request: &AdmissionRequest<'_>) -> Amounts {
    let (group, resource) = (request.info.group.as_str(), request.info.resource.as_str());
    let now = jiff::Timestamp::now();
    let new = quota::of(group, resource, &request.object, now);
    if request.operation == Operation::Create {
        return new.into_iter().filter(|(_, amount)| !amount.is_zero()).collect();
    }
    if !group.is_empty() || !matches!(resource, "pods" | "services" | "persistentvolumeclaims") {
        return Amounts::new();
    }
    let old = quota::of(group, resource, request.old_object, now);
    let names: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let zero = Quantity::new(0, Format::DecimalSi);
    let difference = |name: &String| {
        let of = |amounts: &Amounts| amounts.get(name).copied().unwrap_or(zero);
        of(&new).minus(of(&old))
    };
    let changes: Amounts = names.into_iter().map(|name| (name.clone(), difference(name))).collect();
    // Only growth is checked here; what is given back the controller counts.
    changes.into_iter().filter(|(_, amount)| amount.sign() > 0).collect()
}

/// Scopes speak of kinds of the core group alone.
fn in_scope(quota: &Value, request: &AdmissionRequest<'_>) -> bool {
    let resource = if request.info.group.is_empty() { request.info.resource.as_str() } else { "" };
    quota::fits(&quota["spec"], resource, &request.object)
}

/// Writes the new statuses; false when one of them was changed by somebody else.
async fn charge(server: &Server, changes: Vec<Value>) -> Result<bool, Status> {
    for quota in changes {
        let path =
            format!("/api/v1/namespaces/{}/resourcequotas/{}/status", meta::namespace(&quota), meta::name(&quota));
        match bootstrap::put(server, &path, &quota).await {
            Ok(()) => {}
            Err(bootstrap::Error::Refused { code: 409 | 404, .. }) => return Ok(false),
            Err(error) => return Err(Status::internal(error)),
        }
    }
    Ok(true)
}

/// A resource that would be used beyond its limit.
struct Over<'a> {
    resource: &'a str,
    requested: Quantity,
    used: Quantity,
    limit: Quantity,
}

/// The quotas with their new status, or the refusal of the write. Pure.
fn plan(request: &AdmissionRequest<'_>, added: &Amounts, quotas: &[Value]) -> Result<Vec<Value>, Status> {
    let mut changes = Vec::new();
    for quota in quotas {
        let name = meta::name(quota);
        let hard = amounts(&quota["status"]["hard"]);
        if hard.is_empty() || !in_scope(quota, request) {
            continue;
        }
        let creates_pod = request.creates("", "pods");
        if let Some(missing) = quota::unspecified(&request.object, &hard).filter(|_| creates_pod) {
            return Err(request.forbidden(format!("failed quota: {name}: must specify {missing}")));
        }
        let used = amounts(&quota["status"]["used"]);
        let mut next = quota.clone();
        let (mut over, mut counted) = (Vec::new(), false);
        for (resource, amount) in added {
            let Some(limit) = hard.get(resource) else { continue };
            let before = used.get(resource).copied().unwrap_or(Quantity::new(0, amount.format()));
            let after = before.plus(*amount);
            if after > *limit && amount.sign() > 0 {
                over.push(Over { resource, requested: *amount, used: before, limit: *limit });
            }
            next["status"]["used"][resource.as_str()] = after.to_string().into();
            counted = true;
        }
        if !over.is_empty() {
            let list = |which: fn(&Over) -> Quantity| {
                over.iter().map(|o| format!("{}={}", o.resource, which(o))).collect::<Vec<_>>().join(",")
            };
            return Err(request.forbidden(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                list(|o| o.requested),
                list(|o| o.used),
                list(|o| o.limit)
            )));
        }
        if counted {
            changes.push(next);
        }
    }
    Ok(changes)
}
