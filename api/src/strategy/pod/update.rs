//! What may change on a pod: through the pod itself, `/ephemeralcontainers`, `/resize` and `/status`
//! (`ValidatePodUpdate`, `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`, `ValidatePodStatusUpdate`).

use serde_json::Value;

use super::{gated, qos};
use crate::field::Error;
use crate::strategy::place::{Errors, Place};
use crate::strategy::{address, format, workload};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const CONTAINER_LISTS: [&str; 2] = ["containers", "initContainers"];

pub fn rules(new: &Place, old: &Place, errors: &mut Errors) {
    let (new, old) = (new.field("spec"), old.field("spec"));
    for list in CONTAINER_LISTS {
        let (new, old) = (new.field(list), old.field(list));
        if new.list().len() != old.list().len() {
            errors.push(new.forbidden("pod updates may not add or remove containers"));
            return;
        }
        for container in new.items() {
            container.field("image").require(errors);
            super::containers::image_untrimmed(&container, errors);
        }
    }
    deadline(&new.field("activeDeadlineSeconds"), &old.field("activeDeadlineSeconds"), errors);
    only_added_tolerations(&new.field("tolerations"), &old.field("tolerations"), errors);
    only_removed_gates(&new.field("schedulingGates"), &old.field("schedulingGates"), errors);
    let mut munged = new.value.clone();
    put_back(&mut munged, old.value);
    if !old.field("schedulingGates").is_empty() {
        gated::changes(&mut munged, &new, &old, errors);
    }
    if !workload::only_changed(&Place::root(&munged), &Place::root(old.value), &[]) {
        errors.push(new.forbidden(format!("pod updates may not change fields other than {UPDATABLE}")));
    }
}

