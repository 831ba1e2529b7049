//! Why a pod has no node: the scheduler's verdict, told by groups of nodes.

use serde_json::Value;

use super::fit::{self, Misfit};
use crate::chain::Cause;
use crate::kinds::storage;
use crate::look::{Look, condition, count, counted, items, kubectl, names, text};
use crate::world::Found;

/// What becomes of pods that name no scheduler.
const DEFAULT_SCHEDULER: &str = "default-scheduler";

pub fn causes(look: &Look, pod: &Value) -> Vec<Cause> {
    let (namespace, name) = (api::meta::namespace(pod), api::meta::name(pod));
    let gates: Vec<&str> = items(&pod["spec"]["schedulingGates"]).map(|g| text(&g["name"])).collect();
    if !gates.is_empty() {
        let message = format!("the scheduler leaves it alone while it has the scheduling gate {}", names(&gates));
        let patch =
            format!("patch pod {name} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/schedulingGates\"}}]'");
        let fix = "if nothing else takes it off";
        return vec![Cause::new("SchedulingGated", message).about(pod).fix(fix, kubectl(namespace, &patch))];
    }
    let scheduler = match text(&pod["spec"]["schedulerName"]) {
        "" => DEFAULT_SCHEDULER,
        name => name,
    };
    let Some(verdict) = condition(pod, "PodScheduled").filter(|c| c["status"] == "False") else {
        let message = format!("no scheduler named {scheduler} has looked at it");
        let cause = Cause::new("NotSeenByScheduler", message).about(pod);
        return vec![match scheduler {
            DEFAULT_SCHEDULER => {
                cause.fix("says whether it runs and leads", "kubectl -n kube-system get lease kube-scheduler")
            }
            _ => cause.fix(
                "is it there? a pod cannot change its scheduler: else make it anew",
                "kubectl get pods -A | grep -i sched",
            ),
        }];
    };
    if let Some(node) = pod["status"]["nominatedNodeName"].as_str().filter(|n| !n.is_empty()) {
        let message = format!("it will get its place on {node} when the pods of lower priority there have ended");
        return vec![Cause::new("Preempting", message).about(pod)];
    }
    let claims = storage::unbound_of(look, pod);
    if !claims.is_empty() {
        return claims;
    }
    let missing = missing_resource_claims(look, pod);
    if !missing.is_empty() {
        return missing;
    }
    vec![unschedulable(look, pod, text(&verdict["message"]))]
}

/// Claims for devices that were never made (`resourceClaims`).
fn missing_resource_claims(look: &Look, pod: &Value) -> Vec<Cause> {
    let namespace = api::meta::namespace(pod);
    let missing = items(&pod["spec"]["resourceClaims"]).filter_map(|claim| {
        let (name, template) = (text(&claim["resourceClaimName"]), text(&claim["resourceClaimTemplateName"]));
        let (resource, name) = match name {
            "" => ("resourceclaimtemplates.resource.k8s.io", template),
            name => ("resourceclaims.resource.k8s.io", name),
        };
        look.world.get(resource, namespace, name).is_absent().then(|| {
            let what = resource.split_once("s.").map_or(resource, |(kind, _)| kind);
            Cause::new(
                "ResourceClaimMissing",
                format!("it asks for devices by the {what} {name}, which does not exist"),
            )
            .about(pod)
        })
    });
    missing.collect()
}

fn unschedulable(look: &Look, pod: &Value, verdict: &str) -> Cause {
    let nodes = look.world.list("nodes", "");
    if nodes.is_empty() {
        let fix = "prints the token that `keelson agent` on another machine joins with";
        return Cause::new("NoNodes", "the cluster has no nodes").about(pod).fix(fix, "keelson token create");
    }
    // Without the other pods nobody can tell here what is left on a node.
    let all_pods = look.world.listed("pods", "");
    let pods = all_pods.unwrap_or_default();
    let mut groups: Vec<(Misfit, Vec<&Value>)> = Vec::new();
    let mut unexplained = Vec::new();
    for node in nodes {
        match fit::misfit(pod, node, all_pods) {
            Some(misfit) => match groups.iter_mut().find(|(other, _)| other.is_like(&misfit)) {
                Some((_, nodes)) => nodes.push(node),
                None => groups.push((misfit, vec![node])),
            },
            None => unexplained.push(node),
        }
    }
    // Those that hold up most nodes first.
    groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    let mut below: Vec<Cause> = groups.iter().map(|(misfit, on)| group(look, pod, misfit, on, pods)).collect();
    if !unexplained.is_empty() {
        below.push(other(look, pod, &unexplained, &own_words(verdict, all_pods.is_some())));
    }
    if let Found::Here(class) = priority(look, pod)
        && text(&pod["spec"]["preemptionPolicy"]) != "Never"
        && count(&class["value"]) > 0
    {
        below.extend(preemption(verdict));
    }
    let message = match nodes.len() {
        1 => "the only node cannot take it".to_owned(),
        n => format!("none of the {n} nodes can take it"),
    };
    Cause::new("Unschedulable", message).about(pod).because(below)
}

