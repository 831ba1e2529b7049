//! The horizontal pod autoscaler: every 15 seconds it reads each autoscaler's metrics and sets its target's scale.

pub mod limits;
mod metrics;
mod proposal;
pub mod replicas;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::selector::LabelSelector;
use api_client::events::ObjectReference;
use api_client::{Cache, Client, GroupVersionResource, ListParams, ObjectKey, Patch};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition as Condition, HorizontalPodAutoscalerSpec,
};
use limits::{Bounds, Memory};
use proposal::{Failure, Proposal, Target};
use replicas::Tolerances;
use serde_json::{Value, json};

use super::served::{Scale, ServedResources, Whole};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};

/// Pause between two looks at an autoscaler (`--horizontal-pod-autoscaler-sync-period`).
const PERIOD: Duration = Duration::from_secs(15);
/// Where the autoscaler says nothing else (`--horizontal-pod-autoscaler-tolerance`).
const TOLERANCE: f64 = 0.1;

pub struct HorizontalPodAutoscalers {
    client: Client,
    autoscalers: Cache<HorizontalPodAutoscaler>,
    served: ServedResources,
    memories: Mutex<HashMap<ObjectKey, Memory>>,
}

impl HorizontalPodAutoscalers {
    pub fn new(client: &Client, caches: &Caches) -> Self {
        let served = ServedResources::new(client);
        Self { client: client.clone(), autoscalers: caches.get(), served, memories: Mutex::default() }
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<ObjectKey, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Controller for HorizontalPodAutoscalers {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        // Not its status: each round writes that, and the next round is for the clock to start.
        inputs.primary_when(&self.autoscalers, |change| generation(&change.old) != generation(&change.new));
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] =
            &[Output::exclusive("autoscaling", "horizontalpodautoscalers/status"), Output::shared("*", "*/scale")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(autoscaler) = self.autoscalers.get(key) else {
            self.memories().remove(key);
            return Ok(Done::Settled);
        };
        let mut round = Round::new(&autoscaler, work);
        self.round(key, &mut round).await;
        round.write(key).await?;
        Ok(Done::After(PERIOD))
    }
}

fn generation(autoscaler: &Option<Arc<HorizontalPodAutoscaler>>) -> Option<i64> {
    autoscaler.as_ref().map(|autoscaler| autoscaler.metadata.generation.unwrap_or_default())
}

/// One look at one autoscaler; failures are told in its conditions and events, and the next look follows anyway.
struct Round<'a> {
    autoscaler: &'a HorizontalPodAutoscaler,
    spec: HorizontalPodAutoscalerSpec,
    conditions: Vec<Condition>,
    /// Current and desired replicas, once known.
    replicas: Option<(i32, i32)>,
    metrics: Option<Vec<Value>>,
    rescaled: bool,
    work: &'a Work,
    now: Timestamp,
}

impl<'a> Round<'a> {
    fn new(autoscaler: &'a HorizontalPodAutoscaler, work: &'a Work) -> Self {
        Self {
            autoscaler,
            spec: autoscaler.spec.clone(),
            conditions: autoscaler.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default(),
            replicas: None,
            metrics: None,
            rescaled: false,
            work,
            now: work.now(),
        }
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let known = self.conditions.iter().position(|c| c.type_ == kind);
        let index = known.unwrap_or_else(|| {
            self.conditions.push(Condition { type_: kind.to_owned(), ..Condition::default() });
            self.conditions.len() - 1
        });
        let condition = &mut self.conditions[index];
        if condition.status != status {
            condition.last_transition_time = Some(self.now.into());
        }
        condition.status = status.to_owned();
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }

    fn warn(&self, reason: &str, message: impl Into<String>) {
        self.work.recorder().warning(ObjectReference::to(self.autoscaler), reason, message);
    }

    fn cannot_get_scale(&mut self, why: &str) {
        self.warn("FailedGetScale", why);
        let message = format!("the HPA controller was unable to get the target's current scale: {why}");
        self.set("AbleToScale", false, "FailedGetScale", message);
    }

