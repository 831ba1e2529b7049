//! Whether this node can take a pod that was bound to it, in the words of the kubelet's `predicateAdmitHandler`. Pure.
//!
//! The scheduler asks the same before it binds; a pod that names its node itself, or that two schedulers raced for, has
//! been asked by nobody. A pod that cannot be taken fails, so that its controller makes another.
//!
//! The node's labels are not looked at, and a critical pod evicts no other for its place.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::resources::{Resources, is_sidecar};

/// What the node has for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    pub pods: i64,
    pub cpu_milli: i64,
    pub memory_bytes: i64,
}

/// Why a pod is not taken: `status.reason` and `status.message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: &'static str,
    pub message: String,
}

/// `others` are the pods that have their place on the node.
pub fn admit(pod: &Pod, others: &[&Pod], capacity: Capacity) -> Result<(), Rejection> {
    let empty = PodSpec::default();
    let spec_of = |pod: &'_ Pod| pod.spec.clone().unwrap_or_default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        let message = format!("Failed to admit pod as the OS field doesn't match node OS: {}", os.name);
        return Err(Rejection { reason: "PodOSNotSupported", message });
    }
    let insufficient = |reason, resource, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Err(Rejection { reason, message })
    };
    if others.len() as i64 + 1 > capacity.pods {
        return insufficient("OutOfpods", "pods", 1, others.len() as i64, capacity.pods);
    }
    let own = Resources::of_pod(spec);
    let used: Vec<Resources> = others.iter().map(|other| Resources::of_pod(&spec_of(other))).collect();
    let sum = |of: fn(&Resources) -> Option<i64>| used.iter().filter_map(of).sum::<i64>();
    let checks: [(_, _, fn(&Resources) -> Option<i64>, _); 2] = [
        ("OutOfcpu", "cpu", |resources| resources.cpu_request_milli, capacity.cpu_milli),
        ("OutOfmemory", "memory", |resources| resources.memory_request_bytes, capacity.memory_bytes),
    ];
    for (reason, resource, of, capacity) in checks {
        let requested = of(&own).unwrap_or(0);
        if requested > 0 && requested > capacity - sum(of) {
            return insufficient(reason, resource, requested, sum(of), capacity);
        }
    }
    let wanted = host_ports(spec);
    let taken = others.iter().filter_map(|other| other.spec.as_ref()).flat_map(host_ports).collect::<Vec<_>>();
    if wanted.iter().any(|port| taken.iter().any(|other| port.collides(other))) {
        let message =
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned();
        return Err(Rejection { reason: "NodePorts", message });
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct HostPort {
    address: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    fn collides(&self, other: &Self) -> bool {
        let any = |port: &Self| port.address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(self) || any(other) || self.address == other.address)
    }
}

/// Ports on the host of all containers that run together.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let text = |value: &Option<String>, default: &str| {
        value.clone().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    ports
        .filter_map(|port| {
            Some(HostPort {
                address: text(&port.host_ip, "0.0.0.0"),
                protocol: text(&port.protocol, "TCP"),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CAPACITY: Capacity = Capacity { pods: 3, cpu_milli: 2000, memory_bytes: 1 << 30 };

    fn pod(container: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})).unwrap()
    }

    fn check(container: Value, others: &[Value], expected: &str) {
        let others: Vec<Pod> = others.iter().cloned().map(pod).collect();
        let others: Vec<&Pod> = others.iter().collect();
        let said = match admit(&pod(container), &others, CAPACITY) {
            Ok(()) => "taken".to_owned(),
            Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
        };
        assert_eq!(said, expected);
    }

    fn port(port: i32, protocol: &str, address: &str) -> Value {
        json!({"name": "c", "ports": [{"containerPort": 80, "hostPort": port, "protocol": protocol, "hostIP": address}]})
    }

    #[test]
    fn a_host_port_has_one_pod() {
        let refused =
            "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        check(port(80, "TCP", ""), &[], "taken");
        check(port(80, "TCP", ""), &[port(81, "TCP", "")], "taken");
        check(port(80, "TCP", ""), &[port(80, "UDP", "")], "taken");
        check(port(80, "TCP", "192.0.2.1"), &[port(80, "TCP", "192.0.2.2")], "taken");
        check(port(80, "TCP", ""), &[port(80, "", "")], refused);
        check(port(80, "TCP", "192.0.2.1"), &[port(80, "TCP", "0.0.0.0")], refused);
        check(port(80, "TCP", "192.0.2.1"), &[port(80, "TCP", "192.0.2.1")], refused);
        check(json!({"name": "c", "ports": [{"containerPort": 80}]}), &[port(80, "TCP", "")], "taken");
    }

    #[test]
    fn requests_must_fit() {
        let cpu = |amount: &str| json!({"name": "c", "resources": {"requests": {"cpu": amount}}});
        check(cpu("1500m"), &[cpu("500m")], "taken");
        let refused = "OutOfcpu: Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000";
        check(cpu("1501m"), &[cpu("500m")], refused);
        check(json!({"name": "c"}), &[cpu("3")], "taken");
        let memory = json!({"name": "c", "resources": {"limits": {"memory": "2Gi"}}});
        let refused = "OutOfmemory: Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824";
        check(memory, &[], refused);
    }

    #[test]
    fn there_are_only_so_many_pods() {
        let any = || json!({"name": "c"});
        check(any(), &[any(), any()], "taken");
        let refused = "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3";
        check(any(), &[any(), any(), any()], refused);
    }
}