fn priority<'w>(look: &Look<'w>, pod: &Value) -> Found<'w> {
    match text(&pod["spec"]["priorityClassName"]) {
        "" => Found::Absent,
        class => look.world.get("priorityclasses.scheduling.k8s.io", "", class),
    }
}

/// What the scheduler says about making room by its own words.
fn preemption(verdict: &str) -> Option<Cause> {
    let said = verdict.split_once("preemption: ")?.1.trim_end_matches('.');
    Some(Cause::new("PreemptionNoHelp", format!("ending pods of lower priority does not help: {said}")))
}

/// One reason, with the nodes it holds for.
fn group(look: &Look, pod: &Value, misfit: &Misfit, nodes: &[&Value], pods: &[Value]) -> Cause {
    let node_names: Vec<&str> = nodes.iter().map(|n| api::meta::name(n)).collect();
    let on = format!("on {} ({})", counted(nodes.len(), "node"), names(&node_names));
    let first = node_names.first().copied().unwrap_or_default();
    match misfit {
        Misfit::Cordoned => Cause::new("NodeUnschedulable", format!("{on}: cordoned, no new pods are wanted there"))
            .fix("", format!("kubectl uncordon {}", node_names.join(" "))),
        Misfit::OtherNode(wanted) => {
            Cause::new("OtherNode", format!("{on}: it asks for the node {wanted} and no other"))
        }
        Misfit::Taint { key, value, effect } => taint(look, (key, value, effect), &on, nodes),
        Misfit::Affinity(wanted) => {
            let cause = Cause::new("NodeAffinity", format!("{on}: not the labels that it asks for: {wanted}"));
            let label = wanted.replace(" in (", "=").replace(')', "");
            cause.fix("if the node is meant to have it", format!("kubectl label node {first} {label}"))
        }
        Misfit::Port(port) => {
            Cause::new("HostPortTaken", format!("{on}: the host port {port} is taken by another pod")).fix(
                "most pods need no host port: a Service gives them one address",
                kubectl(api::meta::namespace(pod), &format!("explain {}", "service.spec.ports")),
            )
        }
        Misfit::Resources(short) => resources(look, pod, short, &on, nodes, pods),
    }
}

/// Taints that the cluster sets have a cause of their own.
fn taint(look: &Look, (key, value, effect): (&str, &str, &str), on: &str, nodes: &[&Value]) -> Cause {
    let shown = if value.is_empty() { format!("{key}:{effect}") } else { format!("{key}={value}:{effect}") };
    let cause = Cause::new("UntoleratedTaint", format!("{on}: the taint {shown}, which it does not tolerate"));
    if key.starts_with("node.kubernetes.io/") || key.starts_with("node.cloudprovider.kubernetes.io/") {
        let trouble = nodes.iter().map(|node| (node, look.why(node))).find(|(_, causes)| !causes.is_empty());
        let below = trouble.map(|(node, causes)| Cause::new("NodeState", "is in trouble").about(node).because(causes));
        return cause.because(below);
    }
    let node_names: Vec<&str> = nodes.iter().map(|n| api::meta::name(n)).collect();
    cause.fix("or give the pod a toleration", format!("kubectl taint nodes {} {key}:{effect}-", node_names.join(" ")))
}