    fn tolerances(&self) -> Tolerances {
        let behavior = self.spec.behavior.as_ref();
        let of = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
            let text = &rules?.tolerance.as_ref()?.0;
            Some(api::quantity::Quantity::parse(text).ok()?.milli_value() as f64 / 1000.0)
        };
        Tolerances {
            down: of(behavior.and_then(|b| b.scale_down.as_ref())).unwrap_or(TOLERANCE),
            up: of(behavior.and_then(|b| b.scale_up.as_ref())).unwrap_or(TOLERANCE),
        }
    }

    async fn write(self, key: &ObjectKey) -> Result<(), Error> {
        let old = json!(self.autoscaler.status.clone().unwrap_or_default());
        let mut status = json!({"conditions": self.conditions});
        if let Some((current, desired)) = self.replicas {
            status["currentReplicas"] = current.into();
            status["desiredReplicas"] = desired.into();
            status["observedGeneration"] = json!(self.autoscaler.metadata.generation);
            status["currentMetrics"] = json!(self.metrics);
        }
        if self.rescaled {
            status["lastScaleTime"] = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
        }
        let same = status
            .as_object()
            .into_iter()
            .flatten()
            .all(|(field, value)| old.get(field).unwrap_or(&Value::Null) == value);
        if !same {
            let patch = Patch::Merge(json!({"status": status}));
            self.work.patch_status::<HorizontalPodAutoscaler>(key, &patch).await?;
        }
        Ok(())
    }
}

impl HorizontalPodAutoscalers {
    async fn round(&self, key: &ObjectKey, round: &mut Round<'_>) {
        let (gvr, scale) = match self.scale(key, round).await {
            Ok(found) => found,
            Err(why) => return round.cannot_get_scale(&why),
        };
        round.set(
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        let current = scale.spec.replicas;
        self.memories().entry(key.clone()).or_default().first_look(current, round.now);
        let (min, max) = (round.spec.min_replicas.unwrap_or(1), round.spec.max_replicas);
        let (desired, reason) = if current == 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            round.set("ScalingActive", false, "ScalingDisabled", message);
            (0, String::new())
        } else if current > max {
            (max, "Current number of replicas above Spec.MaxReplicas".into())
        } else if current < min {
            (min, "Current number of replicas below Spec.MinReplicas".into())
        } else {
            match self.by_metrics(key, &scale, round).await {
                Some(decided) => decided,
                None => {
                    let desired = round.autoscaler.status.as_ref().map_or(0, |s| s.desired_replicas);
                    round.replicas = Some((current, desired));
                    return;
                }
            }
        };
        round.replicas = Some((current, desired));
        if desired != current {
            self.rescale(key, &gvr, &scale, desired, &reason, round).await;
        }
    }

    async fn scale(&self, key: &ObjectKey, round: &Round<'_>) -> Result<(GroupVersionResource, Scale), String> {
        let target = &round.spec.scale_target_ref;
        let api_version = target.api_version.as_deref().unwrap_or_default();
        let resource = self.served.of_kind(api_version, &target.kind).await.map_err(|e| e.to_string())?;
        let (group, _) = api::meta::split_api_version(api_version);
        let unknown = || format!("no matches for kind {:?} in group {group:?}", target.kind);
        let resource = resource.ok_or_else(unknown)?;
        let target_key = ObjectKey::new(key.namespace.as_str(), target.name.as_str());
        let scale = self.served.scale(&resource, &target_key).await.map_err(|e| e.to_string())?;
        let absent = || format!("{} {:?} not found", resource.qualified(), target.name);
        let scale = scale.ok_or_else(absent)?;
        Ok((resource, scale))
    }

    /// What the metrics ask for, within all limits, and why; `None` when they can't be had.
    async fn by_metrics(&self, key: &ObjectKey, scale: &Scale, round: &mut Round<'_>) -> Option<(i32, String)> {
        let current = scale.spec.replicas;
        let proposal = match self.proposals(key, scale, round).await {
            Ok(proposal) => proposal,
            Err(why) => {
                round.warn("FailedComputeMetricsReplicas", why);
                return None;
            }
        };
        let message = format!("the HPA was able to successfully calculate a replica count from {}", proposal.name);
        round.set("ScalingActive", true, "ValidMetricFound", message);
        let bounds = Bounds {
            current,
            min: round.spec.min_replicas.unwrap_or(1),
            max: round.spec.max_replicas,
            behavior: round.spec.behavior.as_ref(),
            now: round.now,
        };
        let decision = self.memories().entry(key.clone()).or_default().decide(proposal.replicas, &bounds);
        round.set("AbleToScale", true, decision.able.0, decision.able.1);
        round.set("ScalingLimited", decision.limited, decision.limit.0, decision.limit.1);
        let reason = match proposal.replicas {
            wanted if wanted > current => format!("{} above target", proposal.name),
            wanted if wanted < current => "All metrics below target".into(),
            _ => String::new(),
        };
        Some((decision.replicas, reason))
    }

