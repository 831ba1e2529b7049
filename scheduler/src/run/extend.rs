//! Decisions in which extenders have a say. The scheduler waits for them, as upstream does: what they answer is about
//! the picture they were asked about.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_client::{Client, Error as ApiError, ListParams, Object};
use k8s_openapi::api::core::v1 as core;
use serde_json::{Value, json};
use tracing::warn;

use super::Scheduler;
use super::write::Nomination;
use crate::config::{Extender, Profile};
use crate::cycle::{self, Failure, Fitting};
use crate::extender::{self, Nodes, Speaker, Victim, Victims};
use crate::objects::Pod;
use crate::plugins::{Context, Plugin, SCORE_MAX};
use crate::preemption::{self, Candidate, Outcome};
use crate::verdict::Refusal;

/// Extenders score up to this (`MaxExtenderPriority`).
const EXTENDER_SCORE_MAX: i64 = 10;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Extender(#[from] extender::Error),
    #[error("reading what extenders are asked about: {0}")]
    Api(#[from] ApiError),
    #[error("writing down what extenders are asked about: {0}")]
    Encode(#[from] serde_json::Error),
}

impl Scheduler {
    /// One decision about a pod that extenders are interested in.
    pub(super) async fn decide_extended(&mut self, profile: &Profile, pod: &Arc<Pod>) {
        let config = Arc::clone(&self.config);
        let mut fitting = match cycle::feasible(pod, &config, profile, &mut self.cluster, &mut self.start) {
            Ok(fitting) => fitting,
            Err(failure) => return self.failed_extended(profile, pod, failure).await,
        };
        let asker = Asker { client: self.client.clone(), speaker: self.extenders.clone() };
        let extra = match self.ask(&asker, pod, &mut fitting).await {
            Ok(extra) => extra,
            Err(error) => {
                warn!(pod = %pod.key(), %error, "an extender failed");
                self.report(profile, pod, "SchedulerError", error.to_string(), Nomination::Keep);
                return self.queue.failed(&pod.metadata.uid, std::time::Instant::now());
            }
        };
        let chosen = {
            let context = Context { pod, profile, cluster: &self.cluster };
            cycle::choose(&context, &fitting, &extra, self.decisions)
                .map(|slot| cycle::choice(&context, &fitting.state, slot))
        };
        match chosen {
            None => {
                let failure = Failure { error: fitting.error, state: Some(fitting.state) };
                self.failed_extended(profile, pod, failure).await;
            }
            Some(Ok(choice)) => self.bind(profile, pod, choice),
            Some(Err(failure)) => self.failed(profile, pod, failure),
        }
    }

    /// Lets extenders drop nodes, then score the rest (`findNodesThatPassExtenders`, `prioritizeNodes`).
    async fn ask(&mut self, asker: &Asker, pod: &Arc<Pod>, fitting: &mut Fitting) -> Result<Vec<i64>, Error> {
        let config = Arc::clone(&self.config);
        let interested: Vec<&Extender> = config.extenders.iter().filter(|e| e.is_interested(pod)).collect();
        if fitting.slots.is_empty() {
            return Ok(Vec::new());
        }
        let object = asker.pod(pod).await?;
        for extender in interested.iter().filter(|e| !e.filter_verb.is_empty()) {
            let names = self.names(fitting);
            let nodes = asker.nodes(extender, &names).await?;
            match asker.speaker.filter(extender, &object, &nodes).await {
                Ok(answer) => self.drop_nodes(fitting, answer),
                Err(error) if extender.is_ignorable => warn!(%error, "an extender failed and is ignored"),
                Err(error) => return Err(error.into()),
            }
        }
        let names = self.names(fitting);
        let mut extra = vec![0; names.len()];
        for extender in interested.iter().filter(|e| !e.prioritize_verb.is_empty() && names.len() > 1) {
            let nodes = asker.nodes(extender, &names).await?;
            match asker.speaker.prioritize(extender, &object, &nodes).await {
                Ok(scores) => {
                    for (extra, name) in extra.iter_mut().zip(&names) {
                        let score = scores.get(name).copied().unwrap_or_default();
                        *extra += score * extender.weight * (SCORE_MAX / EXTENDER_SCORE_MAX);
                    }
                }
                // Scores are a wish: upstream goes on without them.
                Err(error) => warn!(%error, "an extender did not score"),
            }
        }
        Ok(extra)
    }

    fn names(&self, fitting: &Fitting) -> Vec<String> {
        let name = |slot: &u32| self.cluster.info(*slot).node.as_ref().map(|n| n.metadata.name.clone());
        fitting.slots.iter().filter_map(name).collect()
    }

    fn drop_nodes(&self, fitting: &mut Fitting, answer: extender::Filtered) {
        let mut kept = Vec::new();
        for slot in std::mem::take(&mut fitting.slots) {
            let name = self.cluster.info(slot).node.as_ref().map(|n| n.metadata.name.clone()).unwrap_or_default();
            let (reason, resolvable) = match (answer.failed_for_good.get(&name), answer.failed.get(&name)) {
                (Some(reason), _) => (Some(reason.clone()), false),
                (None, Some(reason)) => (Some(reason.clone()), true),
                (None, None) if answer.fitting.contains(&name) => {
                    kept.push(slot);
                    continue;
                }
                (None, None) => (None, false),
            };
            let reasons = reason.into_iter().map(Into::into).collect();
            fitting.error.count(slot, Refusal { plugin: Plugin::Extender, reasons, resolvable });
        }
        fitting.slots = kept;
    }

    /// Like [`Scheduler::failed`], with extenders choosing among the candidates for preemption.
    async fn failed_extended(&mut self, profile: &Profile, pod: &Arc<Pod>, failure: Failure) {
        let config = Arc::clone(&self.config);
        let choosing: Vec<&Extender> =
            config.extenders.iter().filter(|e| !e.preempt_verb.is_empty() && e.is_interested(pod)).collect();
        let candidates = {
            let context = Context { pod, profile, cluster: &self.cluster };
            preemption::candidates(&context, &failure, self.decisions)
        };
        let (Ok(candidates), false) = (candidates, choosing.is_empty()) else {
            return self.failed(profile, pod, failure);
        };
        let asker = Asker { client: self.client.clone(), speaker: self.extenders.clone() };
        let outcome = match self.choose_victims(&asker, pod, &choosing, candidates).await {
            Ok(candidates) => preemption::best(&Context { pod, profile, cluster: &self.cluster }, candidates),
            Err(error) => Outcome::Wait(error.to_string()),
        };
        self.failed_with(profile, pod, failure, Some(outcome));
    }

    /// `callExtenders`.
    async fn choose_victims(
        &mut self,
        asker: &Asker,
        pod: &Arc<Pod>,
        extenders: &[&Extender],
        candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, Error> {
        let object = asker.pod(pod).await?;
        let mut by_node: BTreeMap<String, Candidate> = BTreeMap::new();
        for candidate in candidates {
            if let Some(node) = &self.cluster.info(candidate.slot).node {
                by_node.insert(node.metadata.name.clone(), candidate);
            }
        }
        for extender in extenders {
            let said = by_node.iter().map(|(node, candidate)| {
                let pods = candidate.victims.iter().map(|v| Victim { uid: v.metadata.uid.clone() }).collect();
                (node.clone(), Victims { pods, violations: candidate.violations })
            });
            let said: BTreeMap<String, Victims> = said.collect();
            match asker.speaker.preempt(extender, &object, &said).await {
                Ok(answer) => by_node = self.narrowed(by_node, answer),
                Err(error) if extender.is_ignorable => warn!(%error, "an extender failed and is ignored"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(by_node.into_values().collect())
    }

    /// Candidates as an extender left them: it may choose other victims among a node's pods.
    fn narrowed(
        &self,
        mut candidates: BTreeMap<String, Candidate>,
        answer: BTreeMap<String, Victims>,
    ) -> BTreeMap<String, Candidate> {
        let mut out = BTreeMap::new();
        for (node, victims) in answer {
            let Some(mut candidate) = candidates.remove(&node) else { continue };
            let here = &self.cluster.info(candidate.slot).pods;
            let chosen = |pod: &&Arc<Pod>| victims.pods.iter().any(|v| v.uid == pod.metadata.uid);
            candidate.victims = here.iter().filter(chosen).cloned().collect();
            candidate.victims.sort_by_key(|pod| std::cmp::Reverse(pod.priority));
            candidate.violations = victims.violations;
            if !candidate.victims.is_empty() {
                out.insert(node, candidate);
            }
        }
        out
    }
}

/// What questions to extenders need.
struct Asker {
    client: Client,
    speaker: Speaker,
}

impl Asker {
    async fn pod(&self, pod: &Arc<Pod>) -> Result<Value, Error> {
        Ok(serde_json::to_value(self.client.api::<core::Pod>().get(&pod.key()).await?)?)
    }

    /// What an extender is told of the nodes: their names, or everything, read from the server for each question.
    async fn nodes<'a>(&self, extender: &Extender, names: &'a [String]) -> Result<Nodes<'a>, Error> {
        if extender.knows_nodes {
            return Ok(Nodes::Names(names));
        }
        let all = self.client.api::<core::Node>().list(&ListParams::default()).await?;
        let asked = |n: &core::Node| n.metadata.name.as_ref().is_some_and(|name| names.contains(name));
        let items: Vec<core::Node> = all.items.into_iter().filter(asked).collect();
        Ok(Nodes::Objects(json!({ "apiVersion": "v1", "kind": "NodeList", "metadata": {}, "items": items })))
    }
}
