//! From Services and EndpointSlices to one ruleset: pure, so that every rule has a reason that a test can show.
//! The choice of endpoints follows upstream's `proxy.CategorizeEndpoints`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::objects::{Endpoint, EndpointSlice, PROXY_NAME_LABEL, SERVICE_NAME_LABEL, Service, ServicePort};
use crate::ruleset::{Ruleset, mark_for_masquerade};

/// Most endpoints of one Service port that take part; the rest is left out, so that one rule stays bounded.
const ENDPOINTS_MAX: usize = 5_000;
/// The Service that stands for cluster DNS.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// One backend of one Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Backend {
    address: Ipv4Addr,
    port: u16,
}

/// Backends of a Service port by who may use them.
#[derive(Default)]
struct Backends {
    cluster: BTreeSet<Backend>,
    local: BTreeSet<Backend>,
}

/// What a node has of its own.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub name: String,
    /// This node's DNS server: behind the DNS Service as long as that has no endpoints.
    pub dns: Option<SocketAddrV4>,
}

/// The ruleset that `node` should have.
pub fn plan<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &Node,
) -> Ruleset {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let Some(service) = slice.metadata.labels.get(SERVICE_NAME_LABEL) else { continue };
        if slice.address_type != "IPv4" {
            continue;
        }
        by_service.entry((&slice.metadata.namespace, service)).or_default().push(slice);
    }
    let mut ruleset = Ruleset::default();
    for service in services {
        if service.spec.kind == "ExternalName" || service.metadata.labels.contains_key(PROXY_NAME_LABEL) {
            continue;
        }
        // Headless Services have `None`; IPv6 addresses belong to another table.
        let Ok(cluster_ip) = service.spec.cluster_ip.parse::<Ipv4Addr>() else { continue };
        let (namespace, name) = (service.metadata.namespace.as_str(), service.metadata.name.as_str());
        let slices = by_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        for port in &service.spec.ports {
            let mut backends = backends(slices, port, &node.name);
            if backends.cluster.is_empty() && (namespace, name) == DNS_SERVICE {
                let own = node.dns.map(|dns| Backend { address: *dns.ip(), port: dns.port() });
                backends = Backends { cluster: own.into_iter().collect(), local: own.into_iter().collect() };
            }
            let id = format!("{namespace}/{name}/{}/{}", protocol(port), port.port);
            add_port(&mut ruleset, service, cluster_ip, port, &id, &backends);
        }
    }
    ruleset
}

fn add_port(
    ruleset: &mut Ruleset,
    service: &Service,
    cluster_ip: Ipv4Addr,
    port: &ServicePort,
    id: &str,
    backends: &Backends,
) {
    let affine = service.spec.session_affinity == "ClientIP";
    let protocol = protocol(port);
    let key = |address: Ipv4Addr| format!("{address} . {protocol} . {}", port.port);
    for backend in &backends.cluster {
        ruleset.hairpin.insert(format!("{0} . {0}", backend.address));
    }

    let internal_local = service.spec.internal_traffic_policy == "Local";
    let internal = if internal_local { &backends.local } else { &backends.cluster };
    let internal_chain = format!("svc/{id}");
    if internal.is_empty() {
        ruleset.refused.insert(key(cluster_ip));
    } else {
        ruleset.chains.insert(internal_chain.clone(), vec![balance(protocol, internal, affine)]);
        ruleset.services.insert(key(cluster_ip), internal_chain);
    }

    let addresses = external_addresses(service);
    if port.node_port == 0 && addresses.is_empty() {
        return;
    }
    let external_local = service.spec.external_traffic_policy == "Local";
    let external = if external_local { &backends.local } else { &backends.cluster };
    if external.is_empty() {
        ruleset.refused.extend(addresses.into_iter().map(key));
        return;
    }
    let chain = format!("ext/{id}");
    let mut rules = Vec::new();
    if !external_local {
        rules.push(mark_for_masquerade());
    }
    rules.push(balance(protocol, external, affine));
    ruleset.chains.insert(chain.clone(), rules);
    if port.node_port != 0 {
        ruleset.node_ports.insert(format!("{protocol} . {}", port.node_port), chain.clone());
    }
    for address in addresses {
        ruleset.services.insert(key(address), chain.clone());
    }
}

