//! What must be so when faults have stopped: everything is as asked for, and nothing is left that nobody wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::conditions::{describe, rolled_out, text};
use crate::truth::{Always, Objects};

pub fn converged(cluster: &Cluster) -> Result<(), String> {
    cluster.truth.read(|objects| {
        workloads(objects)?;
        owners(objects)?;
        endpoints(objects)?;
        running(cluster, objects)
    })
}

/// How [`never_too_many`] is named when it is broken.
pub const TOO_MANY: &str = "never too many pods";

/// Pods that a set may have too many of while answers are lost.
const DOUBTED_PODS_MAX: i64 = 100;
/// Pods of one owner at any time, ended ones included.
const PODS_MAX: i64 = 300;

/// No set has more pods than it was told to have at any time. `doubt`: an answer was lost, and a controller may have
/// to make a pod again that it did not hear of; upstream's does too. It still makes none without end.
pub fn never_too_many(doubt: Arc<AtomicBool>) -> Always {
    let most: Mutex<BTreeMap<String, i64>> = Mutex::default();
    let holds = move |objects: &Objects| {
        without_end(objects)?;
        let spare = if doubt.load(Ordering::Relaxed) { DOUBTED_PODS_MAX } else { 0 };
        let mut most = most.lock().unwrap_or_else(PoisonError::into_inner);
        for set in objects.of("replicasets") {
            let uid = text(set, "metadata.uid");
            let wanted = set["spec"]["replicas"].as_i64().unwrap_or(1);
            let most = *most.entry(uid.clone()).and_modify(|most| *most = wanted.max(*most)).or_insert(wanted);
            // Not those that it found and adopted.
            let born = text(set, "metadata.creationTimestamp");
            let own = |pod: &&Value| {
                pod["metadata"]["ownerReferences"][0]["uid"] == uid.as_str()
                    && pod["metadata"].get("deletionTimestamp").is_none()
                    && !["Succeeded", "Failed"].contains(&text(pod, "phase").as_str())
                    && text(pod, "metadata.creationTimestamp") >= born
            };
            let count = objects.of("pods").iter().filter(|pod| own(pod)).count();
            if i64::try_from(count).is_ok_and(|count| count > most + spare) {
                return Err(format!("{} has {count} pods, and was told to have {most} at most", text(set, "name")));
            }
        }
        Ok(())
    };
    (TOO_MANY.to_owned(), Box::new(holds))
}

/// Whoever owns pods, of whatever kind: users of the randomized run ask for some tens of pods at most.
fn without_end(objects: &Objects) -> Result<(), String> {
    let mut owned: BTreeMap<&str, i64> = BTreeMap::new();
    for pod in objects.of("pods") {
        let Some(owner) = pod["metadata"]["ownerReferences"][0]["uid"].as_str() else { continue };
        let count = owned.entry(owner).or_default();
        *count += 1;
        if *count > PODS_MAX {
            return Err(format!("the owner of {} has more than {PODS_MAX} pods", describe(pod)));
        }
    }
    Ok(())
}

/// After everything was deleted.
pub fn empty(cluster: &Cluster) -> Result<(), String> {
    const KINDS: [&str; 8] = [
        "pods",
        "replicasets",
        "controllerrevisions",
        "jobs",
        "deployments",
        "statefulsets",
        "daemonsets",
        "replicationcontrollers",
    ];
    cluster.truth.read(|objects| {
        let left: Vec<&Value> = KINDS.iter().flat_map(|kind| objects.of(kind)).collect();
        if let Some(first) = left.first() {
            return Err(format!("{} objects are left, such as {}", left.len(), describe(first)));
        }
        let services = |kind: &str| objects.of(kind).into_iter().filter(|o| !text(o, "name").starts_with("kubernetes"));
        if let Some(slice) = services("endpointslices").chain(services("endpoints")).next() {
            return Err(format!("endpoints of a service that is gone: {}", describe(slice)));
        }
        running(cluster, objects)
    })
}

