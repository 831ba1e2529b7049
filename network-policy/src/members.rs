//! Who is in each set, kept up with the pods of the cluster: a pod that comes, changes or goes costs one look per set,
//! however many pods there are. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api_client::Meta;

use crate::objects::{Pod, Protocol};
use crate::plan::{Family, Members, Set};
use crate::policy::Selector;
use crate::ranges::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    Address(IpAddr),
    Port(IpAddr, Protocol, u16),
    Range(Range),
}

/// Labels of a namespace, by its name.
pub trait Namespaces {
    fn meta(&self, name: &str) -> Option<&Meta>;
}

impl Namespaces for BTreeMap<String, Meta> {
    fn meta(&self, name: &str) -> Option<&Meta> {
        self.get(name)
    }
}

#[derive(Clone, Debug)]
struct Filled {
    set: Set,
    /// How many pods stand behind each element: an address may be used again before its last pod is seen to be gone.
    elements: BTreeMap<Element, u32>,
    /// Changes not yet taken. An element is in one of them at most.
    added: BTreeSet<Element>,
    removed: BTreeSet<Element>,
}

/// Elements that a set gained and lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    pub added: BTreeSet<Element>,
    pub removed: BTreeSet<Element>,
}

/// All sets in use.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    sets: BTreeMap<String, Filled>,
}

impl Filled {
    fn new<'a>(set: Set, pods: impl Iterator<Item = &'a Pod>, namespaces: &impl Namespaces) -> Self {
        let mut filled = Self { set, elements: BTreeMap::new(), added: BTreeSet::new(), removed: BTreeSet::new() };
        if let Members::Blocks(ranges) = &filled.set.members {
            filled.elements = ranges.iter().map(|range| (Element::Range(*range), 1)).collect();
            return filled;
        }
        for pod in pods {
            for element in elements(&filled.set, pod, namespaces) {
                *filled.elements.entry(element).or_default() += 1;
            }
        }
        filled
    }

    fn add(&mut self, element: Element) {
        let count = self.elements.entry(element).or_default();
        *count += 1;
        if *count == 1 && !self.removed.remove(&element) {
            self.added.insert(element);
        }
    }

    fn remove(&mut self, element: Element) {
        let Entry::Occupied(mut entry) = self.elements.entry(element) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
            if !self.added.remove(&element) {
                self.removed.insert(element);
            }
        }
    }
}

/// What a pod brings to a set.
fn elements(set: &Set, pod: &Pod, namespaces: &impl Namespaces) -> Vec<Element> {
    let selected = |selectors: &[Selector]| selectors.iter().any(|one| one.matches(pod, |name| namespaces.meta(name)));
    let addresses = || pod.addresses.iter().copied().filter(|address| Family::of(*address) == set.family);
    match &set.members {
        Members::Blocks(_) => Vec::new(),
        Members::Pods(pods) if addresses().next().is_some() && selected(pods) => {
            addresses().map(Element::Address).collect()
        }
        Members::Ports { pods, protocol, name } => {
            let named = pod.ports.iter().filter(|port| port.protocol == *protocol && *port.name == **name);
            let mut numbers = named.map(|port| port.number).collect::<Vec<_>>();
            if numbers.is_empty() || !selected(pods) {
                return Vec::new();
            }
            numbers.sort_unstable();
            numbers.dedup();
            let ports = |address| numbers.iter().map(move |number| Element::Port(address, *protocol, *number));
            addresses().flat_map(ports).collect()
        }
        Members::Pods(_) => Vec::new(),
    }
}

impl Membership {
    /// Holds these sets and no others; those that are new are filled. Changes of all others stay to be taken.
    pub fn hold<'a, I>(&mut self, sets: &BTreeMap<String, Set>, pods: impl Fn() -> I, namespaces: &impl Namespaces)
    where
        I: Iterator<Item = &'a Pod>,
    {
        self.sets.retain(|name, _| sets.contains_key(name));
        for (name, set) in sets {
            self.sets.entry(name.clone()).or_insert_with(|| Filled::new(set.clone(), pods(), namespaces));
        }
    }

    /// A pod was `old` and is `new`. The labels of its namespace are the same for both.
    pub fn replace(&mut self, old: Option<&Pod>, new: Option<&Pod>, namespaces: &impl Namespaces) {
        for filled in self.sets.values_mut() {
            let of = |pod: Option<&Pod>| pod.map_or_else(Vec::new, |pod| elements(&filled.set, pod, namespaces));
            let (before, after) = (of(old), of(new));
            if before == after {
                continue;
            }
            after.into_iter().for_each(|element| filled.add(element));
            before.into_iter().for_each(|element| filled.remove(element));
        }
    }

    /// Counts every set again: after changes that were missed, or of labels of namespaces.
    pub fn recount<'a, I>(&mut self, pods: impl Fn() -> I, namespaces: &impl Namespaces)
    where
        I: Iterator<Item = &'a Pod>,
    {
        for filled in self.sets.values_mut() {
            let fresh = Filled::new(filled.set.clone(), pods(), namespaces);
            let had = filled.elements.keys().copied().collect::<BTreeSet<_>>();
            let has = fresh.elements.keys().copied().collect::<BTreeSet<_>>();
            for element in has.difference(&had) {
                if !filled.removed.remove(element) {
                    filled.added.insert(*element);
                }
            }
            for element in had.difference(&has) {
                if !filled.added.remove(element) {
                    filled.removed.insert(*element);
                }
            }
            filled.elements = fresh.elements;
        }
    }

