//! Why a Deployment, StatefulSet or DaemonSet does not have what it wants.

use serde_json::Value;

use super::set;
use crate::chain::Cause;
use crate::look::{Look, be, condition_is, count, counted, items, kubectl, text};

const REVISION: &str = "deployment.kubernetes.io/revision";

pub fn deployment(look: &Look, deployment: &Value) -> Vec<Cause> {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let mut causes: Vec<Cause> = set::unseen(deployment).into_iter().collect();
    let updated = count(&status["updatedReplicas"]);
    let complete =
        updated >= wanted && count(&status["availableReplicas"]) >= wanted && count(&status["replicas"]) <= updated;
    if complete {
        return causes;
    }
    if spec["paused"] == true && updated < wanted {
        let message = format!("it is paused, with {updated} of {wanted} pods made anew");
        causes.push(Cause::new("Paused", message).about(deployment).fix("", set::rollout(deployment, "resume")));
        return causes;
    }
    let sets = replica_sets(look, deployment);
    let Some(newest) = sets.first() else {
        causes.extend(set::not_created(look, deployment));
        return causes;
    };
    let below = look.why(newest);
    let old: i64 = sets.iter().skip(1).map(|set| count(&set["status"]["replicas"])).sum();
    let have = count(&newest["status"]["readyReplicas"]);
    let made = newest["spec"]["replicas"].as_i64().unwrap_or_default();
    let late = condition_is(deployment, "Progressing", "False").filter(|c| c["reason"] == "ProgressDeadlineExceeded");
    if below.is_empty() && made < wanted && old > 0 {
        let message = format!(
            "its rollout goes on: {updated} of {wanted} pods are new, and {} still run",
            counted(usize::try_from(old).unwrap_or_default(), "old pod")
        );
        causes.push(Cause::new("RollingOut", message).about(deployment).fix("", set::rollout(deployment, "status")));
        return causes;
    }
    let message = match (late, old) {
        (Some(_), _) => {
            let limit = spec["progressDeadlineSeconds"].as_i64().unwrap_or(600);
            format!(", the newest, made no progress for longer than {limit}s: {have} of its {made} pods are ready")
        }
        (None, 0) => format!(", the newest, has {have} of {made} pods ready"),
        (None, old) => format!(
            ", the newest, has {have} of {made} pods ready, and {} stay until they are",
            counted(usize::try_from(old).unwrap_or_default(), "old pod")
        ),
    };
    let reason = if late.is_some() { "ProgressDeadlineExceeded" } else { "NewReplicaSetNotReady" };
    let cause = Cause::new(reason, message).about(newest).because(below);
    causes.push(match old {
        0 => cause,
        _ => cause.fix("goes back to what ran before", set::rollout(deployment, "undo")),
    });
    causes
}

/// A Deployment's ReplicaSets, the newest first.
fn replica_sets<'w>(look: &Look<'w>, deployment: &Value) -> Vec<&'w Value> {
    let uid = api::meta::uid(deployment);
    let mine = |set: &&Value| items(&set["metadata"]["ownerReferences"]).any(|o| o["uid"] == uid);
    let all = look.world.list("replicasets.apps", api::meta::namespace(deployment));
    let mut sets: Vec<&Value> = all.iter().filter(mine).collect();
    let revision = |set: &Value| text(&set["metadata"]["annotations"][REVISION]).parse::<i64>().unwrap_or_default();
    sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    sets
}

pub fn stateful_set(look: &Look, object: &Value) -> Vec<Cause> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let mut causes: Vec<Cause> = set::unseen(object).into_iter().collect();
    let mut pods = set::owned(look, object);
    pods.sort_by_key(|pod| ordinal(pod));
    if count(&status["readyReplicas"]) < wanted || count(&status["availableReplicas"]) < wanted {
        causes.extend(ordered(look, object, &pods, wanted));
    }
    let (current, update) = (text(&status["currentRevision"]), text(&status["updateRevision"]));
    if causes.is_empty() && !update.is_empty() && current != update {
        causes.extend(not_updated(look, object, &pods, update));
    }
    causes
}

