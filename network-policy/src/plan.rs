//! What the kernel is to hold for the pods of one node: a chain per distinct list of rules, a map from a pod's address
//! to its chain, and the sets that the rules look into.
//!
//! Names are hashes of what they stand for. So chains never change, pods under the same policies share one, rules that
//! mean the same peers share a set, and a change of pods is a change of elements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::selector::LabelSelector;
use sha2::{Digest, Sha256};

use crate::objects::{Pod, Protocol};
use crate::policy::{Allow, Peers, Policy, PortRange, Ports, Scope, Selector, matches};
use crate::ranges::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
    fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Ingress,
    Egress,
}

/// What fills a set.
#[derive(Clone, Debug)]
pub enum Members {
    /// Addresses of pods that any of the selectors matches.
    Pods(Vec<Selector>),
    /// Address, protocol and number of the ports of this name, of pods that any of the selectors matches.
    Ports { pods: Vec<Selector>, protocol: Protocol, name: String },
    /// Address ranges, as the policy says.
    Blocks(Vec<Range>),
}

#[derive(Clone, Debug)]
pub struct Set {
    pub family: Family,
    pub members: Members,
}

/// Lets a connection pass when all that is said holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The set that the other end's address is in.
    pub peer: Option<String>,
    pub port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    Any,
    In(PortRange),
    /// The set that destination address, protocol and port are in together.
    Named(String),
}

/// Rules of one kind of pod, in one direction and family. What none of them lets pass is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub family: Family,
    pub direction: Direction,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub chains: BTreeMap<String, Chain>,
    /// Chains by the address of the pod that connections come to.
    pub ingress: BTreeMap<IpAddr, String>,
    /// Chains by the address of the pod that connections come from.
    pub egress: BTreeMap<IpAddr, String>,
    /// By name.
    pub sets: BTreeMap<String, Set>,
}

impl Plan {
    /// Addresses of pods that are isolated in any direction.
    pub fn isolated(&self) -> BTreeSet<IpAddr> {
        self.ingress.keys().chain(self.egress.keys()).copied().collect()
    }
}

/// The plan for pods of this node under the policies of the cluster.
pub fn plan<'a>(policies: &[Policy], pods: impl IntoIterator<Item = &'a Pod>) -> Plan {
    let mut by_namespace: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, policy) in policies.iter().enumerate() {
        by_namespace.entry(&policy.namespace).or_default().push(index);
    }
    let mut plan = Plan::default();
    // Chains by the policies they are made from: most pods of a namespace are under the same.
    let mut made: BTreeMap<(Direction, Family, Vec<usize>), Option<String>> = BTreeMap::new();
    for pod in pods {
        let here = by_namespace.get(&*pod.metadata.namespace).into_iter().flatten().copied();
        let selecting = here.filter(|index| matches(&policies[*index].pods, &pod.labels)).collect::<Vec<_>>();
        for direction in [Direction::Ingress, Direction::Egress] {
            let speaks = |index: &usize| rules_of(&policies[*index], direction).is_some();
            let isolating = selecting.iter().copied().filter(speaks).collect::<Vec<_>>();
            if isolating.is_empty() {
                continue;
            }
            for address in &pod.addresses {
                let family = Family::of(*address);
                let chain =
                    made.entry((direction, family, isolating.clone())).or_insert_with_key(|(_, _, isolating)| {
                        let policies = isolating.iter().map(|index| &policies[*index]);
                        chain(&mut plan, policies, direction, family)
                    });
                let Some(chain) = chain.clone() else { continue };
                let map = match direction {
                    Direction::Ingress => &mut plan.ingress,
                    Direction::Egress => &mut plan.egress,
                };
                map.insert(*address, chain);
            }
        }
    }
    plan
}

fn rules_of(policy: &Policy, direction: Direction) -> Option<&Vec<Allow>> {
    match direction {
        Direction::Ingress => policy.ingress.as_ref(),
        Direction::Egress => policy.egress.as_ref(),
    }
}

