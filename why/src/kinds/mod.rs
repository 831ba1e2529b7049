//! What can be wrong with each kind of object. One function per kind: the object in, its causes out. A function may
//! look at anything; what was not read yet it finds absent, and is called again when it was.

mod autoscaler;
mod batch;
mod certificate;
mod deletion;
mod extension;
mod missing;
mod namespace;
mod node;
mod pod;
mod policy;
mod refusal;
mod service;
mod set;
mod storage;
mod workload;

use jiff::Timestamp;
use serde_json::Value;

use crate::chain::{Cause, Explanation, Reference};
use crate::look::{Look, condition, condition_is, items, text};
use crate::target::Target;
use crate::world::{Found, World};

/// Why the target is as it is, as far as the world shows.
pub fn explain(world: &World, target: &Target, now: Timestamp) -> Explanation {
    let look = Look::new(world, now);
    let Some(kind) = world.kinds.called(&target.kind) else { return missing::kind(world, target) };
    let namespace = if kind.namespaced() { target.namespace.as_str() } else { "" };
    let object = Reference::new(&kind.kind, namespace, &target.name);
    let explanation = |state: &str, healthy: bool, causes: Vec<Cause>| Explanation {
        object: object.clone(),
        state: state.to_owned(),
        healthy,
        causes,
        unread: world.refusals(),
    };
    match world.get_of(kind, namespace, &target.name) {
        Found::Here(found) => {
            let causes = look.why(found);
            let healthy = causes.is_empty() && is_fine(found);
            explanation(&state(&look, found), healthy, causes)
        }
        Found::Absent => explanation("it does not exist", false, missing::object(&look, kind, &object)),
        Found::Unknown => explanation("it could not be read", false, Vec::new()),
    }
}

fn group(object: &Value) -> &str {
    api::meta::split_api_version(text(&object["apiVersion"])).0
}

/// The causes of an object's state, whatever its kind.
pub(crate) fn causes(look: &Look, object: &Value) -> Vec<Cause> {
    let kind = text(&object["kind"]);
    if api::meta::deletion_timestamp(object).is_some() {
        return match kind {
            "Pod" => pod::deleted(look, object),
            "Namespace" => namespace::deleted(look, object),
            _ => deletion::causes(look, object),
        };
    }
    match (group(object), kind) {
        ("", "Pod") => pod::causes(look, object),
        ("", "Node") => node::causes(look, object),
        ("", "Namespace") => Vec::new(),
        ("", "Service") => service::causes(look, object),
        ("", "PersistentVolumeClaim") => storage::claim(look, object),
        ("", "PersistentVolume") => storage::volume(look, object),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => set::causes(look, object),
        ("", "ResourceQuota") => policy::quota(object),
        ("apps", "Deployment") => workload::deployment(look, object),
        ("apps", "StatefulSet") => workload::stateful_set(look, object),
        ("apps", "DaemonSet") => workload::daemon_set(look, object),
        ("batch", "Job") => batch::job(look, object),
        ("batch", "CronJob") => batch::cron_job(look, object),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler::causes(look, object),
        ("policy", "PodDisruptionBudget") => policy::budget(look, object),
        ("networking.k8s.io", "Ingress") => service::ingress(look, object),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment(look, object),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificate::causes(look, object),
        ("apiregistration.k8s.io", "APIService") => extension::api_service(look, object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => extension::definition(object),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            extension::webhooks(look, object)
        }
        _ => conditions(look, object),
    }
}

