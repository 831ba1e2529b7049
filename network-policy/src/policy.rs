//! A NetworkPolicy in the form that plans are made from: selectors parsed, blocks as ranges, defaults filled in.
//!
//! What cannot be read allows nothing: a policy is never looser than it was written.

use std::collections::BTreeSet;

use api::selector::LabelSelector;
use serde_json::Value;

use crate::objects::{Labels, NetworkPolicy, Peer, Pod, Port, Protocol};
use crate::ranges::{self, Range};

#[derive(Clone, Debug)]
pub struct Policy {
    pub namespace: String,
    pub pods: LabelSelector,
    /// What may come in; `None` when the policy does not speak of it.
    pub ingress: Option<Vec<Allow>>,
    pub egress: Option<Vec<Allow>>,
}

#[derive(Clone, Debug)]
pub struct Allow {
    pub peers: Peers,
    pub ports: Ports,
}

#[derive(Clone, Debug)]
pub enum Peers {
    Anyone,
    Of { pods: Vec<Selector>, blocks: Vec<Range> },
}

/// Pods by the namespace they are in and their own labels.
#[derive(Clone, Debug)]
pub struct Selector {
    pub scope: Scope,
    pub pods: LabelSelector,
}

#[derive(Clone, Debug)]
pub enum Scope {
    Namespace(String),
    Matching(LabelSelector),
}

#[derive(Clone, Debug)]
pub enum Ports {
    All,
    Of { numbers: BTreeSet<PortRange>, named: BTreeSet<(Protocol, String)> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    pub protocol: Protocol,
    pub first: u16,
    pub last: u16,
}

impl Selector {
    /// Same text, same pods.
    pub fn text(&self) -> String {
        match &self.scope {
            Scope::Namespace(name) => format!("in {name}: {}", self.pods),
            Scope::Matching(labels) => format!("in all of {labels}: {}", self.pods),
        }
    }

    /// `namespace` tells the labels of the pod's namespace, if that is there.
    pub fn matches<'a>(&self, pod: &Pod, namespace: impl FnOnce(&str) -> Option<&'a api_client::Meta>) -> bool {
        let here = match &self.scope {
            Scope::Namespace(name) => **name == *pod.metadata.namespace,
            Scope::Matching(labels) if labels.is_everything() => true,
            Scope::Matching(labels) => namespace(&pod.metadata.namespace)
                .is_some_and(|meta| labels.matches_with(|key| meta.labels.get(key).map(String::as_str))),
        };
        here && matches(&self.pods, &pod.labels)
    }
}

pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    selector.matches_with(|key| labels.get(key))
}

impl Policy {
    pub fn read(policy: &NetworkPolicy) -> Self {
        let (namespace, spec) = (policy.metadata.namespace.as_str(), &policy.spec);
        let listed = |name: &str| spec.policy_types.iter().any(|kind| kind == name);
        let is_default = spec.policy_types.is_empty();
        let ingress = spec.ingress.iter().map(|rule| allow(namespace, &rule.from, &rule.ports));
        let egress = spec.egress.iter().map(|rule| allow(namespace, &rule.to, &rule.ports));
        Self {
            namespace: namespace.to_owned(),
            // Validated by the API server; one it does not know isolates every pod of the namespace.
            pods: selector(&spec.pod_selector).unwrap_or_else(LabelSelector::everything),
            ingress: (is_default || listed("Ingress")).then(|| ingress.collect()),
            egress: (listed("Egress") || is_default && !spec.egress.is_empty()).then(|| egress.collect()),
        }
    }
}

fn selector(value: &Value) -> Option<LabelSelector> {
    LabelSelector::from_object(Some(value)).ok().filter(|selector| !selector.is_nothing())
}

fn allow(namespace: &str, peers: &[Peer], ports: &[Port]) -> Allow {
    Allow { peers: read_peers(namespace, peers), ports: read_ports(ports) }
}

fn read_peers(namespace: &str, peers: &[Peer]) -> Peers {
    if peers.is_empty() {
        return Peers::Anyone;
    }
    let (mut pods, mut blocks) = (Vec::new(), Vec::new());
    for peer in peers {
        if let Some(ip_block) = &peer.ip_block {
            let except = ip_block.except.iter().filter_map(|cidr| ranges::block(cidr)).collect::<Vec<_>>();
            let whole = ranges::block(&ip_block.cidr).filter(|_| except.len() == ip_block.except.len());
            blocks.extend(whole.into_iter().flat_map(|whole| ranges::without(whole, &except)));
            continue;
        }
        let scope = match &peer.namespace_selector {
            None => Some(Scope::Namespace(namespace.to_owned())),
            Some(value) => selector(value).map(Scope::Matching),
        };
        let own = match &peer.pod_selector {
            None if peer.namespace_selector.is_none() => None,
            None => Some(LabelSelector::everything()),
            Some(value) => selector(value),
        };
        pods.extend(scope.zip(own).map(|(scope, pods)| Selector { scope, pods }));
    }
    pods.sort_by_cached_key(Selector::text);
    pods.dedup_by_key(|selector| selector.text());
    Peers::Of { pods, blocks: ranges::union(blocks) }
}

fn read_ports(ports: &[Port]) -> Ports {
    if ports.is_empty() {
        return Ports::All;
    }
    let (mut numbers, mut named) = (BTreeSet::new(), BTreeSet::new());
    for port in ports {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref().unwrap_or_default()) else { continue };
        match &port.port {
            None | Some(Value::Null) => {
                numbers.insert(PortRange { protocol, first: 0, last: u16::MAX });
            }
            Some(Value::String(name)) => {
                named.insert((protocol, name.clone()));
            }
            Some(value) => {
                let Some(first) = value.as_u64().and_then(|number| u16::try_from(number).ok()) else { continue };
                numbers.insert(PortRange { protocol, first, last: port.end_port.unwrap_or(first).max(first) });
            }
        }
    }
    Ports::Of { numbers: merged(numbers), named }
}

/// Overlapping and adjacent ranges of a protocol made one.
fn merged(ranges: BTreeSet<PortRange>) -> BTreeSet<PortRange> {
    let mut out: Vec<PortRange> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(before) if before.protocol == range.protocol && range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => out.push(range),
        }
    }
    out.into_iter().collect()
}