    /// The highest proposal of the metrics. Some may fail as long as the others don't shrink the target.
    async fn proposals(&self, key: &ObjectKey, scale: &Scale, round: &mut Round<'_>) -> Result<Proposal, String> {
        let selector = scale.status.selector.as_str();
        if selector.is_empty() {
            round.warn("SelectorRequired", "selector is required");
            round.set("ScalingActive", false, "InvalidSelector", "the HPA target's scale is missing a selector");
            return Err("selector is required".into());
        }
        if let Err(error) = LabelSelector::parse(selector) {
            let why = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            round.warn("InvalidSelector", why.clone());
            round.set("ScalingActive", false, "InvalidSelector", why.clone());
            return Err(why);
        }
        let params = ListParams::namespace(key.namespace.as_str()).labels(selector);
        let pods = self.client.api_at::<Whole>(GroupVersionResource::of::<crate::objects::Pod>()).list(&params).await;
        let pods: Vec<Value> = pods.map_err(|e| e.to_string())?.items.into_iter().map(|whole| whole.object).collect();
        let target = Target {
            client: &self.client,
            served: &self.served,
            namespace: &key.namespace,
            selector,
            pods: &pods,
            spec_replicas: scale.spec.replicas,
            status_replicas: scale.status.replicas,
            tolerances: round.tolerances(),
            now: round.now,
        };
        let metrics = json!(round.spec.metrics);
        let metrics = metrics.as_array().cloned().unwrap_or_default();
        let (mut best, mut failures, mut statuses) = (None::<Proposal>, Vec::<Failure>::new(), Vec::new());
        for metric in &metrics {
            match target.propose(metric).await {
                Ok(proposal) => {
                    statuses.push(proposal.status.clone());
                    if best.as_ref().is_none_or(|b| b.replicas == 0 || proposal.replicas > b.replicas) {
                        best = Some(proposal);
                    }
                }
                Err(failed) => {
                    round.warn(failed.reason, failed.why.clone());
                    // Statuses are matched with metrics by their place.
                    statuses.push(json!({"type": ""}));
                    failures.push(failed);
                }
            }
        }
        round.metrics = Some(statuses).filter(|s| !s.is_empty());
        let shrinks = best.as_ref().is_none_or(|b| b.replicas < scale.spec.replicas);
        match (failures.first(), best) {
            (None, Some(best)) => Ok(best),
            (Some(_), Some(best)) if !shrinks => Ok(best),
            (Some(first), _) => {
                let message = format!("the HPA was unable to compute the replica count: {}", first.why);
                round.set("ScalingActive", false, first.reason, message);
                let (invalid, all) = (failures.len(), metrics.len());
                Err(format!("invalid metrics ({invalid} invalid out of {all}), first error is: {}", first.told))
            }
            (None, None) => Err("no metrics".into()),
        }
    }

    async fn rescale(
        &self,
        key: &ObjectKey,
        gvr: &GroupVersionResource,
        scale: &Scale,
        desired: i32,
        reason: &str,
        round: &mut Round<'_>,
    ) {
        let current = scale.spec.replicas;
        let target = ObjectKey::new(key.namespace.as_str(), round.spec.scale_target_ref.name.as_str());
        let patch =
            json!({"metadata": {"resourceVersion": scale.metadata.resource_version}, "spec": {"replicas": desired}});
        let written = match round.work.subresource_api(gvr, "scale") {
            Ok(api) => {
                api.patch_with(&target, "scale", &Patch::Merge(patch), &Default::default()).await.map_err(Error::from)
            }
            Err(e) => Err(e),
        };
        if let Err(error) = written {
            round.warn("FailedRescale", format!("New size: {desired}; reason: {reason}; error: {error}"));
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            round.set("AbleToScale", false, "FailedUpdateScale", message);
            let before = round.autoscaler.status.as_ref().map_or(0, |s| s.desired_replicas);
            round.replicas = Some((current, before));
            return;
        }
        let message = format!("the HPA controller was able to update the target scale to {desired}");
        round.set("AbleToScale", true, "SucceededRescale", message);
        let message = format!("New size: {desired}; reason: {reason}");
        round.work.recorder().normal(ObjectReference::to(round.autoscaler), "SuccessfulRescale", message);
        let behavior = round.spec.behavior.as_ref();
        self.memories().entry(key.clone()).or_default().scaled(current, desired, behavior, round.now);
        round.rescaled = true;
    }
}
