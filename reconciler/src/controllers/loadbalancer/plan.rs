//! Which address each Service of type LoadBalancer gets. Pure: the same Services and nodes give the same addresses, and
//! an address that a Service has stays with it as long as it may have it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::cidr::Cidr;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::controllers::endpointslice::plan::SERVICE_NAME_LABEL;
use crate::objects::{Node, label_of};

/// Nodes with this label take no traffic from balancers (`v1.LabelNodeExcludeBalancers`).
const EXCLUDED_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Where addresses come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Pool {
    /// Somebody else gives addresses to Services without a class.
    None,
    /// Every Service has the addresses of all ready nodes; a port of theirs belongs to one Service.
    #[default]
    Nodes,
    /// Every Service has an address of its own, out of these ranges, both ends included.
    Ranges(Vec<(IpAddr, IpAddr)>),
}

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("load balancer addresses: {0:?} is neither a range such as 192.0.2.0/28 nor one such as 192.0.2.10-192.0.2.20")]
pub struct BadRange(String);

impl TryFrom<&[String]> for Pool {
    type Error = BadRange;

    /// As given on the command line: nothing means nodes, `none` nobody.
    fn try_from(given: &[String]) -> Result<Self, BadRange> {
        match given {
            [] => Ok(Self::Nodes),
            [one] if one == "none" => Ok(Self::None),
            ranges => {
                let range = |text: &String| range(text).ok_or_else(|| BadRange(text.clone()));
                Ok(Self::Ranges(ranges.iter().map(range).collect::<Result<_, _>>()?))
            }
        }
    }
}

fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last): (IpAddr, IpAddr) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        return (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last));
    }
    let range = if text.contains('/') { Cidr::parse(text)? } else { Cidr::single(text.parse().ok()?) };
    Some((range.base, range.last()))
}

/// What a Service's `status.loadBalancer` should say.
#[derive(Debug, PartialEq)]
pub struct Given<'a> {
    pub service: &'a Service,
    pub addresses: Vec<IpAddr>,
    /// Why there is no address, for the user.
    pub refused: Option<String>,
}

/// Services that are this controller's, in the order in which they are served: the oldest first.
pub fn plan<'a>(
    services: impl Iterator<Item = &'a Service>,
    nodes: &[&Node],
    serving: &Serving,
    pool: &Pool,
) -> Vec<Given<'a>> {
    let mut ours: Vec<&Service> = services.filter(|service| is_ours(service)).collect();
    ours.sort_by_key(|service| {
        let metadata = &service.metadata;
        (metadata.creation_timestamp.as_ref().map(|time| time.0), &metadata.namespace, &metadata.name)
    });
    match pool {
        Pool::None => Vec::new(),
        Pool::Nodes => of_nodes(&ours, nodes, serving),
        Pool::Ranges(ranges) => of_ranges(&ours, ranges),
    }
}

/// Of type LoadBalancer, and of no class: those of a class are another controller's.
pub fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
    is_balanced && spec.load_balancer_class.is_none() && service.metadata.deletion_timestamp.is_none()
}

/// Keeps what comes from outside on the node it comes to, so that nodes without an endpoint drop it.
pub fn stays_on_node(service: &Service) -> bool {
    let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
    policy == Some("Local")
}

/// Names of nodes that have a ready endpoint, by namespace and name of the Service.
#[derive(Debug, Default)]
pub struct Serving(HashMap<(String, String), BTreeSet<String>>);

impl Serving {
    pub fn of<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> Self {
        let mut all = Self::default();
        for slice in slices {
            let Some(service) = label_of(&slice.metadata, SERVICE_NAME_LABEL) else { continue };
            let key = (slice.metadata.namespace.clone().unwrap_or_default(), service.to_owned());
            all.0.entry(key).or_default().extend(nodes_of(slice));
        }
        all
    }

    fn has(&self, service: &Service, node: &Node) -> bool {
        self.nodes(service).is_some_and(|nodes| nodes.contains(&node.metadata.name))
    }

