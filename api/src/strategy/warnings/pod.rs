//! Warnings about a pod or a pod template (`pkg/api/pod`'s GetWarningsForPodTemplate).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::quantity::Quantity;
use crate::strategy::place::Place;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

const OLD_LABELS: [(&str, &str); 6] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Everything about a pod, or a template of pods.
pub fn template(pod: &Place, warnings: &mut Vec<String>) {
    let (metadata, spec) = (pod.field("metadata"), pod.field("spec"));
    placement(&spec, warnings);
    let annotations = metadata.field("annotations");
    for (key, problem) in OLD_ANNOTATIONS {
        let annotation = annotations.key(key);
        if annotation.is_set() {
            warn(&annotation, problem, warnings);
        }
    }
    volumes(&spec, warnings);
    repeated(&spec.field("hostAliases"), "ip", warnings);
    repeated(&spec.field("imagePullSecrets"), "name", warnings);
    for secret in spec.field("imagePullSecrets").items() {
        let name = secret.field("name");
        if name.is_empty() {
            warn(&name, "invalid empty name \"\"", warnings);
        }
    }
    amounts(&spec.field("overhead"), warnings);
    containers(&spec, warnings);
    let grace = spec.field("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds < 0) {
        warn(&grace, "must be >= 0; negative values are invalid and will be treated as 1", warnings);
    }
    spec.field("dnsConfig").field("nameservers").items().for_each(|ip| super::address(&ip, warnings));
    spec.field("hostAliases").items().for_each(|alias| super::address(&alias.field("ip"), warnings));
}

fn warn(place: &Place, problem: impl std::fmt::Display, warnings: &mut Vec<String>) {
    warnings.push(format!("{}: {problem}", place.path()));
}

fn old_label(label: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(old, _)| *old == label).map(|(_, problem)| *problem)
}

/// Labels that nodes no longer have, and selectors that select nothing.
fn placement(spec: &Place, warnings: &mut Vec<String>) {
    for (label, entry) in spec.field("nodeSelector").entries() {
        if let Some(problem) = old_label(label) {
            warn(&entry, problem, warnings);
        }
    }
    let affinity = spec.field("affinity");
    let node = affinity.field("nodeAffinity");
    let required = node.field("requiredDuringSchedulingIgnoredDuringExecution");
    required.field("nodeSelectorTerms").items().for_each(|term| node_term(&term, warnings));
    let preferred = node.field("preferredDuringSchedulingIgnoredDuringExecution");
    preferred.items().for_each(|term| node_term(&term.field("preference"), warnings));
    for constraint in spec.field("topologySpreadConstraints").items() {
        let key = constraint.field("topologyKey");
        if let Some(problem) = old_label(key.str()) {
            warn(&key, format_args!("{} is {problem}", key.str()), warnings);
        }
        selector(&constraint, warnings);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind = affinity.field(kind);
        kind.field("requiredDuringSchedulingIgnoredDuringExecution").items().for_each(|term| selector(&term, warnings));
        let preferred = kind.field("preferredDuringSchedulingIgnoredDuringExecution");
        preferred.items().for_each(|term| selector(&term.field("podAffinityTerm"), warnings));
    }
}

fn node_term(term: &Place, warnings: &mut Vec<String>) {
    for expression in term.field("matchExpressions").items() {
        let key = expression.field("key");
        if let Some(problem) = old_label(key.str()) {
            warn(&key, format_args!("{} is {problem}", key.str()), warnings);
        }
    }
}

fn selector(term: &Place, warnings: &mut Vec<String>) {
    let selector = term.field("labelSelector");
    if !selector.is_set() {
        warn(&selector, NULL_SELECTOR, warnings);
    }
}

fn volumes(spec: &Place, warnings: &mut Vec<String>) {
    for volume in spec.field("volumes").items() {
        for (source, problem) in OLD_VOLUMES {
            let source = volume.field(source);
            if source.is_set() {
                warn(&source, problem, warnings);
            }
        }
    }
}

/// Items of a list whose `field` an earlier item has.
fn repeated(list: &Place, field: &str, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for item in list.items() {
        let value = item.field(field);
        if !seen.insert(value.str()) {
            warn(&value, format_args!("duplicate {field} {:?}", value.str()), warnings);
        }
    }
}

/// Bytes come whole.
fn amounts(amounts: &Place, warnings: &mut Vec<String>) {
    for resource in ["memory", "ephemeral-storage"] {
        let amount = amounts.key(resource);
        let fractional = |text: &str| Quantity::parse(text).is_ok_and(|q| q.milli_value() % 1000 != 0);
        if amount.value.as_str().is_some_and(fractional) {
            let problem = format!("fractional byte value {:?} is invalid, must be an integer", amount.str());
            warn(&amount, problem, warnings);
        }
    }
}

fn containers(spec: &Place, warnings: &mut Vec<String>) {
    let mut ports: HashMap<(i64, &str), Vec<(String, &Value)>> = HashMap::new();
    let mut names: HashMap<&str, String> = HashMap::new();
    for list in CONTAINER_LISTS {
        for container in spec.field(list).items() {
            let resources = container.field("resources");
            amounts(&resources.field("limits"), warnings);
            amounts(&resources.field("requests"), warnings);
            environment(&container, warnings);
            for port in container.field("ports").items() {
                overlaps(&port, &mut ports, warnings);
                let name = port.field("name").str();
                if let Some(other) = names.get(name) {
                    let problem = format!(
                        "duplicate port name {name:?} with {other}, services and probes that select ports by name will \
                         use {other}"
                    );
                    warn(&port, problem, warnings);
                } else if !name.is_empty() {
                    names.insert(name, port.path());
                }
            }
        }
    }
}

/// A variable may be defined again in terms of itself; anything else hides the first.
fn environment(container: &Place, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in container.field("env").items() {
        let name = variable.field("name").str();
        if seen.insert(name) {
            continue;
        }
        let (value, itself) = (variable.field("value").str(), format!("$({name})"));
        if variable.field("valueFrom").is_set() || value == itself || !value.contains(&itself) {
            let problem = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            warn(&variable, problem, warnings);
        }
    }
}

fn overlaps<'v>(
    port: &Place<'v, '_>,
    seen: &mut HashMap<(i64, &'v str), Vec<(String, &'v Value)>>,
    warnings: &mut Vec<String>,
) {
    let host = |value: &'v Value| {
        let ip = value.get("hostIP").and_then(Value::as_str).unwrap_or_default();
        (ip, value.get("hostPort").and_then(Value::as_i64).unwrap_or(0))
    };
    let key = (port.field("containerPort").int().unwrap_or(0), port.field("protocol").str());
    let others = seen.entry(key).or_default();
    let (ip, number) = host(port.value);
    for (path, other) in others.iter() {
        let (other_ip, other_number) = host(other);
        let how = if (ip, number) == (other_ip, other_number) {
            "duplicate"
        } else if number == 0 || other_number == 0 {
            "overlapping"
        } else if number == other_number && ip.is_empty() != other_ip.is_empty() {
            "dangerously ambiguous"
        } else {
            continue;
        };
        warn(port, format_args!("{how} port definition with {path}"), warnings);
    }
    others.push((port.path(), port.value));
}