fn workloads(objects: &Objects) -> Result<(), String> {
    for kind in ["deployments", "statefulsets", "daemonsets", "replicasets"] {
        for object in objects.of(kind) {
            if object["metadata"].get("deletionTimestamp").is_some() {
                return Err(format!("still being deleted: {}", describe(object)));
            }
            if !rolled_out(object) {
                return Err(format!("not as asked for: {}", describe(object)));
            }
        }
    }
    for job in objects.of("jobs") {
        let done = ["Complete", "Failed"].iter().any(|c| text(job, &format!("conditions.{c}.status")) == "True");
        if !done || text(job, "active") != "none" && text(job, "active") != "0" {
            return Err(format!("not done: {}", describe(job)));
        }
    }
    Ok(())
}

/// Whatever has an owner has one that exists.
fn owners(objects: &Objects) -> Result<(), String> {
    let uids: BTreeSet<&str> = objects.by_key.values().filter_map(|o| o["metadata"]["uid"].as_str()).collect();
    for object in objects.by_key.values() {
        let owners = object["metadata"]["ownerReferences"].as_array();
        let gone = |owner: &&Value| !owner["uid"].as_str().is_some_and(|uid| uids.contains(uid));
        if owners.into_iter().flatten().any(|owner| gone(&owner)) {
            return Err(format!("its owner is gone: {}", describe(object)));
        }
    }
    Ok(())
}

/// Slices have the ready pods of their services, and no others.
fn endpoints(objects: &Objects) -> Result<(), String> {
    let mut listed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for slice in objects.of("endpointslices") {
        let Some(service) = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str() else { continue };
        let ready = slice["endpoints"].as_array().into_iter().flatten();
        let ready = ready.filter(|e| e["conditions"]["ready"] == true);
        let addresses = ready.filter_map(|e| e["addresses"][0].as_str()).map(str::to_owned);
        listed.entry(service).or_default().extend(addresses);
    }
    for service in objects.of("services") {
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        let Some(selector) = service["spec"]["selector"].as_object() else { continue };
        let selected = |pod: &&Value| selector.iter().all(|(k, v)| pod["metadata"]["labels"][k] == *v);
        let ready = objects.of("pods").into_iter().filter(selected).filter(|pod| text(pod, "ready") == "True");
        let addresses: BTreeSet<String> = ready.map(|pod| text(pod, "podIP")).collect();
        let found = listed.get(name).cloned().unwrap_or_default();
        if found != addresses {
            return Err(format!("service {name} has {found:?}, and its ready pods are {addresses:?}"));
        }
    }
    Ok(())
}

/// What runs on the nodes is what the API server says that runs.
fn running(cluster: &Cluster, objects: &Objects) -> Result<(), String> {
    let mut wanted = BTreeSet::new();
    for pod in objects.of("pods") {
        let deleting = pod["metadata"].get("deletionTimestamp").is_some();
        let phase = text(pod, "phase");
        let terminal = phase == "Succeeded" || phase == "Failed";
        if deleting || !terminal && (phase != "Running" || text(pod, "ready") != "True") {
            return Err(format!("neither done nor ready: {}", describe(pod)));
        }
        if !terminal {
            wanted.insert(text(pod, "metadata.uid"));
        }
    }
    let nodes = cluster.nodes.values().flat_map(|node| node.runtime.all());
    let runs: BTreeSet<String> = nodes.filter(|(_, c)| c.exited.is_none()).map(|(uid, _)| uid).collect();
    let (extra, missing): (Vec<_>, Vec<_>) = (runs.difference(&wanted).collect(), wanted.difference(&runs).collect());
    if extra.is_empty() && missing.is_empty() {
        return Ok(());
    }
    Err(format!("running that should not be: {extra:?}; not running that should be: {missing:?}"))
}