fn resources(look: &Look, pod: &Value, short: &[String], on: &str, nodes: &[&Value], pods: &[Value]) -> Cause {
    let mut parts = Vec::new();
    let mut too_big = false;
    for resource in short {
        let wanted = fit::wanted(pod, resource);
        let best = nodes.iter().map(|node| (fit::free(node, pods, resource), fit::allocatable(node, resource), node));
        let Some((free, whole, node)) = best.max_by_key(|(free, ..)| *free) else { continue };
        too_big |= nodes.iter().all(|node| fit::allocatable(node, resource) < wanted);
        let node = api::meta::name(node);
        parts.push(match resource.as_str() {
            "pods" => format!("no more pods (each has its {whole})"),
            resource if whole.is_zero() => format!("no {resource} at all, of which it asks for {wanted}"),
            resource => {
                format!(
                    "not enough {resource}: it asks for {wanted}, the most that is free is {free} of {whole} ({node})"
                )
            }
        });
    }
    let cause = Cause::new("InsufficientResources", format!("{on}: {}", parts.join("; ")));
    let namespace = api::meta::namespace(pod);
    let asked: Vec<String> = short.iter().filter(|r| *r != "pods").map(|resource| format!("{resource}=LESS")).collect();
    if !asked.is_empty()
        && let Some(workload) = super::workload(look, pod)
    {
        let what =
            if too_big { "no node is that large: ask for less" } else { "ask for less, end other pods, or add a node" };
        return cause
            .fix(what, kubectl(namespace, &format!("set resources {workload} --requests={}", asked.join(","))));
    }
    cause.fix("add a node, or end what takes most", format!("kubectl describe node {}", api::meta::name(nodes[0])))
}

/// What only the scheduler can tell, in its own words.
fn other(look: &Look, pod: &Value, nodes: &[&Value], reasons: &[&str]) -> Cause {
    let node_names: Vec<&str> = nodes.iter().map(|n| api::meta::name(n)).collect();
    let on = format!("on {} ({})", counted(nodes.len(), "node"), names(&node_names));
    let namespace = api::meta::namespace(pod);
    if reasons.iter().any(|r| r.contains("topology spread")) {
        let rules =
            items(&pod["spec"]["topologySpreadConstraints"]).filter(|c| c["whenUnsatisfiable"] == "DoNotSchedule");
        let rules: Vec<String> =
            rules.map(|c| format!("at most {} more per {}", count(&c["maxSkew"]), text(&c["topologyKey"]))).collect();
        let message = format!("{on}: its spread would become uneven ({})", rules.join("; "));
        return Cause::new("TopologySpread", message)
            .fix("shows where its like run", kubectl(namespace, &format!("get pods -o wide -l {}", labels(pod))));
    }
    if let Some(reason) = reasons.iter().find(|r| r.contains("affinity")) {
        let message = match reason.contains("anti-affinity") {
            true => format!(
                "{on}: a pod runs there that it must not be beside, or that must not be beside it (anti-affinity)"
            ),
            false => format!("{on}: no pod runs there that it must be beside (affinity)"),
        };
        return Cause::new("PodAffinity", message)
            .fix("shows what runs where", "kubectl get pods -A -o wide --sort-by=.spec.nodeName");
    }
    if reasons.is_empty() {
        let message = format!("{on}: nothing speaks against it now; the scheduler will look again");
        return Cause::new("WaitingForScheduler", message).because(
            look.event(pod, &["FailedScheduling"])
                .map(|event| Cause::new("LastVerdict", format!("its last word: {}", text(&event["message"])))),
        );
    }
    Cause::new("SchedulerVerdict", format!("{on}: {}", reasons.join(", ")))
}

fn labels(pod: &Value) -> String {
    let labels = api::meta::labels(pod).into_iter().flatten().filter(|(key, _)| *key != "pod-template-hash");
    labels.map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(",")
}

/// The reasons of `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match ...` that [`fit`] does not know;
/// without the other pods, also those it can't count.
fn own_words(verdict: &str, counted: bool) -> Vec<&str> {
    const COUNTED: &[&str] = &["Insufficient ", "Too many pods", "free ports"];
    const KNOWN: &[&str] =
        &["untolerated taint", "node affinity/selector", "were unschedulable", "requested node name"];
    let known = |reason: &str| {
        KNOWN.iter().any(|k| reason.contains(k)) || counted && COUNTED.iter().any(|k| reason.contains(k))
    };
    let said = verdict.split_once("nodes are available: ").map_or(verdict, |(_, said)| said);
    let said = said.split_once(" preemption:").map_or(said, |(said, _)| said).trim_end_matches('.');
    let reasons = said.split(", ").map(|r| r.trim_start_matches(|c: char| c.is_ascii_digit()).trim());
    reasons.filter(|r| !r.is_empty() && !known(r)).collect()
}

#[cfg(test)]
mod tests {
    use super::own_words;

    #[test]
    fn the_verdict_is_split_into_reasons() {
        let verdict = "0/5 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {a: b}, \
                       3 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/5 nodes are available: \
                       5 Preemption is not helpful for scheduling.";
        assert_eq!(own_words(verdict, true), ["node(s) didn't satisfy existing pods anti-affinity rules"]);
        assert_eq!(own_words(verdict, false).len(), 2);
        assert!(own_words("0/1 nodes are available: 1 Too many pods.", true).is_empty());
    }
}
