//! What the engine knows, and the plan that follows: policies, namespaces, the pods of the cluster, and what the agent
//! told of its own. Pure: it neither waits nor calls anybody.
//!
//! Everything that sets are counted from is held here and changes only together with the counts, whatever the caches
//! have seen meanwhile.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use api_client::{Meta, Snapshot};

use crate::members::{Membership, Namespaces};
use crate::objects::{Namespace, NetworkPolicy, Pod};
use crate::plan::{Plan, plan};
use crate::policy::Policy;

/// A pod that the sets are counted from, found by its uid.
#[derive(Clone, Debug)]
struct Counted(Arc<Pod>);

impl Borrow<str> for Counted {
    fn borrow(&self) -> &str {
        &self.0.metadata.uid
    }
}
impl Hash for Counted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.metadata.uid.hash(state);
    }
}
impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        self.0.metadata.uid == other.0.metadata.uid
    }
}
impl Eq for Counted {}

#[derive(Default)]
struct Labels(BTreeMap<String, Meta>);

impl Namespaces for Labels {
    fn meta(&self, name: &str) -> Option<&Meta> {
        self.0.get(name)
    }
}

pub struct State {
    node: String,
    policies: Vec<Policy>,
    namespaces: Labels,
    pods: HashSet<Counted>,
    /// Pods of this node by uid, as the agent told of them: with addresses before the API server has them.
    told: HashMap<String, Arc<Pod>>,
    /// Pods that the agent has taken down and that the API server still has. Their addresses may be others' by now.
    left: HashSet<String>,
    /// Uids of this node's pods among `pods`.
    own: HashSet<String>,
    pub membership: Membership,
    /// Only a plan made anew tells what the kernel should have.
    pub stale: bool,
}