    fn nodes(&self, service: &Service) -> Option<&BTreeSet<String>> {
        let metadata = &service.metadata;
        self.0.get(&(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default()))
    }
}

/// Names of nodes that have a ready endpoint of this slice.
pub fn nodes_of(slice: &EndpointSlice) -> BTreeSet<String> {
    let is_ready = |conditions: &Option<k8s_openapi::api::discovery::v1::EndpointConditions>| {
        conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| is_ready(&endpoint.conditions));
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// The addresses a Service has by its status.
pub fn has(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn of_nodes<'a>(services: &[&'a Service], nodes: &[&Node], serving: &Serving) -> Vec<Given<'a>> {
    let takes = |node: &&&Node| {
        let is_ready = node.condition("Ready").is_some_and(|condition| condition.status == "True");
        is_ready && !node.metadata.labels.contains_key(EXCLUDED_LABEL)
    };
    let nodes: Vec<&Node> = nodes.iter().filter(takes).copied().collect();
    let addresses_of = |wanted: &dyn Fn(&Node) -> bool| -> BTreeSet<IpAddr> {
        nodes.iter().filter(|node| wanted(node)).flat_map(|node| node_addresses(node)).collect()
    };
    let all = addresses_of(&|_| true);
    let mut taken = HashSet::new();
    services
        .iter()
        .map(|service| {
            let ports: Vec<(&str, i32)> = ports(service).collect();
            if let Some((protocol, port)) = ports.iter().find(|port| taken.contains(*port)) {
                let refused = Some(format!("port {port}/{protocol} of the nodes belongs to another Service already"));
                return Given { service, addresses: Vec::new(), refused };
            }
            taken.extend(ports);
            let mut addresses = BTreeSet::new();
            if stays_on_node(service) {
                addresses = addresses_of(&|node| serving.has(service, node));
            }
            // Where no node has an endpoint, none is better than another: the Service keeps an address.
            let addresses = if addresses.is_empty() { all.clone() } else { addresses };
            let addresses = addresses.into_iter().filter(|address| wants_family(service, *address)).collect();
            Given { service, addresses, refused: None }
        })
        .collect()
}

/// External addresses where a node has some, else those that other nodes reach it at.
fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let of = |kind: &str| -> Vec<IpAddr> {
        let addresses = node.status.addresses.iter().filter(|address| address.kind == kind);
        addresses.filter_map(|address| address.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

fn of_ranges<'a>(services: &[&'a Service], ranges: &[(IpAddr, IpAddr)]) -> Vec<Given<'a>> {
    let within = |address: &IpAddr| ranges.iter().any(|(first, last)| first <= address && address <= last);
    let mut taken: HashSet<IpAddr> = HashSet::new();
    // Who has an address keeps it, before anybody gets a new one.
    let kept: Vec<Vec<IpAddr>> = services
        .iter()
        .map(|service| {
            let asked = asked(service);
            let mut kept: Vec<IpAddr> = has(service);
            kept.retain(|a| within(a) && wants_family(service, *a) && asked.is_none_or(|asked| asked == *a));
            kept.retain(|address| taken.insert(*address));
            kept
        })
        .collect();
    let mut given = Vec::new();
    for (service, mut addresses) in services.iter().zip(kept) {
        let mut refused = None;
        for ipv6 in [false, true] {
            if !wants(service, ipv6) || addresses.iter().any(|address| address.is_ipv6() == ipv6) {
                continue;
            }
            let asked = asked(service).filter(|address| address.is_ipv6() == ipv6);
            let found = match asked {
                Some(asked) => Some(asked).filter(|asked| within(asked) && !taken.contains(asked)),
                None => free(ranges, ipv6, &taken),
            };
            match found {
                Some(address) => {
                    taken.insert(address);
                    addresses.push(address);
                }
                None if asked.is_some() => refused = Some("the address it asks for cannot be had".to_owned()),
                None => refused = Some("no address is left".to_owned()),
            }
        }
        // A Service of two families with one in the pool has what there is.
        let refused = refused.filter(|_| addresses.is_empty());
        given.push(Given { service, addresses, refused });
    }
    given
}

