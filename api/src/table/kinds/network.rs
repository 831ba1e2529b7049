//! Cells of network kinds.

use serde_json::Value;

use crate::table::View;
use crate::table::text::{self, field, or};

/// Hosts shown of an Ingress.
const HOSTS_MAX: usize = 3;

/// Cluster address, external addresses and ports.
pub fn service(view: &View) -> Vec<Value> {
    let address = view.list("/spec/clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
    let ports: Vec<String> = view.list("/spec/ports").iter().map(port).collect();
    vec![address.into(), external_addresses(view).into(), or(&ports.join(","), "<none>").into()]
}

fn port(port: &Value) -> String {
    let number = |name: &str| port.get(name).and_then(Value::as_i64).unwrap_or(0);
    let protocol = field(port, "protocol");
    match number("nodePort") {
        0 => format!("{}/{protocol}", number("port")),
        node_port => format!("{}:{node_port}/{protocol}", number("port")),
    }
}

fn external_addresses(view: &View) -> String {
    let given: Vec<&str> = view.list("/spec/externalIPs").iter().filter_map(Value::as_str).collect();
    match view.text("/spec/type") {
        "ClusterIP" | "NodePort" => or(&given.join(","), "<none>").to_owned(),
        "LoadBalancer" => {
            let balancer = balancer_addresses(view);
            let all: Vec<&str> = balancer.iter().map(String::as_str).chain(given).collect();
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => view.text("/spec/externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn balancer_addresses(view: &View) -> Vec<String> {
    let ingress = view.list("/status/loadBalancer/ingress");
    let mut found: Vec<String> =
        ingress.iter().map(|i| or(field(i, "ip"), field(i, "hostname")).to_owned()).filter(|a| !a.is_empty()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Hosts, addresses and ports.
pub fn ingress(view: &View) -> Vec<Value> {
    let rules = view.list("/spec/rules");
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == HOSTS_MAX;
        if !more && !field(rule, "host").is_empty() {
            hosts.push(field(rule, "host"));
        }
    }
    let mut shown = or(&hosts.join(","), "*").to_owned();
    if more {
        shown = format!("{shown} + {} more...", rules.len() - HOSTS_MAX);
    }
    let ports = if view.list("/spec/tls").is_empty() { "80" } else { "80, 443" };
    vec![shown.into(), balancer_addresses(view).join(",").into(), ports.into()]
}

/// The name, marked when an annotation makes the class the default.
pub fn ingress_class_name(view: &View) -> Value {
    super::default_class_name(view, &["ingressclass.kubernetes.io/is-default-class"])
}

pub fn ingress_class_parameters(view: &View) -> Value {
    let parameters = view.at("/spec/parameters");
    if parameters.is_null() {
        return "<none>".into();
    }
    let kind = match parameters.get("apiGroup").and_then(Value::as_str) {
        Some(group) => format!("{}.{group}", field(parameters, "kind")),
        None => field(parameters, "kind").to_owned(),
    };
    format!("{kind}/{}", field(parameters, "name")).into()
}

pub fn pod_selector(view: &View) -> Value {
    text::selector(view.at("/spec/podSelector"), "<none>").into()
}

pub fn service_ranges(view: &View) -> Value {
    let ranges: Vec<&str> = view.list("/spec/cidrs").iter().filter_map(Value::as_str).collect();
    ranges.join(",").into()
}

/// What an address belongs to: `resource.group/namespace/name`.
pub fn parent(view: &View) -> Value {
    let parent = view.at("/spec/parentRef");
    if parent.is_null() {
        return "<none>".into();
    }
    let (group, namespace) = (field(parent, "group"), field(parent, "namespace"));
    let mut out = field(parent, "resource").to_lowercase();
    if !group.is_empty() {
        out = format!("{out}.{}", group.to_lowercase());
    }
    if !namespace.is_empty() {
        out = format!("{out}/{namespace}");
    }
    format!("{out}/{}", field(parent, "name")).into()
}

/// Addresses with ports, ready ones only.
pub fn endpoints(view: &View) -> Value {
    let subsets = view.list("/subsets");
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all: Vec<String> = Vec::new();
    for subset in subsets {
        let of = |name: &str| subset.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let addresses = || of("addresses").iter().map(|a| field(a, "ip"));
        if of("ports").is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in of("ports") {
            let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
            all.extend(
                addresses().map(
                    |ip| {
                        if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }
                    },
                ),
            );
        }
    }
    text::shortened(&all, "").into()
}

/// Ports and addresses of a slice.
pub fn endpoint_slice(view: &View) -> Vec<Value> {
    let ports: Vec<String> = view
        .list("/ports")
        .iter()
        .map(|port| match (port.get("port").and_then(Value::as_i64), port.get("name").and_then(Value::as_str)) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = view
        .list("/endpoints")
        .iter()
        .flat_map(|e| e.get("addresses").and_then(Value::as_array).into_iter().flatten())
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    vec![text::shortened(&ports, "<unset>").into(), text::shortened(&addresses, "<unset>").into()]
}