/// What an object of a kind that is not known here says of itself: `Ready` and `Available` by convention mean well.
fn conditions(look: &Look, object: &Value) -> Vec<Cause> {
    let bad = items(&object["status"]["conditions"]).filter(|c| {
        let well =
            matches!(text(&c["type"]), "Ready" | "Available" | "Healthy" | "Synced" | "Established" | "Accepted");
        let ill = matches!(text(&c["type"]), "Failed" | "Stalled" | "Degraded");
        well && c["status"] != "True" || ill && c["status"] == "True"
    });
    let mut causes: Vec<Cause> = bad
        .map(|c| {
            let (kind, status) = (text(&c["type"]), text(&c["status"]));
            let said = said(c);
            Cause::new(kind, format!("its condition {kind} is {status}{said}")).about(object)
        })
        .collect();
    if causes.is_empty()
        && let Some(event) = look.events(object).into_iter().find(|e| e["type"] == "Warning")
    {
        let (reason, message) = (text(&event["reason"]), text(&event["message"]));
        causes.push(Cause::new(reason, format!("an event says {reason}: {message}")).about(object));
    }
    causes
}

/// What a condition adds in words: `: Reason: message`.
fn said(condition: &Value) -> String {
    let words: Vec<&str> =
        [text(&condition["reason"]), text(&condition["message"])].into_iter().filter(|w| !w.is_empty()).collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(": ")) }
}

/// Without causes: is it as it should be?
fn is_fine(object: &Value) -> bool {
    if api::meta::deletion_timestamp(object).is_some() {
        return false;
    }
    match text(&object["kind"]) {
        "Pod" => text(&object["status"]["phase"]) == "Succeeded" || condition_is(object, "Ready", "True").is_some(),
        "PersistentVolumeClaim" => object["status"]["phase"] == "Bound",
        _ => true,
    }
}

/// How the object is, in a few words.
fn state(look: &Look, object: &Value) -> String {
    let metadata = &object["metadata"];
    if let Some(since) = api::meta::deletion_timestamp(object) {
        // The time of a deletion is when the grace period ends.
        let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
        let asked = since.parse::<Timestamp>().map(|at| look.now.duration_since(at).as_secs() + grace);
        return match asked {
            Ok(seconds @ 60..) => format!("Terminating for {}", crate::look::span(seconds)),
            _ => "Terminating".to_owned(),
        };
    }
    let (spec, status) = (&object["spec"], &object["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let of =
        |have: &Value, wanted: i64, what: &str| format!("{} of {wanted} {what}", have.as_i64().unwrap_or_default());
    match text(&object["kind"]) {
        "Pod" => pod::state(look, object),
        "Deployment" => of(&status["availableReplicas"], wanted, "replicas are available"),
        "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
            of(&status["readyReplicas"], wanted, "replicas are ready")
        }
        "DaemonSet" => {
            let wanted = status["desiredNumberScheduled"].as_i64().unwrap_or_default();
            of(&status["numberAvailable"], wanted, "pods are available")
        }
        "Job" => batch::job_state(object),
        "Node" => node::state(object),
        "Service" => service::state(look, object),
        "ResourceQuota" => {
            let limits = status["hard"].as_object().map_or(0, serde_json::Map::len);
            format!("limits {}", crate::look::counted(limits, "resource"))
        }
        "PodDisruptionBudget" => {
            let allowed = status["disruptionsAllowed"].as_i64().unwrap_or_default();
            format!("allows {} now", crate::look::counted(usize::try_from(allowed).unwrap_or_default(), "eviction"))
        }
        "HorizontalPodAutoscaler" => {
            let (least, most) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(1));
            format!("{} replicas, between {least} and {most}", status["currentReplicas"].as_i64().unwrap_or_default())
        }
        "CronJob" => {
            let active = items(&status["active"]).count();
            format!("runs at {:?}, {} active", text(&spec["schedule"]), crate::look::counted(active, "Job"))
        }
        "CertificateSigningRequest" => certificate::state(object).to_owned(),
        _ => {
            let phase = [&status["phase"], &status["state"]].into_iter().map(text).find(|phase| !phase.is_empty());
            let ready = || condition(object, "Ready").or_else(|| condition(object, "Available"));
            let ready = || ready().map(|c| format!("{} is {}", text(&c["type"]), text(&c["status"])));
            phase.map(str::to_owned).or_else(ready).unwrap_or_else(|| "it exists".to_owned())
        }
    }
}
