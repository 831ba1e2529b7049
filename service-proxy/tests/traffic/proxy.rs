//! The proxy's tables in a node's namespace, fed with objects as the API server would write them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use api::cidr::Cidr;
use api::meta::ObjectKey;
use api_client::Object;
use serde_json::{Value, json};
use service_proxy::apply::{Plans, Tables};
use service_proxy::objects::{EndpointSlice, Service};
use service_proxy::plan::{Node, plan};
use service_proxy::{Fixed, Flows, Metrics, Place};

use crate::world::{NODE, Namespace};

pub const TABLE: &str = "kept";

pub fn fixed() -> Fixed {
    Fixed {
        name: TABLE.to_owned(),
        pods: ["10.244.0.0/16", "fd00:10::/32"].into_iter().filter_map(Cidr::parse).collect(),
        masquerades_egress: false,
        node_port_ranges: Vec::new(),
        localhost_node_ports: true,
    }
}

/// One Service with its endpoints, as `kubectl` would show them.
#[derive(Clone)]
pub struct Given {
    pub service: Value,
    pub slices: Vec<Value>,
}

/// A Service `web` on 10.96.0.7, port 80, with these fields on top.
pub fn service(name: &str, spec: Value) -> Value {
    let mut all = json!({ "type": "ClusterIP", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ports": [{ "name": "http", "protocol": "TCP", "port": 80 }] });
    for (field, value) in spec.as_object().expect("an object") {
        all[field] = value.clone();
    }
    json!({ "metadata": { "name": name, "namespace": "default" }, "spec": all })
}

/// Endpoints of the Service at port 8080: address and node.
pub fn slice(name: &str, protocol: &str, endpoints: &[(&str, &str)]) -> Value {
    let ipv6 = endpoints.first().is_some_and(|(address, _)| address.contains(':'));
    let family = if ipv6 { "IPv6" } else { "IPv4" };
    let endpoints: Vec<Value> =
        endpoints.iter().map(|(address, node)| json!({ "addresses": [address], "nodeName": node })).collect();
    json!({ "metadata": { "name": format!("{name}-{family}"), "namespace": "default",
            "labels": { "kubernetes.io/service-name": name } },
        "addressType": family, "endpoints": endpoints,
        "ports": [{ "name": "http", "protocol": protocol, "port": 8080 }] })
}

pub struct Proxy<'a> {
    node: &'a Namespace,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    tables: Tables,
    flows: Flows,
}

impl<'a> Proxy<'a> {
    /// As after a start of the process: nothing is known but what the kernel has.
    pub fn start(node: &'a Namespace, all: &[Given]) -> Self {
        Self::start_with(node, all.iter().map(planned).collect())
    }

    pub fn start_with(node: &'a Namespace, plans: Plans) -> Self {
        let inner = node.run(|| Inner { tables: Tables::open(fixed()).unwrap(), flows: Flows::default() });
        let proxy = Self { node, inner: Arc::new(Mutex::new(inner)) };
        proxy.reconcile_with(plans);
        proxy
    }

    pub fn reconcile(&self, all: &[Given]) {
        self.reconcile_with(all.iter().map(planned).collect());
    }

    fn reconcile_with(&self, plans: Plans) {
        self.with(move |inner| {
            inner.flows.plan(&plans);
            inner.tables.reconcile(plans).unwrap();
            inner.flows.clean(inner.tables.socket(), &Metrics::default()).unwrap();
        });
    }

    pub fn set(&self, given: &Given) {
        self.change(vec![planned(given)]);
    }

    pub fn delete(&self, name: &str) {
        self.change(vec![(ObjectKey::new("default", name), [None, None])]);
    }

    pub fn change(&self, plans: Plans) {
        self.with(move |inner| {
            inner.flows.plan(&plans);
            inner.tables.update(plans).unwrap();
            inner.flows.clean(inner.tables.socket(), &Metrics::default()).unwrap();
        });
    }

    /// Ranges of cluster addresses, from now on.
    pub fn set_ranges(&self, ranges: &[&str]) {
        let ranges = ranges.iter().filter_map(|range| Cidr::parse(range)).collect();
        self.with(move |inner| {
            inner.tables.ranges = ranges;
            inner.tables.update(Vec::new()).unwrap();
        });
    }

    /// Until nothing is left to be tidied.
    pub fn tidy(&self) {
        self.with(|inner| while inner.tables.tidy().unwrap() {});
    }

    fn with<T: Send + 'static>(&self, job: impl FnOnce(&mut Inner) -> T + Send + 'static) -> T {
        let inner = self.inner.clone();
        // The socket keeps the namespace it was opened in, but `/proc/net` is that of the thread.
        self.node.run(move || job(&mut inner.lock().unwrap()))
    }

    /// Lines of the table as `nft` lists it, without clients of affinity.
    pub fn listed(&self) -> BTreeSet<String> {
        self.node.sh(&format!("nft -n list table ip {TABLE}")).lines().map(|line| line.trim().to_owned()).collect()
    }
}

pub fn planned(given: &Given) -> (ObjectKey, [Option<service_proxy::plan::Plan>; 2]) {
    decoded(given).plan()
}

/// What a proxy's caches hold of a Service.
pub struct Decoded {
    service: Service,
    slices: Vec<EndpointSlice>,
}

pub fn decoded(given: &Given) -> Decoded {
    let service = serde_json::from_value(given.service.clone()).expect("a Service");
    let slice = |slice: &Value| serde_json::from_value(slice.clone()).expect("an EndpointSlice");
    Decoded { service, slices: given.slices.iter().map(slice).collect() }
}

impl Decoded {
    pub fn plan(&self) -> (ObjectKey, [Option<service_proxy::plan::Plan>; 2]) {
        let slices: Vec<&EndpointSlice> = self.slices.iter().collect();
        let place = Place { node: "here".into(), ..Place::default() };
        let node = Node { place, dns: None, addresses: vec![NODE.parse().unwrap()] };
        (self.service.key(), [false, true].map(|ipv6| plan(&self.service, &slices, &node, ipv6)))
    }
}
