//! Takes back the announcement of a disruption that did not come about.

use api_client::{Cache, Object, ObjectKey, Patch};
use async_trait::async_trait;
use serde_json::json;

use super::plan::stale_after;
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::Pod;

/// Keys are pods.
pub struct StaleDisruptions {
    pods: Cache<Pod>,
}

impl StaleDisruptions {
    pub fn new(caches: &Caches) -> Self {
        Self { pods: caches.get() }
    }
}

#[async_trait]
impl Controller for StaleDisruptions {
    fn name(&self) -> &'static str {
        "stale-disruption-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.pods, |change, wake| {
            if let Some(pod) = change.new.as_ref().filter(|pod| pod.condition("DisruptionTarget").is_some()) {
                wake(pod.key());
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "pods/status")];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(Done::Settled) };
        let Some(left) = stale_after(&pod, work.now()) else { return Ok(Done::Settled) };
        if !left.is_zero() {
            return Ok(Done::After(left));
        }
        let time = work.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // Upstream writes a condition that says nothing but that it no longer holds.
        let condition = json!({
            "type": "DisruptionTarget", "status": "False", "lastTransitionTime": time, "reason": null, "message": null,
        });
        let version = &pod.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "status": {"conditions": [condition]}});
        work.patch_status::<Pod>(key, &Patch::Strategic(patch)).await?;
        Ok(Done::Settled)
    }
}
