//! From a decision to a bound pod: volumes first (`PreBind`), then the binding itself.

use std::sync::Arc;
use std::time::Duration;

use api_client::events::ObjectReference;
use api_client::{Api, Cache, Client, Error, Object, ObjectKey, Patch, Revision, Snapshot};
use serde_json::{Value, json};
use tracing::warn;

use super::write::Written;
use super::{Scheduler, devices};
use crate::cluster::Bindings;
use crate::config::Profile;
use crate::cycle::Choice;
use crate::objects::{Claim, Pod, ResourceClaim, Volume};

/// Why volumes could not be bound.
#[derive(Debug, thiserror::Error)]
enum VolumeError {
    #[error("binding volume {volume}: {source}")]
    Volume { volume: String, source: Error },
    #[error("selecting a node for claim {claim}: {source}")]
    Claim { claim: ObjectKey, source: Error },
    #[error("binding volumes: context deadline exceeded")]
    Timeout,
    #[error("binding volumes: provisioning failed for PVC {0:?}")]
    Provisioning(String),
}

impl Scheduler {
    pub(super) fn spawn_binding(&mut self, profile: &Profile, pod: &Arc<Pod>, choice: Choice) {
        let Choice { node, bindings, grants, shared_claims } = choice;
        let recorder = self.recorder.named(&profile.scheduler_name);
        let volumes = VolumeBinder {
            client: self.client.clone(),
            claims: self.feed.claims.clone(),
            node: node.metadata.name.clone(),
            timeout: profile.args.volume_binding.timeout,
        };
        let extenders = self.extenders.clone();
        let binder = self.config.extenders.iter().find(|e| !e.bind_verb.is_empty() && e.is_interested(pod)).cloned();
        let claims = self.client.api::<ResourceClaim>();
        let pods = self.client.api::<Pod>();
        let (pod, node) = (Arc::clone(pod), node.metadata.name.clone());
        self.writes.spawn(async move {
            let key = pod.key();
            if let Err(error) = volumes.bind(&bindings).await {
                warn!(pod = %key, node, %error, "binding volumes failed");
                let failure = format!("running PreBind plugin \"VolumeBinding\": {error}");
                return Written::Binding { pod, failure: Some(failure) };
            }
            if let Err(error) = devices::allocate(&claims, &pod, &grants, &shared_claims).await {
                warn!(pod = %key, node, %error, "allocating devices failed");
                let failure = format!("running PreBind plugin \"DynamicResources\": {error}");
                return Written::Binding { pod, failure: Some(failure) };
            }
            let bound = match &binder {
                Some(binder) => extenders.bind(binder, &pod, &node).await.map_err(|e| e.to_string()),
                None => bind(&pods, &pod, &node).await.map_err(|e| e.to_string()),
            };
            match bound {
                Ok(()) => {
                    let message = format!("Successfully assigned {key} to {node}");
                    recorder.normal(ObjectReference::to(&*pod), "Scheduled", message);
                    Written::Binding { pod, failure: None }
                }
                Err(error) => {
                    warn!(pod = %key, node, %error, "binding failed");
                    Written::Binding { pod, failure: Some(String::new()) }
                }
            }
        });
    }
}

async fn bind(pods: &Api<Pod>, pod: &Pod, node: &str) -> Result<(), Error> {
    let key = pod.key();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": { "name": key.name, "namespace": key.namespace, "uid": pod.metadata.uid },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    pods.post_subresource::<Value>(&key, "binding", &binding).await.map(drop)
}

struct VolumeBinder {
    client: Client,
    claims: Cache<Claim>,
    node: String,
    timeout: Duration,
}

impl VolumeBinder {
    /// Asks for what was decided and waits until the binder has done it (`BindPodVolumes`).
    async fn bind(&self, bindings: &Bindings) -> Result<(), VolumeError> {
        if bindings.is_empty() {
            return Ok(());
        }
        for (volume, claim) in &bindings.volumes {
            self.reserve(volume, claim).await?;
        }
        let mut seen = Revision::NONE;
        for claim in &bindings.provisions {
            seen = seen.max(self.select_node(claim).await?);
        }
        let claims = bindings.volumes.iter().map(|(_, claim)| (claim, false));
        let claims: Vec<(ObjectKey, bool)> =
            claims.chain(bindings.provisions.iter().map(|c| (c, true))).map(|(c, made)| (c.key(), made)).collect();
        let waiting = async {
            self.claims.wait_for(seen).await;
            self.claims.wait_until(|now| self.failed(&claims, now).is_some() || is_done(&claims, now)).await;
        };
        if tokio::time::timeout(self.timeout, waiting).await.is_err() {
            return Err(VolumeError::Timeout);
        }
        match self.failed(&claims, &self.claims.snapshot()) {
            Some(name) => Err(VolumeError::Provisioning(name)),
            None => Ok(()),
        }
    }

    /// The first claim that is gone, or whose provisioner gave the node back.
    fn failed(&self, claims: &[(ObjectKey, bool)], now: &Snapshot<Claim>) -> Option<String> {
        let failed = |(key, is_made): &&(ObjectKey, bool)| {
            now.get(key).is_none_or(|claim| {
                *is_made && !claim.is_bound && claim.metadata.annotations.selected_node.as_deref() != Some(&self.node)
            })
        };
        claims.iter().find(failed).map(|(key, _)| key.name.clone())
    }

    /// The volume's half of a binding; the binder adds the claim's.
    async fn reserve(&self, volume: &Volume, claim: &Claim) -> Result<(), VolumeError> {
        if volume.is_for(claim) && volume.claim.as_ref().is_some_and(|(_, _, uid)| !uid.is_empty()) {
            return Ok(());
        }
        let mut metadata = json!({ "resourceVersion": volume.metadata.resource_version });
        if !volume.is_for(claim) {
            metadata["annotations"] = json!({ "pv.kubernetes.io/bound-by-controller": "yes" });
        }
        let reference = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.metadata.namespace,
            "name": claim.metadata.name, "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        });
        let patch = json!({ "metadata": metadata, "spec": { "claimRef": reference } });
        let answer = self.client.api::<Volume>().patch(&volume.key(), &Patch::Merge(patch)).await;
        answer.map(drop).map_err(|source| VolumeError::Volume { volume: volume.metadata.name.clone(), source })
    }

    /// Tells the provisioner where the volume is needed.
    async fn select_node(&self, claim: &Claim) -> Result<Revision, VolumeError> {
        if claim.metadata.annotations.selected_node.as_deref() == Some(&self.node) {
            return Ok(Revision::NONE);
        }
        let patch = json!({ "metadata": {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": { "volume.kubernetes.io/selected-node": self.node },
        } });
        let answer = self.client.api::<Claim>().patch(&claim.key(), &Patch::Merge(patch)).await;
        answer.map(|(_, revision)| revision).map_err(|source| VolumeError::Claim { claim: claim.key(), source })
    }
}

fn is_done(claims: &[(ObjectKey, bool)], now: &Snapshot<Claim>) -> bool {
    claims.iter().all(|(key, _)| now.get(key).is_some_and(|claim| claim.is_bound))
}
