//! Disruption budgets: keeps each budget's count of pods that may go, which the API server's eviction takes from.

pub mod plan;
mod stale;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_client::events::ObjectReference;
use api_client::{Cache, Change, Client, Object, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use plan::Expected;
use serde_json::{Value, json};

use super::served::ServedResources;
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{ControllerRef, Owned, Pod, compile, controller_of, selects};

pub use stale::StaleDisruptions;

pub struct Disruptions {
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    deployments: Cache<Deployment>,
    replica_sets: Cache<ReplicaSet>,
    stateful_sets: Cache<StatefulSet>,
    replication_controllers: Cache<ReplicationController>,
    served: ServedResources,
    /// Pods under several budgets that were told of it, by the budget that tells.
    told: Mutex<HashMap<ObjectKey, HashSet<String>>>,
}

impl Disruptions {
    pub fn new(client: &Client, caches: &Caches) -> Self {
        Self {
            budgets: caches.get(),
            pods: caches.get(),
            deployments: caches.get(),
            replica_sets: caches.get(),
            stateful_sets: caches.get(),
            replication_controllers: caches.get(),
            served: ServedResources::new(client),
            told: Mutex::default(),
        }
    }
}

#[async_trait]
impl Controller for Disruptions {
    fn name(&self) -> &'static str {
        "disruption-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.budgets);
        let budgets = self.budgets.clone();
        inputs.watch(&self.pods, move |change, wake| wake_budgets(&budgets, change, wake));
        inputs.read(&self.deployments);
        inputs.read(&self.replica_sets);
        inputs.read(&self.stateful_sets);
        inputs.read(&self.replication_controllers);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::exclusive("policy", "poddisruptionbudgets/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(budget) = self.budgets.get(key) else {
            self.told().remove(key);
            return Ok(Done::Settled);
        };
        let regarding = ObjectReference::to(&*budget);
        let selector = compile(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
        let pods = self.pods.snapshot();
        let pods: Vec<Arc<Pod>> =
            pods.namespace(&key.namespace).filter(|p| selects(&selector, &***p)).cloned().collect();
        self.tell_of_overlap(key, &pods, work);
        if pods.is_empty() {
            work.recorder().normal(regarding.clone(), "NoPods", "No matching pods found");
        }
        let expected = match plan::needs_scale(&budget) {
            true => self.expected(&pods).await,
            false => Ok(Expected::default()),
        };
        let expected = match expected {
            Ok(expected) => expected,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                work.recorder().warning(regarding, "CalculateExpectedPodCountFailed", message);
                write(&budget, key, plan::failed(&budget, &error.to_string(), work.now()), work).await?;
                return Ok(Done::Settled);
            }
        };
        if !expected.unmanaged.is_empty() {
            let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
            work.recorder().warning(regarding, "UnmanagedPods", unmanaged_message(selector));
        }
        let plan = plan::plan(&budget, &pods, &expected, work.now());
        for pod in &plan.not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            work.recorder().warning(ObjectReference::to(&**pod), "NotDeleted", message);
        }
        write(&budget, key, plan.status, work).await?;
        Ok(Done::after(plan.again))
    }
}

impl Disruptions {
    fn told(&self) -> MutexGuard<'_, HashMap<ObjectKey, HashSet<String>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Warns of pods under several budgets: their eviction is refused (`getPdbForPod`). The first of the budgets tells,
    /// and each pod once.
    fn tell_of_overlap(&self, key: &ObjectKey, pods: &[Arc<Pod>], work: &Work) {
        let budgets = self.budgets.snapshot();
        let all = budgets.namespace(&key.namespace);
        let all: Vec<(String, api::selector::LabelSelector)> =
            all.map(|b| (b.key().name, compile(b.spec.as_ref().and_then(|s| s.selector.as_ref())))).collect();
        let overlapping = plan::under_several(&key.name, pods, &all);
        let now: HashSet<String> = overlapping.iter().map(|pod| pod.metadata.uid.clone()).collect();
        let before = self.told().insert(key.clone(), now).unwrap_or_default();
        for pod in overlapping.iter().filter(|pod| !before.contains(&pod.metadata.uid)) {
            let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
            let chosen = &key.name;
            let message = format!(
                "Pod {namespace:?}/{name:?} matches multiple PodDisruptionBudgets.  Chose {chosen:?} arbitrarily."
            );
            work.recorder().warning(ObjectReference::to(&***pod), "MultiplePodDisruptionBudgets", message);
        }
    }

