//! Actuation of a resize: cgroups of a running pod get what is allocated to it now. The pod's own cgroup never holds
//! less than its containers: it grows before them and shrinks after them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{
    act::{Error, chain},
    observed::{Retry, label},
    owner::Owner,
    resize::{self, Pending, Way},
    resources::{Resources, qos},
};
use crate::spec;

/// Between tries to give containers what is allocated to them, such as less memory than one uses.
const RESIZE_RETRY: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(1), SignedDuration::from_secs(30));

impl Owner {
    /// The pod comes as it is allocated now; what it asks for beyond that is pending.
    pub(super) fn notice_resize(&mut self, pod: &Pod, pending: Option<Pending>) {
        let allocation = |pod: &Pod| pod.spec.as_ref().map(resize::allocation).unwrap_or_default();
        let (old, new) = (allocation(&self.pod), allocation(pod));
        if old.iter().any(|(name, old)| resize::differs(Some(old), new.get(name))) {
            self.resizing = true;
            self.observed.resize_failure = None;
            self.event(false, "ResizeStarted", format!("Pod resize started: {}", resize::summary(pod, "")), None);
        }
        if let Some(pending) = pending.as_ref().filter(|_| pending != self.observed.resize_pending) {
            let reason = if pending.reason == "Infeasible" { "ResizeInfeasible" } else { "ResizeDeferred" };
            self.event(true, reason, format!("Pod resize {}: {}", pending.reason, pending.summary), None);
        }
        self.observed.resize_pending = pending;
    }

    /// Tells once that every container has what is allocated to it.
    pub(super) fn notice_resized(&mut self) {
        if !self.resizing || self.pod.spec.iter().flat_map(super::all_containers).any(|one| self.differs(&one)) {
            return;
        }
        self.resizing = false;
        let text = format!("Pod resize completed: {}", resize::summary(&self.pod, ""));
        self.event(false, "ResizeCompleted", text, None);
    }

    /// Whether the latest attempt of a container was given something else than is allocated.
    fn differs(&self, container: &Container) -> bool {
        self.observed
            .latest(&container.name)
            .is_some_and(|latest| resize::way(container, latest.resources.as_ref()).is_some())
    }

    pub(super) async fn resize(&mut self) {
        match self.actuate().await {
            Ok(()) => self.observed.resize_failure = None,
            Err(error) => {
                let message = chain(&error);
                let before = self.observed.resize_failure.as_ref();
                if before.is_none_or(|before| before.message != message) {
                    let text = resize::summary(&self.pod, &message);
                    self.event(true, "ResizeError", format!("Pod resize error: {text}"), None);
                }
                let (first, last) = RESIZE_RETRY;
                self.observed.resize_failure = Some(Retry::after(before, Timestamp::now(), message, first, last));
            }
        }
    }

    async fn actuate(&mut self) -> Result<(), Error> {
        let pod = self.pod.clone();
        let Some(pod_spec) = &pod.spec else { return Ok(()) };
        let (class, uid, wanted) = (qos(pod_spec), self.id.uid.clone(), Resources::of_pod(pod_spec));
        self.shared.cgroups.create_pod(class, &uid, wanted.max(Resources::of_pod(&self.given(pod_spec))))?;
        for container in super::all_containers(pod_spec) {
            let Some(latest) = self.observed.latest(&container.name).cloned() else { continue };
            if !latest.is_running() || resize::way(&container, latest.resources.as_ref()) != Some(Way::InPlace) {
                continue;
            }
            let resources = Resources::of(container.resources.as_ref());
            let cgroup = format!("{}/{}", self.cgroup(), latest.id);
            self.shared.cgroups.check_memory(&cgroup, resources)?;
            self.shared.runtime.update_task(&latest.id, &spec::resized(resources, self.shared.host.cgroups)).await?;
            let given = container.resources.clone().unwrap_or_default();
            let noted = [(label::RESOURCES.to_owned(), serde_json::to_string(&given).unwrap_or_default())];
            self.shared.runtime.label_container(&latest.id, noted.into()).await?;
            if let Some(latest) = &mut self.series(&container.name).latest {
                latest.resources = Some(given);
            }
        }
        // A container that is yet to restart for the resize shrinks with its new start.
        self.shared.cgroups.create_pod(class, &uid, wanted.max(Resources::of_pod(&self.given(pod_spec))))?;
        Ok(())
    }

    /// The spec with what running containers were given in place of what is allocated to them.
    fn given(&self, spec: &PodSpec) -> PodSpec {
        let mut spec = spec.clone();
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let latest = self.observed.latest(&container.name);
            if let Some(given) = latest.filter(|latest| latest.is_running()).and_then(|one| one.resources.clone()) {
                container.resources = Some(given);
            }
        }
        spec
    }
}