/// `externalIPs` and load balancer addresses.
fn external_addresses(service: &Service) -> BTreeSet<Ipv4Addr> {
    let ingress = service.status.load_balancer.ingress.iter().map(|i| &i.ip);
    service.spec.external_ips.iter().chain(ingress).filter_map(|a| a.parse().ok()).collect()
}

/// The rule that picks a backend: at random, or by the client's address where the Service asks for affinity.
fn balance(protocol: &str, backends: &BTreeSet<Backend>, affine: bool) -> String {
    let count = backends.len().min(ENDPOINTS_MAX);
    let pick = if affine { format!("jhash ip saddr mod {count}") } else { format!("numgen random mod {count}") };
    let elements: Vec<String> = backends
        .iter()
        .take(ENDPOINTS_MAX)
        .enumerate()
        .map(|(index, backend)| format!("{index} : {} . {}", backend.address, backend.port))
        .collect();
    format!("meta l4proto {protocol} dnat ip to {pick} map {{ {} }}", elements.join(", "))
}

fn protocol(port: &ServicePort) -> &'static str {
    match port.protocol.as_str() {
        "UDP" => "udp",
        "SCTP" => "sctp",
        _ => "tcp",
    }
}

/// Ready endpoints; where none is ready, those that still serve while terminating.
fn backends(slices: &[&EndpointSlice], port: &ServicePort, node_name: &str) -> Backends {
    let ready = collect(slices, port, node_name, |e| e.conditions.ready.unwrap_or(true));
    let serving = |e: &Endpoint| e.conditions.serving.unwrap_or(true) && e.conditions.terminating.unwrap_or(false);
    let cluster_empty = ready.cluster.is_empty();
    let local_empty = ready.local.is_empty();
    if !cluster_empty && !local_empty {
        return ready;
    }
    let fallback = collect(slices, port, node_name, serving);
    Backends {
        cluster: if cluster_empty { fallback.cluster } else { ready.cluster },
        local: if local_empty { fallback.local } else { ready.local },
    }
}

fn collect(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    node_name: &str,
    usable: impl Fn(&Endpoint) -> bool,
) -> Backends {
    let mut found = Backends::default();
    for slice in slices {
        let matching = slice.ports.iter().find(|p| p.name == port.name && same_protocol(&p.protocol, &port.protocol));
        let Some(number) = matching.and_then(|p| p.port) else { continue };
        for endpoint in slice.endpoints.iter().filter(|e| usable(e)) {
            let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
            let backend = Backend { address, port: number };
            found.cluster.insert(backend);
            if endpoint.node_name == node_name {
                found.local.insert(backend);
            }
        }
    }
    found
}