fn ordinal(pod: &Value) -> i64 {
    api::meta::name(pod).rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

fn ordered(look: &Look, object: &Value, pods: &[&Value], wanted: i64) -> Vec<Cause> {
    let mut causes = Vec::new();
    let missing = usize::try_from(wanted).unwrap_or_default().saturating_sub(pods.len());
    let parallel = object["spec"]["podManagementPolicy"] == "Parallel";
    let unready = pods.iter().find(|pod| condition_is(pod, "Ready", "True").is_none());
    match unready {
        Some(first) if !parallel && missing > 0 => {
            let message =
                format!("is not ready, and the {} after it {} made when it is", counted(missing, "pod"), be(missing));
            causes.push(Cause::new("OrderedWait", message).about(first).because(look.why(first)));
        }
        Some(_) => causes.extend(set::pods(look, object, pods)),
        None => causes.extend(set::not_created(look, object)),
    }
    if causes.is_empty() {
        causes.extend(set::pods(look, object, pods));
    }
    causes
}

fn not_updated(look: &Look, object: &Value, pods: &[&Value], update: &str) -> Option<Cause> {
    let labelled = |pod: &&&Value| pod["metadata"]["labels"]["controller-revision-hash"] != update;
    let old: Vec<&str> = pods.iter().filter(labelled).map(|pod| api::meta::name(pod)).collect();
    let last = old.last()?;
    let strategy = &object["spec"]["updateStrategy"];
    let partition = count(&strategy["rollingUpdate"]["partition"]);
    let namespace = api::meta::namespace(object);
    if strategy["type"] == "OnDelete" {
        let message = format!(
            "{} of the revision before run until somebody deletes them (updateStrategy OnDelete)",
            counted(old.len(), "pod")
        );
        let delete = kubectl(namespace, &format!("delete pod {last}"));
        return Some(Cause::new("OnDelete", message).about(object).fix("one after another", delete));
    }
    if partition > 0
        && old.iter().all(|name| name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0i64) < partition)
    {
        let message =
            format!("its partition is {partition}: {} below it keep the revision before", counted(old.len(), "pod"));
        let patch = format!(
            "patch statefulset {} -p '{{\"spec\":{{\"updateStrategy\":{{\"rollingUpdate\":{{\"partition\":0}}}}}}}}'",
            api::meta::name(object)
        );
        return Some(Cause::new("Partition", message).about(object).fix("updates all", kubectl(namespace, &patch)));
    }
    let message = format!("its rollout goes on: {} to be made anew", counted(old.len(), "pod"));
    let below = set::pods(look, object, pods);
    Some(Cause::new("RollingOut", message).about(object).because(below).fix("", set::rollout(object, "status")))
}

pub fn daemon_set(look: &Look, object: &Value) -> Vec<Cause> {
    let status = &object["status"];
    let wanted = count(&status["desiredNumberScheduled"]);
    let mut causes: Vec<Cause> = set::unseen(object).into_iter().collect();
    if wanted == 0 {
        let nodes = look.world.list("nodes", "").len();
        let selector = object["spec"]["template"]["spec"]["nodeSelector"].as_object();
        let selector: Vec<String> = selector.into_iter().flatten().map(|(k, v)| format!("{k}={}", text(v))).collect();
        let message = match (nodes, selector.is_empty()) {
            (0, _) => "the cluster has no nodes".to_owned(),
            (n, true) => format!("none of the {} is one for it (taints or affinity)", counted(n, "node")),
            (n, false) => format!("none of the {} has the labels {}", counted(n, "node"), selector.join(", ")),
        };
        let cause = Cause::new("NoNodeMatches", message).about(object);
        causes.push(match selector.first() {
            Some(label) if nodes > 0 => cause.fix("", format!("kubectl label node NODE {label}")),
            _ => cause.fix("", "kubectl get nodes --show-labels"),
        });
        return causes;
    }
    let pods = set::owned(look, object);
    if count(&status["currentNumberScheduled"]) < wanted {
        causes.extend(set::not_created(look, object));
    }
    if count(&status["numberAvailable"]) < wanted {
        causes.extend(set::pods(look, object, &pods));
    }
    let updated = count(&status["updatedNumberScheduled"]);
    if causes.is_empty() && updated < wanted {
        let on_delete = object["spec"]["updateStrategy"]["type"] == "OnDelete";
        let old = counted(usize::try_from(wanted - updated).unwrap_or_default(), "pod");
        causes.push(match on_delete {
            true => Cause::new(
                "OnDelete",
                format!("{old} of the revision before run until somebody deletes them (updateStrategy OnDelete)"),
            ),
            false => Cause::new("RollingOut", format!("its rollout goes on: {old} to be made anew"))
                .fix("", set::rollout(object, "status")),
        });
    }
    causes
}
