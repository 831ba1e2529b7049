//! Who is who in a stateful set: ordinals, names of pods and claims, and the pods themselves. Pure.

use std::ops::Range;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PodTemplateSpec};
use serde_json::{Value, json};

use crate::controllers::history::plan::REVISION_LABEL;
use crate::controllers::pods;
use crate::objects::{ClaimSource, Owner, Pod};

/// `apps.StatefulSetPodNameLabel`.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// `apps.PodIndexLabel`.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// A stateful set with its defaults resolved.
#[derive(Clone, Copy)]
pub struct Set<'a> {
    pub object: &'a StatefulSet,
    pub spec: &'a StatefulSetSpec,
    pub replicas: i32,
    /// The first ordinal.
    pub start: i32,
}

impl<'a> Set<'a> {
    /// `None` for an object without spec, which no server stores.
    pub fn of(object: &'a StatefulSet) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or_default();
        Some(Self { object, spec, replicas: spec.replicas.unwrap_or(1).max(0), start })
    }

    pub fn name(&self) -> &'a str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }
    pub fn namespace(&self) -> &'a str {
        self.object.metadata.namespace.as_deref().unwrap_or_default()
    }
    pub fn uid(&self) -> &'a str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }
    pub fn ordinals(&self) -> Range<i32> {
        self.start..self.start.saturating_add(self.replicas)
    }
    pub fn is_parallel(&self) -> bool {
        self.spec.pod_management_policy.as_deref() == Some("Parallel")
    }
    pub fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds.unwrap_or_default()
    }
    /// `RollingUpdate`, the default, or `OnDelete`.
    pub fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
        strategy.unwrap_or("RollingUpdate") == "RollingUpdate"
    }
    pub fn partition(&self) -> Option<i32> {
        let rolling = self.spec.update_strategy.as_ref()?.rolling_update.as_ref()?;
        Some(rolling.partition.unwrap_or_default())
    }
    pub fn claim_templates(&self) -> &'a [PersistentVolumeClaim] {
        self.spec.volume_claim_templates.as_deref().unwrap_or_default()
    }

    pub fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.name())
    }
    pub fn claim_name(&self, template: &PersistentVolumeClaim, ordinal: i32) -> String {
        format!("{}-{}-{ordinal}", template.metadata.name.as_deref().unwrap_or_default(), self.name())
    }

    /// Whether the name of a pod says that it belongs here (`isMemberOf`).
    pub fn is_member(&self, pod: &str) -> bool {
        split(pod).is_some_and(|(parent, _)| parent == self.name())
    }

    /// Whether the pod still shows who it is (`identityMatches`).
    pub fn identity_matches(&self, pod: &Pod) -> bool {
        let name = pod.metadata.name.as_str();
        ordinal(name).is_some_and(|ordinal| self.pod_name(ordinal) == name)
            && pod.metadata.labels.get(POD_NAME_LABEL).is_some_and(|label| label == name)
    }

    /// Whether the pod uses the claims of its ordinal (`storageMatches`).
    pub fn storage_matches(&self, pod: &Pod) -> bool {
        let Some(ordinal) = ordinal(&pod.metadata.name) else { return false };
        self.claim_templates().iter().all(|template| {
            let claim = self.claim_name(template, ordinal);
            let name = template.metadata.name.as_deref().unwrap_or_default();
            let volume = pod.spec.volumes.iter().find(|v| v.name == name);
            volume.is_some_and(|v| v.claim == ClaimSource::Named(claim))
        })
    }

    /// The claim of an ordinal, owned by `owners`.
    pub fn claim(&self, template: &PersistentVolumeClaim, ordinal: i32, owners: &[Value]) -> Value {
        let mut labels = template.metadata.labels.clone().unwrap_or_default();
        labels.extend(self.spec.selector.match_labels.clone().unwrap_or_default());
        let mut claim = json!(template);
        claim["apiVersion"] = "v1".into();
        claim["kind"] = "PersistentVolumeClaim".into();
        let metadata = api::meta::metadata_mut(&mut claim);
        metadata.insert("name".into(), self.claim_name(template, ordinal).into());
        metadata.insert("namespace".into(), self.namespace().into());
        metadata.insert("labels".into(), json!(labels));
        if !owners.is_empty() {
            metadata.insert("ownerReferences".into(), owners.into());
        }
        api::meta::object_mut(&mut claim).remove("status");
        claim
    }

    /// The pod of an ordinal (`newStatefulSetPod`).
    pub fn pod(&self, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Value {
        let mut pod = pods::from_template(template, &Owner::of(self.object));
        let name = self.pod_name(ordinal);
        let metadata = api::meta::metadata_mut(&mut pod);
        metadata.remove("generateName");
        metadata.insert("name".into(), name.as_str().into());
        metadata.insert("namespace".into(), self.namespace().into());
        for (label, value) in self.identity_labels(&name, ordinal) {
            pod["metadata"]["labels"][label] = value.into();
        }
        pod["metadata"]["labels"][REVISION_LABEL] = revision.into();
        pod["spec"]["hostname"] = name.into();
        if let Some(service) = self.spec.service_name.as_deref().filter(|s| !s.is_empty()) {
            pod["spec"]["subdomain"] = service.into();
        }
        self.add_volumes(&mut pod, ordinal);
        pod
    }

    pub fn identity_labels(&self, name: &str, ordinal: i32) -> [(&'static str, String); 2] {
        [(POD_NAME_LABEL, name.to_owned()), (POD_INDEX_LABEL, ordinal.to_string())]
    }

    /// Volumes of the claims come first; they replace volumes of the template with the same name.
    fn add_volumes(&self, pod: &mut Value, ordinal: i32) {
        let templates = self.claim_templates();
        if templates.is_empty() {
            return;
        }
        let name = |template: &PersistentVolumeClaim| template.metadata.name.clone().unwrap_or_default();
        let replaced: Vec<String> = templates.iter().map(name).collect();
        let own = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let kept = own.into_iter().filter(|v| !replaced.iter().any(|name| v["name"] == name.as_str()));
        let claims = templates.iter().map(|template| {
            json!({
                "name": name(template),
                "persistentVolumeClaim": {"claimName": self.claim_name(template, ordinal)},
            })
        });
        pod["spec"]["volumes"] = claims.chain(kept).collect();
    }
}

/// The name of the set and the digits of the ordinal in a pod's name.
fn split(pod: &str) -> Option<(&str, &str)> {
    let (parent, digits) = pod.rsplit_once('-')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some((parent, digits))
}

/// The ordinal in a pod's name.
pub fn ordinal(pod: &str) -> Option<i32> {
    split(pod)?.1.parse().ok()
}
