//! Why one node cannot take one pod, in the order the scheduler looks: the first reason counts, as it does there.

use api::placement::{Taint, Toleration, requirement_holds};
use api::quantity::{Format, Quantity};
use serde_json::Value;

use crate::look::{count, items, text};

/// The first reason that a node does not fit.
#[derive(Clone, Debug, PartialEq)]
pub enum Misfit {
    Cordoned,
    OtherNode(String),
    Taint {
        key: String,
        value: String,
        effect: String,
    },
    /// What it asks for.
    Affinity(String),
    Port(i64),
    /// The resources that are short; `pods` is the number of pods.
    Resources(Vec<String>),
}

impl Misfit {
    /// Belongs into one group with the other.
    pub fn is_like(&self, other: &Self) -> bool {
        self == other
    }
}

/// `None`: nothing that can be seen here speaks against the node. Without `pods`, those of the whole cluster, what is left
/// of it is not judged.
pub fn misfit(pod: &Value, node: &Value, pods: Option<&[Value]>) -> Option<Misfit> {
    let spec = &pod["spec"];
    let tolerations: Vec<Toleration> = items(&spec["tolerations"])
        .map(|t| Toleration {
            key: text(&t["key"]),
            operator: text(&t["operator"]),
            value: text(&t["value"]),
            effect: text(&t["effect"]),
        })
        .collect();
    let tolerates = |taint: &Taint| tolerations.iter().any(|t| t.tolerates(taint));
    let cordoned = Taint { key: "node.kubernetes.io/unschedulable", value: "", effect: "NoSchedule" };
    if node["spec"]["unschedulable"] == true && !tolerates(&cordoned) {
        return Some(Misfit::Cordoned);
    }
    let taints = items(&node["spec"]["taints"]).map(|t| Taint {
        key: text(&t["key"]),
        value: text(&t["value"]),
        effect: text(&t["effect"]),
    });
    let forbids = |taint: &Taint| matches!(taint.effect, "NoSchedule" | "NoExecute") && !tolerates(taint);
    if let Some(taint) = { taints }.find(forbids) {
        let (key, value, effect) = (taint.key.to_owned(), taint.value.to_owned(), taint.effect.to_owned());
        return Some(Misfit::Taint { key, value, effect });
    }
    affinity(spec, node).or_else(|| port(spec, node, pods?)).or_else(|| short(pod, node, pods?))
}

fn affinity(spec: &Value, node: &Value) -> Option<Misfit> {
    let label = |key: &str| api::meta::labels(node).and_then(|l| l.get(key)).and_then(Value::as_str);
    let selector = spec["nodeSelector"].as_object();
    let missing: Vec<String> = selector
        .into_iter()
        .flatten()
        .filter(|(key, value)| label(key) != value.as_str())
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if !missing.is_empty() {
        return Some(Misfit::Affinity(missing.join(" ")));
    }
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms: Vec<&Value> = items(&required["nodeSelectorTerms"]).collect();
    let values = |r: &Value| items(&r["values"]).map(|v| text(v).to_owned()).collect::<Vec<_>>();
    let fits = |term: &&Value| {
        let labels = items(&term["matchExpressions"])
            .all(|r| requirement_holds(label(text(&r["key"])), text(&r["operator"]), &values(r)));
        let fields = items(&term["matchFields"])
            .all(|r| requirement_holds(Some(api::meta::name(node)), text(&r["operator"]), &values(r)));
        labels && fields
    };
    if terms.is_empty() || terms.iter().any(|term| fits(term)) {
        return None;
    }
    let named = terms.iter().flat_map(|t| items(&t["matchFields"])).find(|f| f["key"] == "metadata.name");
    if let Some(field) = named {
        return Some(Misfit::OtherNode(values(field).join(", ")));
    }
    let words: Vec<String> = terms.iter().flat_map(|t| items(&t["matchExpressions"])).map(|r| requirement(r)).collect();
    Some(Misfit::Affinity(words.join(" ")))
}

fn requirement(requirement: &Value) -> String {
    let key = text(&requirement["key"]);
    let values: Vec<&str> = items(&requirement["values"]).map(text).collect();
    match text(&requirement["operator"]) {
        "In" => format!("{key} in ({})", values.join(",")),
        "NotIn" => format!("{key} not in ({})", values.join(",")),
        "Exists" => key.to_owned(),
        "DoesNotExist" => format!("!{key}"),
        operator => format!("{key} {operator} {}", values.join(",")),
    }
}