fn free(ranges: &[(IpAddr, IpAddr)], ipv6: bool, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    let of_family = ranges.iter().filter(|(first, _)| first.is_ipv6() == ipv6);
    // At most one address more than are taken is looked at.
    of_family.copied().find_map(|(first, last)| addresses(first, last).find(|address| !taken.contains(address)))
}

fn addresses(first: IpAddr, last: IpAddr) -> Box<dyn Iterator<Item = IpAddr>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Box::new((first.to_bits()..=last.to_bits()).map(|bits| Ipv4Addr::from_bits(bits).into()))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Box::new((first.to_bits()..=last.to_bits()).map(|bits| Ipv6Addr::from_bits(bits).into()))
        }
        _ => Box::new(std::iter::empty()),
    }
}

/// `spec.loadBalancerIP`, which is deprecated and still used.
fn asked(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.load_balancer_ip.as_ref()?.parse().ok()
}

fn wants_family(service: &Service, address: IpAddr) -> bool {
    wants(service, address.is_ipv6())
}

fn wants(service: &Service, ipv6: bool) -> bool {
    let name = if ipv6 { "IPv6" } else { "IPv4" };
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    families.map_or(!ipv6, |families| families.iter().any(|family| family == name))
}

fn ports(service: &Service) -> impl Iterator<Item = (&str, i32)> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
    ports.map(|port| (port.protocol.as_deref().unwrap_or("TCP"), port.port))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, age: u32, spec: Value, has: &[&str]) -> Service {
        let mut all = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }], "ipFamilies": ["IPv4"] });
        for (field, value) in spec.as_object().expect("an object") {
            all[field] = value.clone();
        }
        let ingress: Vec<Value> = has.iter().map(|ip| json!({ "ip": ip })).collect();
        let metadata = json!({ "name": name, "creationTimestamp": format!("2026-01-0{age}T00:00:00Z") });
        let object = json!({ "metadata": metadata, "spec": all, "status": { "loadBalancer": { "ingress": ingress } } });
        serde_json::from_value(object).unwrap()
    }

    fn node(name: &str, ready: &str, addresses: &[(&str, &str)], labels: Value) -> Node {
        let addresses: Vec<Value> = addresses.iter().map(|(k, a)| json!({ "type": k, "address": a })).collect();
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "status": {
            "conditions": [{ "type": "Ready", "status": ready }], "addresses": addresses } }))
        .unwrap()
    }

    fn check(services: &[Service], nodes: &[Node], pool: &[&str], expected: &[(&str, &str)]) {
        check_with(services, nodes, &[], pool, expected);
    }

    fn check_with(
        services: &[Service],
        nodes: &[Node],
        slices: &[EndpointSlice],
        pool: &[&str],
        expected: &[(&str, &str)],
    ) {
        let pool: Vec<String> = pool.iter().map(|&text| text.to_owned()).collect();
        let nodes: Vec<&Node> = nodes.iter().collect();
        let plan = plan(services.iter(), &nodes, &Serving::of(slices.iter()), &Pool::try_from(&*pool).unwrap());
        let found: Vec<(String, String)> = plan
            .iter()
            .map(|given| {
                let addresses: Vec<String> = given.addresses.iter().map(ToString::to_string).collect();
                let text = given.refused.clone().unwrap_or_else(|| addresses.join(" "));
                (given.service.metadata.name.clone().unwrap(), text)
            })
            .collect();
        let expected: Vec<(String, String)> =
            expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn nodes_that_are_ready_share_their_addresses() {
        let nodes = [
            node("a", "True", &[("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1")], json!({})),
            node("b", "True", &[("InternalIP", "10.0.0.2"), ("ExternalIP", "192.0.2.2")], json!({})),
            node("c", "False", &[("InternalIP", "10.0.0.3")], json!({})),
            node("d", "True", &[("InternalIP", "10.0.0.4")], json!({ EXCLUDED_LABEL: "" })),
        ];
        let services = [
            service("later", 2, json!({}), &[]),
            service("first", 1, json!({}), &[]),
            service("dual", 3, json!({ "ports": [{ "port": 81 }], "ipFamilies": ["IPv4", "IPv6"] }), &[]),
            service("classy", 1, json!({ "loadBalancerClass": "example.com/other" }), &[]),
            service("plain", 1, json!({ "type": "ClusterIP" }), &[]),
        ];
        let expected = [
            ("first", "10.0.0.1 192.0.2.2"),
            ("later", "port 80/TCP of the nodes belongs to another Service already"),
            ("dual", "10.0.0.1 192.0.2.2 fd00::1"),
        ];
        check(&services, &nodes, &[], &expected);
        check(&services, &nodes, &["none"], &[]);
    }

    #[test]
    fn a_service_that_stays_on_its_node_names_nodes_that_serve_it() {
        let nodes = [
            node("a", "True", &[("InternalIP", "10.0.0.1")], json!({})),
            node("b", "True", &[("InternalIP", "10.0.0.2")], json!({})),
            node("c", "False", &[("InternalIP", "10.0.0.3")], json!({})),
        ];
        let local = |name: &str, port: u16| {
            service(name, 1, json!({ "externalTrafficPolicy": "Local", "ports": [{ "port": port }] }), &[])
        };
        let endpoint = |node: &str, ready: bool| json!({ "nodeName": node, "conditions": { "ready": ready } });
        let slice = |service: &str, endpoints: Value| -> EndpointSlice {
            let labels = json!({ "kubernetes.io/service-name": service });
            serde_json::from_value(json!({ "metadata": { "labels": labels }, "addressType": "IPv4",
                "endpoints": endpoints, "ports": [] }))
            .unwrap()
        };
        let services =
            [local("one", 80), local("unready", 81), service("any", 2, json!({ "ports": [{ "port": 82 }] }), &[])];
        let slices = [
            slice("one", json!([endpoint("a", false), endpoint("b", true), endpoint("c", true)])),
            slice("unready", json!([endpoint("a", false)])),
            slice("any", json!([endpoint("b", true)])),
        ];
        let expected = [("one", "10.0.0.2"), ("unready", "10.0.0.1 10.0.0.2"), ("any", "10.0.0.1 10.0.0.2")];
        check_with(&services, &nodes, &slices, &[], &expected);
    }

    #[test]
    fn addresses_of_a_pool_are_kept_and_given_once() {
        let services = [
            service("new", 1, json!({}), &[]),
            service("has", 2, json!({}), &["192.0.2.10"]),
            service("outside", 3, json!({}), &["198.51.100.1"]),
            service("asks", 4, json!({ "loadBalancerIP": "192.0.2.11" }), &[]),
            service("none left", 5, json!({}), &[]),
        ];
        let expected = [
            ("new", "192.0.2.11"),
            ("has", "192.0.2.10"),
            ("outside", "192.0.2.12"),
            ("asks", "the address it asks for cannot be had"),
            ("none left", "no address is left"),
        ];
        check(&services, &[], &["192.0.2.10-192.0.2.12"], &expected);
        let dual = service("dual", 1, json!({ "ipFamilies": ["IPv6", "IPv4"] }), &[]);
        check(&[dual], &[], &["192.0.2.16/30", "fd00:1::/64"], &[("dual", "192.0.2.16 fd00:1::")]);
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        for bad in ["192.0.2.0/33", "192.0.2.9-192.0.2.1", "192.0.2.1-fd00::1", "pool"] {
            assert_eq!(Pool::try_from(&[bad.to_owned()][..]), Err(BadRange(bad.to_owned())));
        }
    }
}