    /// What the workloads of these pods ask for, each counted once (`getExpectedScale`).
    async fn expected(&self, pods: &[Arc<Pod>]) -> Result<Expected, Error> {
        let mut expected = Expected::default();
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        let mut seen: BTreeMap<String, ()> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = pod.controller() else {
                expected.unmanaged.push(pod.metadata.name.clone());
                continue;
            };
            if seen.insert(owner.uid.to_owned(), ()).is_some() {
                continue;
            }
            let namespace = pod.metadata.namespace.as_str();
            let found = match self.cached_scale(owner, namespace) {
                Some(found) => Some(found),
                None => self.live_scale(owner, namespace).await?,
            };
            let Some((uid, replicas)) = found else {
                let why = format!("found no controllers for pod {:?}", pod.metadata.name);
                return Err(Error::Object { object: "budget".into(), why });
            };
            scales.insert(uid, replicas);
        }
        expected.pods = scales.values().sum();
        Ok(expected)
    }

    /// Of the kinds that are cached anyway; the deployment behind a replica set counts in its place.
    fn cached_scale(&self, owner: ControllerRef<'_>, namespace: &str) -> Option<(String, i32)> {
        let key = ObjectKey::new(namespace, owner.name);
        let of = |uid: &Option<String>, replicas: Option<Option<i32>>| {
            (uid.as_deref() == Some(owner.uid)).then(|| (owner.uid.to_owned(), replicas.flatten().unwrap_or(1)))
        };
        if owner.is::<ReplicationController>() {
            let found = self.replication_controllers.get(&key)?;
            return of(&found.metadata.uid, found.spec.as_ref().map(|s| s.replicas));
        }
        if owner.is::<StatefulSet>() {
            let found = self.stateful_sets.get(&key)?;
            return of(&found.metadata.uid, found.spec.as_ref().map(|s| s.replicas));
        }
        if !owner.is::<ReplicaSet>() {
            return None;
        }
        let set = self.replica_sets.get(&key)?;
        let own = of(&set.metadata.uid, set.spec.as_ref().map(|s| s.replicas))?;
        match controller_of(&set.metadata).filter(|parent| parent.kind == Deployment::KIND) {
            None => Some(own),
            Some(parent) => {
                let deployment = self.deployments.get(&ObjectKey::new(namespace, parent.name.as_str()))?;
                let same = deployment.metadata.uid.as_deref() == Some(&parent.uid);
                let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                same.then(|| (parent.uid.clone(), replicas))
            }
        }
    }

    async fn live_scale(&self, owner: ControllerRef<'_>, namespace: &str) -> Result<Option<(String, i32)>, Error> {
        let Some(resource) = self.served.of_kind(owner.api_version, owner.kind).await? else { return Ok(None) };
        let key = ObjectKey::new(namespace, owner.name);
        match self.served.scale(&resource, &key).await? {
            Some(scale) if scale.metadata.uid == owner.uid => Ok(Some((scale.metadata.uid, scale.spec.replicas))),
            Some(_) => Ok(None),
            None if self.served.exists(&resource, &key).await? => Err(Error::Object {
                object: resource.qualified(),
                why: "does not implement the scale subresource".into(),
            }),
            None => Ok(None),
        }
    }
}

async fn write(
    budget: &PodDisruptionBudget,
    key: &ObjectKey,
    status: PodDisruptionBudgetStatus,
    work: &Work,
) -> Result<(), Error> {
    let old = budget.status.clone().unwrap_or_default();
    if status == old {
        return Ok(());
    }
    let mut value = json!(status);
    // A merge patch drops only what it names.
    let kept = status.disrupted_pods.unwrap_or_default();
    for gone in old.disrupted_pods.unwrap_or_default().into_keys().filter(|name| !kept.contains_key(name)) {
        value["disruptedPods"][gone] = Value::Null;
    }
    let patch = json!({"metadata": {"resourceVersion": budget.metadata.resource_version}, "status": value});
    work.patch_status::<PodDisruptionBudget>(key, &Patch::Merge(patch)).await?;
    Ok(())
}

fn wake_budgets(budgets: &Cache<PodDisruptionBudget>, change: &Change<Pod>, wake: &dyn Fn(ObjectKey)) {
    for budget in budgets.snapshot().namespace(&change.key.namespace) {
        let selector = compile(budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
        if [&change.old, &change.new].into_iter().flatten().any(|pod| selects(&selector, &**pod)) {
            wake(budget.key());
        }
    }
}

/// Upstream's text, with the selector as Go prints it.
fn unmanaged_message(selector: Option<&LabelSelector>) -> String {
    let labels = selector.and_then(|s| s.match_labels.clone()).unwrap_or_default();
    let labels: String = labels.iter().map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions = selector.and_then(|s| s.match_expressions.clone()).unwrap_or_default();
    let expression = |e: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement| {
        let values: Vec<&str> = e.values.iter().flatten().map(String::as_str).collect();
        format!("{{{} {} [{}]}},", e.key, e.operator, values.join(" "))
    };
    let expressions: String = expressions.iter().map(expression).collect();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{{MatchLabels:map[string]string{{{labels}}},\
         MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}) were found to be unmanaged. As a result, the \
         status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these \
         pods please set \".spec.minAvailable\" field of the PDB to an integer value."
    )
}