/// An absent protocol is TCP.
fn same_protocol(a: &str, b: &str) -> bool {
    let or_tcp = |p: &str| if p.is_empty() { "TCP".to_owned() } else { p.to_owned() };
    or_tcp(a) == or_tcp(b)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn check(services: &[Value], slices: &[Value], expected: Expect) {
        let services: Vec<Service> =
            services.iter().map(|v| serde_json::from_value(v.clone()).expect("a Service")).collect();
        let slices: Vec<EndpointSlice> =
            slices.iter().map(|v| serde_json::from_value(v.clone()).expect("an EndpointSlice")).collect();
        let node = Node { name: "here".into(), dns: Some(SocketAddrV4::new([169, 254, 20, 10].into(), 53)) };
        let ruleset = plan(&services, &slices, &node);
        let mut text = String::new();
        for (chain, rules) in &ruleset.chains {
            text += &format!("chain {chain}: {}\n", rules.join("; "));
        }
        for (key, chain) in ruleset.services.iter().chain(&ruleset.node_ports) {
            text += &format!("{key} -> {chain}\n");
        }
        for key in &ruleset.refused {
            text += &format!("refuse {key}\n");
        }
        expected.assert_eq(&text);
    }

    fn service(spec: Value) -> Value {
        let mut all = json!({ "type": "ClusterIP", "clusterIP": "10.96.0.7",
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80 }] });
        for (field, value) in spec.as_object().expect("an object") {
            all[field] = value.clone();
        }
        json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": all })
    }

    fn slice(endpoints: Value) -> Value {
        json!({ "metadata": { "name": "web-1", "namespace": "default",
                "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }] })
    }

    #[test]
    fn ready_endpoints_share_a_cluster_ip() {
        let endpoints = json!([
            { "addresses": ["10.244.0.5"], "conditions": { "ready": true } },
            { "addresses": ["10.244.0.6"], "conditions": { "ready": false } },
            { "addresses": ["10.244.1.5"] },
        ]);
        check(
            &[service(json!({}))],
            &[slice(endpoints)],
            expect![[r#"
            chain svc/default/web/tcp/80: meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.1.5 . 8080 }
            10.96.0.7 . tcp . 80 -> svc/default/web/tcp/80
        "#]],
        );
    }

    #[test]
    fn the_dns_service_is_the_nodes_own_server_unless_it_has_endpoints() {
        let ports = json!([{ "name": "dns", "protocol": "UDP", "port": 53 }]);
        let mut dns = service(json!({ "clusterIP": "10.96.0.10", "ports": ports }));
        dns["metadata"] = json!({ "name": "kube-dns", "namespace": "kube-system" });
        check(
            &[dns.clone()],
            &[],
            expect![[r#"
            chain svc/kube-system/kube-dns/udp/53: meta l4proto udp dnat ip to numgen random mod 1 map { 0 : 169.254.20.10 . 53 }
            10.96.0.10 . udp . 53 -> svc/kube-system/kube-dns/udp/53
        "#]],
        );
        let mut own = slice(json!([{ "addresses": ["10.244.0.5"] }]));
        own["metadata"] = json!({ "name": "kube-dns-1", "namespace": "kube-system",
            "labels": { "kubernetes.io/service-name": "kube-dns" } });
        own["ports"] = json!([{ "name": "dns", "protocol": "UDP", "port": 5353 }]);
        check(
            &[dns],
            &[own],
            expect![[r#"
            chain svc/kube-system/kube-dns/udp/53: meta l4proto udp dnat ip to numgen random mod 1 map { 0 : 10.244.0.5 . 5353 }
            10.96.0.10 . udp . 53 -> svc/kube-system/kube-dns/udp/53
        "#]],
        );
    }

    #[test]
    fn no_endpoints_means_refused() {
        check(
            &[service(json!({}))],
            &[slice(Value::Null)],
            expect![[r#"
            refuse 10.96.0.7 . tcp . 80
        "#]],
        );
    }

    #[test]
    fn terminating_endpoints_serve_when_nothing_else_does() {
        let endpoints = json!([{ "addresses": ["10.244.0.5"],
            "conditions": { "ready": false, "serving": true, "terminating": true } }]);
        check(
            &[service(json!({}))],
            &[slice(endpoints)],
            expect![[r#"
            chain svc/default/web/tcp/80: meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.244.0.5 . 8080 }
            10.96.0.7 . tcp . 80 -> svc/default/web/tcp/80
        "#]],
        );
    }

    #[test]
    fn node_ports_masquerade_unless_traffic_stays_local() {
        let ports = json!([{ "name": "http", "port": 80, "nodePort": 30080 }]);
        let endpoints = json!([
            { "addresses": ["10.244.0.5"], "nodeName": "here" },
            { "addresses": ["10.244.1.5"], "nodeName": "there" },
        ]);
        check(
            &[service(json!({ "type": "NodePort", "ports": ports }))],
            &[slice(endpoints.clone())],
            expect![[r#"
            chain ext/default/web/tcp/80: meta mark set meta mark or 0x4000; meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.1.5 . 8080 }
            chain svc/default/web/tcp/80: meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.1.5 . 8080 }
            10.96.0.7 . tcp . 80 -> svc/default/web/tcp/80
            tcp . 30080 -> ext/default/web/tcp/80
        "#]],
        );
        let local = json!({ "type": "NodePort", "ports": ports, "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP" });
        check(
            &[service(local)],
            &[slice(endpoints)],
            expect![[r#"
            chain ext/default/web/tcp/80: meta l4proto tcp dnat ip to jhash ip saddr mod 1 map { 0 : 10.244.0.5 . 8080 }
            chain svc/default/web/tcp/80: meta l4proto tcp dnat ip to jhash ip saddr mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.1.5 . 8080 }
            10.96.0.7 . tcp . 80 -> svc/default/web/tcp/80
            tcp . 30080 -> ext/default/web/tcp/80
        "#]],
        );
    }

    #[test]
    fn headless_and_external_services_have_no_rules() {
        check(
            &[service(json!({ "clusterIP": "None" })), service(json!({ "type": "ExternalName", "clusterIP": "" }))],
            &[],
            expect![""],
        );
    }
}