impl State {
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            policies: Vec::new(),
            namespaces: Labels::default(),
            pods: HashSet::new(),
            told: HashMap::new(),
            left: HashSet::new(),
            own: HashSet::new(),
            membership: Membership::default(),
            stale: true,
        }
    }

    pub fn has_policies(&self) -> bool {
        !self.policies.is_empty()
    }

    pub fn set_policies<'a>(&mut self, policies: impl Iterator<Item = &'a NetworkPolicy>) {
        self.policies = policies.map(Policy::read).collect();
        self.stale = true;
    }

    pub fn set_namespaces(&mut self, namespaces: &Snapshot<Namespace>) {
        let fresh = namespaces.iter().map(|namespace| (namespace.metadata.name.clone(), namespace.metadata.clone()));
        let fresh = fresh.collect::<BTreeMap<_, _>>();
        let same = fresh.len() == self.namespaces.0.len()
            && fresh
                .iter()
                .all(|(name, meta)| self.namespaces.0.get(name).is_some_and(|had| had.labels == meta.labels));
        if same {
            return;
        }
        self.namespaces = Labels(fresh);
        self.membership.recount(|| self.pods.iter().map(|counted| &*counted.0), &self.namespaces);
    }

    /// All pods anew: at the start, and after changes that were missed.
    pub fn set_pods(&mut self, pods: &Snapshot<Pod>) {
        self.left.retain(|uid| pods.iter().any(|pod| *pod.metadata.uid == **uid));
        let here = pods.iter().filter(|pod| !self.left.contains(&*pod.metadata.uid));
        self.pods = here.cloned().map(Counted).collect();
        for told in self.told.values() {
            let known = self.pods.get(&*told.metadata.uid);
            if known.is_none_or(|known| known.0.addresses.is_empty()) {
                self.pods.replace(Counted(told.clone()));
            }
        }
        let own = self.pods.iter().filter(|counted| *counted.0.node == *self.node);
        self.own = own.map(|counted| counted.0.metadata.uid.to_string()).collect();
        self.membership.recount(|| self.pods.iter().map(|counted| &*counted.0), &self.namespaces);
        self.stale = true;
    }

    /// One change of the pods in the API server.
    pub fn change_pod(&mut self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.metadata.uid != old.metadata.uid)) {
            // Gone in the API server, it may still be here; until its agent says otherwise, it is protected.
            let told = self.told.get(&*old.metadata.uid).cloned();
            self.left.remove(&*old.metadata.uid);
            self.count(&old.metadata.uid, told);
        }
        let Some(new) = new.filter(|new| !self.left.contains(&*new.metadata.uid)) else { return };
        let mut effective = new.clone();
        if let Some(told) = self.told.get(&*new.metadata.uid)
            && new.addresses.is_empty()
        {
            // Labels may have changed since the agent told of it.
            effective = Arc::new(Pod { addresses: told.addresses.clone(), ..Pod::clone(new) });
        }
        self.count(&new.metadata.uid, Some(effective));
    }

    /// The agent tells of a pod.
    pub fn come(&mut self, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.to_string();
        let known = self.pods.get(&*uid).map(|counted| counted.0.clone());
        let effective = match known {
            Some(known) => Arc::new(Pod { addresses: pod.addresses.clone(), ..Pod::clone(&known) }),
            None => pod.clone(),
        };
        self.left.remove(&uid);
        self.told.insert(uid.clone(), pod);
        self.count(&uid, Some(effective));
    }

    /// The agent has taken a pod down. What the API server still says of its addresses counts no more.
    pub fn leave(&mut self, uid: &str) {
        self.told.remove(uid);
        if self.pods.contains(uid) {
            self.left.insert(uid.to_owned());
        }
        self.count(uid, None);
    }

    fn count(&mut self, uid: &str, new: Option<Arc<Pod>>) {
        let old = self.pods.take(uid);
        let here = |pod: &Arc<Pod>| *pod.node == *self.node;
        if old.as_ref().is_some_and(|old| here(&old.0)) || new.as_ref().is_some_and(here) {
            let moved = match (&old, &new) {
                (Some(old), Some(new)) => old.0.addresses != new.addresses || old.0.labels != new.labels,
                _ => true,
            };
            self.stale |= moved;
            self.own.remove(uid);
        }
        self.membership.replace(old.as_ref().map(|counted| &*counted.0), new.as_deref(), &self.namespaces);
        if let Some(new) = new {
            if here(&new) {
                self.own.insert(uid.to_owned());
            }
            self.pods.insert(Counted(new));
        }
    }

    /// The plan for all that is known, with its sets counted. `active` is false where another network has taken over.
    pub fn plan(&mut self, active: bool) -> Plan {
        let own = self.own.iter().filter(|_| active).filter_map(|uid| self.pods.get(uid.as_str()));
        let mut own = own.map(|counted| &*counted.0).collect::<Vec<_>>();
        // Of two pods that claim one address the last one counts: the one that the agent told of.
        own.sort_by_key(|pod| (self.told.contains_key(&*pod.metadata.uid), &pod.metadata.uid));
        let plan = plan(&self.policies, own);
        self.membership.hold(&plan.sets, || self.pods.iter().map(|counted| &*counted.0), &self.namespaces);
        self.stale = false;
        plan
    }

    /// Nothing is known of the cluster any more; what the agent told stays.
    pub fn forget_cluster(&mut self) {
        self.pods = self.told.values().cloned().map(Counted).collect();
        self.own = self.told.keys().cloned().collect();
        self.left.clear();
        self.namespaces = Labels::default();
        self.membership = Membership::default();
        self.stale = true;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, labels: &[(&str, &str)], address: Option<&str>) -> Arc<Pod> {
        let mut pod = Pod { labels: labels.iter().copied().collect(), node: node.into(), ..Pod::default() };
        pod.metadata.name = name.into();
        pod.metadata.namespace = "n".into();
        pod.metadata.uid = format!("uid-{name}").into();
        pod.addresses = address.into_iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(pod)
    }

    fn state() -> State {
        let mut state = State::new("here");
        let policy = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {"podSelector": {},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}});
        state.set_policies([serde_json::from_value(policy).unwrap()].iter());
        state
    }

    /// Isolated addresses, and who may come.
    fn shown(state: &mut State) -> String {
        let plan = state.plan(true);
        let isolated = plan.ingress.keys().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let sets = plan.sets.keys().map(|set| state.membership.elements(set).count().to_string());
        format!("{isolated} <- {}", sets.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_pod_is_protected_as_soon_as_the_agent_tells_of_it() {
        let mut state = state();
        state.come(pod("a", "here", &[], Some("10.0.0.1")));
        assert_eq!(shown(&mut state), "10.0.0.1 <- 0");
        // The API server does not know the address yet.
        state.change_pod(None, Some(&pod("a", "here", &[("app", "web")], None)));
        assert!(state.stale, "its labels differ");
        assert_eq!(shown(&mut state), "10.0.0.1 <- 1");
        state.change_pod(None, Some(&pod("a", "here", &[("app", "web")], Some("10.0.0.1"))));
        assert!(!state.stale);
        // Deleted there, still being stopped here.
        state.change_pod(Some(&pod("a", "here", &[("app", "web")], Some("10.0.0.1"))), None);
        assert_eq!(shown(&mut state), "10.0.0.1 <- 0");
        state.leave("uid-a");
        assert_eq!(shown(&mut state), " <- ");
    }

    #[test]
    fn a_pod_that_was_taken_down_claims_no_address() {
        let mut state = state();
        let a = pod("a", "here", &[], Some("10.0.0.1"));
        state.change_pod(None, Some(&a));
        state.leave("uid-a");
        state.change_pod(Some(&a), Some(&a));
        assert_eq!(shown(&mut state), " <- ");
        state.change_pod(Some(&a), None);
        assert!(state.left.is_empty());
    }

    #[test]
    fn pods_of_other_nodes_change_elements_alone() {
        let mut state = state();
        state.come(pod("a", "here", &[], Some("10.0.0.1")));
        assert_eq!(shown(&mut state), "10.0.0.1 <- 0");
        let web = pod("w", "there", &[("app", "web")], Some("10.0.1.1"));
        state.change_pod(None, Some(&web));
        assert!(!state.stale);
        assert_eq!(state.membership.deltas().count(), 1);
        state.change_pod(Some(&web), None);
        assert_eq!((state.stale, state.membership.deltas().count()), (false, 0));
    }

    #[test]
    fn a_list_anew_keeps_what_the_agent_told() {
        let mut state = state();
        state.come(pod("a", "here", &[], Some("10.0.0.1")));
        let listed = [pod("a", "here", &[], None), pod("b", "here", &[], Some("10.0.0.2"))];
        state.set_pods(&Snapshot::of(listed.map(|pod| Pod::clone(&pod)), &[]));
        assert_eq!(shown(&mut state), "10.0.0.1 10.0.0.2 <- 0");
        state.forget_cluster();
        assert_eq!(shown(&mut state), "10.0.0.1 <- 0");
    }

    #[test]
    fn under_another_network_nothing_is_isolated() {
        let mut state = state();
        state.come(pod("a", "here", &[], Some("10.0.0.1")));
        assert!(state.plan(false).ingress.is_empty());
    }
}