/// Undoes in `spec` the changes that are allowed.
fn put_back(spec: &mut Value, old: &Value) {
    for list in CONTAINER_LISTS {
        let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for (i, container) in containers.iter_mut().enumerate() {
            container["image"] = old[list][i]["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        spec[field] = old[field].clone();
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|s| s < 0) && spec[grace] == 1 {
        spec[grace] = old[grace].clone();
    }
}

fn deadline(new: &Place, old: &Place, errors: &mut Errors) {
    match (new.int(), old.int()) {
        (Some(seconds), before) => {
            new.in_range(0, i64::from(i32::MAX), errors);
            if before.is_some_and(|before| before < seconds) {
                errors.push(new.invalid("must be less than or equal to previous value"));
            }
        }
        (None, Some(_)) => errors.push(new.invalid("must not update from a positive integer to nil value")),
        (None, None) => {}
    }
}

fn only_added_tolerations(new: &Place, old: &Place, errors: &mut Errors) {
    let without_seconds = |toleration: &Value| {
        let mut kept = toleration.clone();
        if let Some(map) = kept.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        kept
    };
    for before in old.list() {
        let before = without_seconds(before);
        if !new.list().iter().any(|now| without_seconds(now) == before) {
            errors.push(new.forbidden("existing toleration can not be modified except its tolerationSeconds"));
        }
    }
    super::scheduling::tolerations(new, errors);
}

fn only_removed_gates(new: &Place, old: &Place, errors: &mut Errors) {
    for gate in new.items() {
        let name = gate.field("name");
        if !old.list().iter().any(|g| g["name"] == *name.value) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", name.str());
            errors.push(name.forbidden(detail));
        }
    }
}

pub fn ephemeral(new: &Place, old: &Place, errors: &mut Errors) {
    let (new_spec, old_spec) = (new.field("spec"), old.field("spec"));
    let (now, before) = (new_spec.field("ephemeralContainers"), old_spec.field("ephemeralContainers"));
    for container in before.items() {
        let name = container.field("name").str();
        match now.items().find(|c| c.field("name").str() == name) {
            None => errors.push(now.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n"))),
            Some(kept) if !workload::only_changed(&kept, &container, &[]) => {
                errors.push(now.forbidden(format!("existing ephemeral containers {name:?} may not be changed\n")));
            }
            Some(_) => {}
        }
    }
}

/// Only cpu and memory of containers (and of the pod) may change, and not the QoS class.
pub fn resize(new: &Place, old: &Place, errors: &mut Errors) {
    const WHY: &str = "only cpu and memory resources are mutable";
    let (spec, before) = (new.field("spec"), old.field("spec"));
    let status = old.field("status");
    if status.field("qosClass").str() != qos::class(spec.value) {
        errors.push(spec.invalid("Pod QOS Class may not change as a result of resizing"));
    }
    for list in CONTAINER_LISTS {
        let (now, was) = (spec.field(list), before.field(list));
        if now.list().len() != was.list().len() {
            errors.push(now.forbidden("containers may not be added or removed on resize"));
            return;
        }
        for (container, old_container) in now.items().zip(was.items()) {
            if container.field("name").str() != old_container.field("name").str() {
                errors.push(now.forbidden("containers may not be renamed or reordered on resize"));
                return;
            }
            let (resources, old_resources) = (container.field("resources"), old_container.field("resources"));
            removed(&resources, &old_resources, errors);
            let same_rest = workload::only_changed(&container, &old_container, &["resources", "resizePolicy"]);
            if !same_rest || !same_other_resources(&resources, &old_resources) {
                errors.push(spec.forbidden(WHY));
            }
        }
    }
    if !same_other_resources(&spec.field("resources"), &before.field("resources")) {
        errors.push(spec.forbidden("only cpu and memory resources are mutable at pod-level"));
    }
}

fn removed(new: &Place, old: &Place, errors: &mut Errors) {
    for list in ["requests", "limits"] {
        let (now, before) = (new.field(list), old.field(list));
        if before.entries().any(|(name, _)| now.value.get(name).is_none()) {
            errors.push(now.forbidden(format!("resource {list} cannot be removed")));
        }
    }
}

fn same_other_resources(new: &Place, old: &Place) -> bool {
    ["requests", "limits"]
        .iter()
        .all(|list| workload::only_changed(&new.field(list), &old.field(list), &["cpu", "memory"]))
        && new.field("claims").same(&old.field("claims"))
}

pub fn status(new: &Place, old: &Place, errors: &mut Errors) {
    let (status, before) = (new.field("status"), old.field("status"));
    for condition in status.field("conditions").items() {
        let generation = condition.field("observedGeneration");
        if generation.int().is_some_and(|n| n < 0) {
            errors.push(generation.invalid("must be a non-negative integer"));
        }
        let kind = condition.field("type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind.str()) {
            format::check(&condition.named("Type", kind.value), format::qualified_name, errors);
        }
    }
    let nominated = status.field("nominatedNodeName");
    if !nominated.is_empty() && !nominated.same(&before.field("nominatedNodeName")) {
        format::check(&nominated, format::subdomain, errors);
        if !old.field("spec").field("nodeName").is_empty() {
            errors.push(nominated.forbidden("may not be set on pods that are already bound to a node"));
        }
    }
    if status.field("observedGeneration").int().is_some_and(|n| n < 0) {
        errors.push(status.field("observedGeneration").invalid("must be a non-negative integer"));
    }
    status.field("qosClass").immutable(&before.field("qosClass"), errors);
    addresses(&status.field("podIPs"), errors);
    addresses(&status.field("hostIPs"), errors);
    if let Some(first) = status.field("hostIPs").items().next() {
        let ip = first.field("ip");
        if ip.str() != status.field("hostIP").str() {
            errors.push(ip.invalid("must be equal to `hostIP`"));
        }
    }
    never_restarted(&status, &before, &old.field("spec"), errors);
}

fn addresses(list: &Place, errors: &mut Errors) {
    for item in list.items() {
        let ip = item.field("ip").str();
        errors.extend(address::ip(ip).into_iter().map(|problem| Error::invalid(item.path(), ip, problem)));
    }
    let texts: Vec<&str> = list.items().map(|item| item.field("ip").str()).collect();
    if texts.len() > 2 || (texts.len() == 2 && address::is_ipv6(texts[0]) == address::is_ipv6(texts[1])) {
        errors.push(list.invalid("may specify no more than one IP for each IP family"));
    }
}

/// A container that ended for good does not run again (`ValidateContainerStateTransition`).
fn never_restarted(status: &Place, before: &Place, spec: &Place, errors: &mut Errors) {
    let policy = spec.field("restartPolicy").str();
    if policy == "Always" {
        return;
    }
    let (now, was) = (status.field("containerStatuses"), before.field("containerStatuses"));
    for old in was.items() {
        let name = old.field("name").str();
        let terminated = old.field("state").field("terminated").value;
        let own_rules = spec
            .field("containers")
            .items()
            .any(|c| c.field("name").str() == name && c.field("restartPolicy").is_set());
        let failed = terminated.get("exitCode").and_then(Value::as_i64) != Some(0);
        if terminated.is_null() || own_rules || (failed && policy == "OnFailure") {
            continue;
        }
        for container in now.items().filter(|c| c.field("name").str() == name) {
            if !container.field("state").field("terminated").is_set() {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(container.field("state").forbidden(detail));
            }
        }
    }
}