    pub fn elements(&self, set: &str) -> impl Iterator<Item = Element> {
        self.sets.get(set).into_iter().flat_map(|filled| filled.elements.keys().copied())
    }

    /// Changes since they were last taken, of sets that had any.
    pub fn deltas(&self) -> impl Iterator<Item = (&str, Delta)> {
        let changed = self.sets.iter().filter(|(_, filled)| !filled.added.is_empty() || !filled.removed.is_empty());
        changed.map(|(name, filled)| {
            (name.as_str(), Delta { added: filled.added.clone(), removed: filled.removed.clone() })
        })
    }

    /// The kernel has all of it now.
    pub fn settle(&mut self) {
        for filled in self.sets.values_mut() {
            filled.added.clear();
            filled.removed.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use api::selector::LabelSelector;

    use super::*;
    use crate::objects::{NamedPort, PodMeta};
    use crate::policy::Scope;

    fn pod(name: &str, labels: &[(&str, &str)], address: &str) -> Pod {
        Pod {
            metadata: PodMeta { name: name.into(), namespace: "n".into(), ..PodMeta::default() },
            labels: labels.iter().copied().collect(),
            addresses: [address.parse().unwrap()].into(),
            ports: [NamedPort { name: "http".into(), protocol: Protocol::Tcp, number: 80 }].into(),
            ..Pod::default()
        }
    }

    fn selector(scope: Scope, pods: &str) -> Vec<Selector> {
        vec![Selector { scope, pods: LabelSelector::parse(pods).unwrap() }]
    }

    fn sets() -> BTreeMap<String, Set> {
        let own = selector(Scope::Namespace("n".into()), "app=web");
        let labelled = selector(Scope::Matching(LabelSelector::parse("team=a").unwrap()), "");
        let set = |members| Set { family: Family::V4, members };
        [
            ("web".to_owned(), set(Members::Pods(own.clone()))),
            ("team".to_owned(), set(Members::Pods(labelled))),
            ("http".to_owned(), set(Members::Ports { pods: own, protocol: Protocol::Tcp, name: "http".into() })),
        ]
        .into()
    }

    fn namespaces(team: &str) -> BTreeMap<String, Meta> {
        let labels = [("team".to_owned(), team.to_owned())].into();
        [("n".to_owned(), Meta { labels, ..Meta::default() })].into()
    }

    fn deltas(membership: &mut Membership) -> String {
        let line = |(name, delta): (&str, Delta)| format!("{name} +{} -{}", delta.added.len(), delta.removed.len());
        let text = membership.deltas().map(line).collect::<Vec<_>>().join(", ");
        membership.settle();
        text
    }

    #[test]
    fn a_pod_that_comes_changes_and_goes_is_followed() {
        let mut membership = Membership::default();
        let a = pod("a", &[("app", "web")], "10.0.0.1");
        membership.hold(&sets(), || std::iter::once(&a), &namespaces("a"));
        assert_eq!(membership.elements("web").count() + membership.elements("http").count(), 2);
        assert_eq!(deltas(&mut membership), "", "what a new set has is no change of it");
        let b = pod("b", &[], "10.0.0.2");
        membership.replace(None, Some(&b), &namespaces("a"));
        assert_eq!(deltas(&mut membership), "team +1 -0");
        let b_is_web = pod("b", &[("app", "web")], "10.0.0.2");
        membership.replace(Some(&b), Some(&b_is_web), &namespaces("a"));
        assert_eq!(deltas(&mut membership), "http +1 -0, web +1 -0");
        membership.replace(Some(&b_is_web), None, &namespaces("a"));
        assert_eq!(deltas(&mut membership), "http +0 -1, team +0 -1, web +0 -1");
    }

    #[test]
    fn an_address_used_again_stays_until_its_last_pod_goes() {
        let mut membership = Membership::default();
        let (a, b) = (pod("a", &[("app", "web")], "10.0.0.1"), pod("b", &[("app", "web")], "10.0.0.1"));
        membership.hold(&sets(), || std::iter::once(&a), &namespaces("x"));
        membership.replace(None, Some(&b), &namespaces("x"));
        membership.replace(Some(&a), None, &namespaces("x"));
        assert_eq!(deltas(&mut membership), "");
        membership.replace(Some(&b), None, &namespaces("x"));
        assert_eq!(deltas(&mut membership), "http +0 -1, web +0 -1");
    }

    #[test]
    fn labels_of_a_namespace_are_counted_again() {
        let mut membership = Membership::default();
        let a = pod("a", &[], "10.0.0.1");
        membership.hold(&sets(), || std::iter::once(&a), &namespaces("b"));
        membership.recount(|| std::iter::once(&a), &namespaces("a"));
        assert_eq!(deltas(&mut membership), "team +1 -0");
        // Gone and back before anybody took it is no change.
        membership.recount(|| std::iter::once(&a), &namespaces("b"));
        membership.recount(|| std::iter::once(&a), &namespaces("a"));
        assert_eq!(deltas(&mut membership), "");
    }

    #[test]
    fn of_a_set_only_its_family_counts() {
        let mut membership = Membership::default();
        let a = pod("a", &[("app", "web")], "fd00::1");
        membership.hold(&sets(), || std::iter::once(&a), &namespaces("a"));
        assert_eq!(sets().keys().map(|set| membership.elements(set).count()).sum::<usize>(), 0);
    }
}