fn host_ports(spec: &Value) -> impl Iterator<Item = (i64, &str)> {
    items(&spec["containers"]).flat_map(|c| items(&c["ports"])).filter(|p| count(&p["hostPort"]) > 0).map(|p| {
        let protocol = text(&p["protocol"]);
        (count(&p["hostPort"]), if protocol.is_empty() { "TCP" } else { protocol })
    })
}

fn port(spec: &Value, node: &Value, pods: &[Value]) -> Option<Misfit> {
    let taken: Vec<(i64, &str)> = on(node, pods).flat_map(|pod| host_ports(&pod["spec"])).collect();
    host_ports(spec).find(|port| taken.contains(port)).map(|(port, _)| Misfit::Port(port))
}

/// The pods that take a place on the node.
fn on<'p>(node: &'p Value, pods: &'p [Value]) -> impl Iterator<Item = &'p Value> {
    let name = api::meta::name(node);
    let over = |pod: &Value| matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
    pods.iter().filter(move |pod| pod["spec"]["nodeName"] == name && !over(pod))
}

fn zero() -> Quantity {
    Quantity::new(0, Format::DecimalSi)
}

/// What a pod asks for of a resource.
pub fn wanted(pod: &Value, resource: &str) -> Quantity {
    if resource == "pods" {
        return Quantity::new(1, Format::DecimalSi);
    }
    let sum = api::quota::pod_total(pod, "requests").get(resource).copied();
    let overhead = api::quota::amounts(&pod["spec"]["overhead"]).get(resource).copied();
    match (sum, overhead) {
        (Some(sum), Some(overhead)) => sum.plus(overhead),
        (sum, overhead) => sum.or(overhead).unwrap_or_else(zero),
    }
}

pub fn allocatable(node: &Value, resource: &str) -> Quantity {
    let text = node["status"]["allocatable"][resource].as_str();
    text.and_then(|t| Quantity::parse(t).ok()).unwrap_or_else(zero)
}

/// What is left of a resource on a node.
pub fn free(node: &Value, pods: &[Value], resource: &str) -> Quantity {
    on(node, pods).fold(allocatable(node, resource), |left, pod| left.minus(wanted(pod, resource)))
}

fn short(pod: &Value, node: &Value, pods: &[Value]) -> Option<Misfit> {
    let requests = api::quota::pod_total(pod, "requests");
    let mut resources: Vec<String> = requests.keys().cloned().collect();
    resources.insert(0, "pods".to_owned());
    let lacks = |resource: &String| {
        let wanted = wanted(pod, resource);
        !wanted.is_zero() && free(node, pods, resource) < wanted
    };
    let short: Vec<String> = resources.into_iter().filter(lacks).collect();
    (!short.is_empty()).then_some(Misfit::Resources(short))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(taints: Value) -> Value {
        json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": {"taints": taints},
               "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "2"}}})
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn the_first_reason_counts() {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "3", "memory": "1Gi"}}}]);
        let busy = json!({"metadata": {"name": "b"}, "spec": {"nodeName": "n", "containers": containers}});
        let wants = pod(json!({"containers": containers}));
        assert_eq!(misfit(&wants, &node(json!([])), Some(&[])), None);
        let short = Misfit::Resources(vec!["cpu".into()]);
        assert_eq!(misfit(&wants, &node(json!([])), Some(std::slice::from_ref(&busy))), Some(short));
        let tainted = node(json!([{"key": "a", "effect": "NoSchedule"}]));
        assert!(matches!(misfit(&wants, &tainted, Some(&[busy])), Some(Misfit::Taint { key, .. }) if key == "a"));
        let tolerant = pod(json!({"tolerations": [{"operator": "Exists"}]}));
        assert_eq!(misfit(&tolerant, &tainted, None), None);
    }

    #[test]
    fn labels_and_ports() {
        let wants = |spec| misfit(&pod(spec), &node(json!([])), Some(&[]));
        assert_eq!(wants(json!({"nodeSelector": {"disk": "ssd"}})), None);
        assert_eq!(wants(json!({"nodeSelector": {"disk": "hdd"}})), Some(Misfit::Affinity("disk=hdd".into())));
        let port = json!({"containers": [{"ports": [{"hostPort": 80}]}]});
        let mut other = pod(port.clone());
        other["spec"]["nodeName"] = "n".into();
        assert_eq!(misfit(&pod(port), &node(json!([])), Some(&[other])), Some(Misfit::Port(80)));
    }
}