/// Adds the chain of these policies and its sets; returns its name, or nothing where everything may pass.
fn chain<'a>(
    plan: &mut Plan,
    policies: impl Iterator<Item = &'a Policy>,
    direction: Direction,
    family: Family,
) -> Option<String> {
    let (mut rules, mut sets) = (BTreeSet::new(), BTreeMap::new());
    for policy in policies {
        for allow in rules_of(policy, direction).into_iter().flatten() {
            rules.extend(rules_for(policy, allow, direction, family, &mut sets));
        }
    }
    if rules.contains(&Rule { peer: None, port: Port::Any }) {
        return None;
    }
    let chain = Chain { family, direction, rules: rules.into_iter().collect() };
    let prefix = match direction {
        Direction::Ingress => "to",
        Direction::Egress => "from",
    };
    let name = name(prefix, family, &format!("{:?}", chain.rules));
    plan.sets.extend(sets);
    plan.chains.insert(name.clone(), chain);
    Some(name)
}

type Sets = BTreeMap<String, Set>;

/// One part of a policy as rules: a rule for each way to be one of its peers, with each of its ports.
fn rules_for(policy: &Policy, allow: &Allow, direction: Direction, family: Family, sets: &mut Sets) -> Vec<Rule> {
    let peers = peer_sets(&allow.peers, family, sets);
    let mut rules = Vec::new();
    let (numbers, named) = match &allow.ports {
        Ports::All => {
            rules.extend(peers.into_iter().map(|peer| Rule { peer, port: Port::Any }));
            return rules;
        }
        Ports::Of { numbers, named } => (numbers, named),
    };
    for peer in &peers {
        rules.extend(numbers.iter().map(|range| Rule { peer: peer.clone(), port: Port::In(*range) }));
    }
    for (protocol, name) in named {
        let with_ports = |pods: Vec<Selector>, sets: &mut Sets| {
            add_set(sets, family, Members::Ports { pods, protocol: *protocol, name: name.clone() })
        };
        match (direction, &allow.peers) {
            // The name is that of a port of the policy's own pods.
            (Direction::Ingress, _) => {
                let own = Selector { scope: Scope::Namespace(policy.namespace.clone()), pods: policy.pods.clone() };
                let set = with_ports(vec![own], sets);
                rules.extend(peers.iter().map(|peer| Rule { peer: peer.clone(), port: Port::Named(set.clone()) }));
            }
            // That of the peer's. Addresses of a block have no ports with names.
            (Direction::Egress, Peers::Anyone) => {
                let everyone = LabelSelector::everything();
                let all = Selector { scope: Scope::Matching(everyone.clone()), pods: everyone };
                rules.push(Rule { peer: None, port: Port::Named(with_ports(vec![all], sets)) });
            }
            (Direction::Egress, Peers::Of { pods, .. }) if !pods.is_empty() => {
                rules.push(Rule { peer: None, port: Port::Named(with_ports(pods.clone(), sets)) });
            }
            (Direction::Egress, Peers::Of { .. }) => {}
        }
    }
    rules
}

/// The sets a peer may be in: any of them will do. `None` stands for everyone.
fn peer_sets(peers: &Peers, family: Family, sets: &mut Sets) -> Vec<Option<String>> {
    let (pods, blocks) = match peers {
        Peers::Anyone => return vec![None],
        Peers::Of { pods, blocks } => (pods, blocks),
    };
    let mut found = Vec::new();
    if !pods.is_empty() {
        found.push(Some(add_set(sets, family, Members::Pods(pods.clone()))));
    }
    let blocks = blocks.iter().copied().filter(|(first, _)| Family::of(*first) == family).collect::<Vec<_>>();
    if !blocks.is_empty() {
        found.push(Some(add_set(sets, family, Members::Blocks(blocks))));
    }
    found
}

fn add_set(sets: &mut Sets, family: Family, members: Members) -> String {
    let texts = |selectors: &[Selector]| selectors.iter().map(Selector::text).collect::<Vec<_>>();
    let name = match &members {
        Members::Pods(pods) => name("pods", family, &format!("{:?}", texts(pods))),
        Members::Ports { pods, protocol, name: port } => {
            name("ports", family, &format!("{:?} {} {port}", texts(pods), protocol.name()))
        }
        Members::Blocks(ranges) => name("blocks", family, &format!("{ranges:?}")),
    };
    sets.entry(name.clone()).or_insert(Set { family, members });
    name
}

/// At most 31 bytes, which any kernel takes.
fn name(prefix: &str, family: Family, what: &str) -> String {
    let digest = Sha256::digest(what.as_bytes());
    let hash = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{prefix}{}-{hash}", family.digit())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
