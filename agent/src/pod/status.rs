//! The pod's status as the API shows it: a pure function of pod, observation and time, in the words of the kubelet.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Map, Value, json};

use super::{
    PodId,
    observed::{Attempt, Exited, Hook, Image, Observed, Sandbox, Series},
    plan::{active_deadline, init_failed, is_over, next_attempt, restarts},
    resize,
    resources::{is_sidecar, qos},
};
use crate::cluster::PodEvent;

/// A fresh failure to pull is shown as such for this long, then as the wait for the next try.
const FRESH: SignedDuration = SignedDuration::from_secs(2);

/// Conditions of ours that are there only while they hold.
const PASSING: [&str; 2] = [resize::PENDING, resize::IN_PROGRESS];
/// Conditions that this agent alone writes.
pub const OURS: [&str; 6] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", resize::PENDING, resize::IN_PROGRESS];

/// `before` is the status last known, for times of transitions and for what others wrote.
pub fn status(pod: &Pod, observed: &Observed, host_ips: &[IpAddr], before: &PodStatus, now: Timestamp) -> PodStatus {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    if let Some(rejection) = &observed.rejected {
        return PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(rejection.reason.to_owned()),
            message: Some(format!("Pod was rejected: {}", rejection.message)),
            qos_class: Some(before.qos_class.clone().unwrap_or_else(|| qos(spec).name().to_owned())),
            observed_generation: pod.metadata.generation,
            ..PodStatus::default()
        };
    }
    let view = View { id: PodId::of(pod), spec, observed, now };
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|container| view.told_or(before, view.container(container, true))).collect::<Vec<_>>();
    let main = spec.containers.iter();
    let main = main.map(|container| view.told_or(before, view.container(container, false))).collect::<Vec<_>>();
    let ephemeral = super::ephemeral_containers(spec);
    let ephemeral = ephemeral.iter().map(|container| view.container(container, false)).collect::<Vec<_>>();
    let phase = view.phase(&main, before);
    let addresses = observed.addresses().iter().map(IpAddr::to_string).collect::<Vec<_>>();
    let (reason, message) = if observed.expired {
        let text = "Pod was active on the node longer than the specified deadline";
        (Some("DeadlineExceeded".to_owned()), Some(text.to_owned()))
    } else {
        (before.reason.clone(), before.message.clone())
    };
    let some = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    // Addresses stay in the status of a pod that is over, as where it ran.
    let pod_ips = if addresses.is_empty() {
        before.pod_ips.clone()
    } else {
        Some(addresses.iter().map(|ip| PodIP { ip: ip.clone() }).collect())
    };
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        host_ip: host_ips.first().map(IpAddr::to_string),
        host_ips: Some(host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone()),
        pod_ips,
        start_time: observed.started_at.map(Time),
        qos_class: Some(before.qos_class.clone().unwrap_or_else(|| qos(spec).name().to_owned())),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    };
    status.conditions = Some(view.conditions(phase, &init, &main, before, pod.metadata.generation));
    status.init_container_statuses = some(init);
    status.container_statuses = some(main);
    status.ephemeral_container_statuses = some(ephemeral);
    status
}

struct View<'a> {
    id: PodId,
    spec: &'a PodSpec,
    observed: &'a Observed,
    now: Timestamp,
}

impl View<'_> {
    /// What was told of a container of a pod that is over stays true when the container is gone from the node.
    fn told_or(&self, before: &PodStatus, now: ContainerStatus) -> ContainerStatus {
        let over = matches!(before.phase.as_deref(), Some("Succeeded" | "Failed"));
        if !over || self.observed.series(&now.name).is_some_and(|series| series.latest.is_some()) {
            return now;
        }
        let lists = [&before.init_container_statuses, &before.container_statuses];
        let told = lists.into_iter().flatten().flatten().find(|told| told.name == now.name);
        told.cloned().unwrap_or(now)
    }

    fn container(&self, container: &Container, is_init: bool) -> ContainerStatus {
        let none = Series::default();
        let series = self.observed.series(&container.name).unwrap_or(&none);
        let latest = series.latest.as_ref();
        let (state, last) = self.states(container, series);
        let running = series.is_running();
        let ready = match (is_init && !is_sidecar(container), latest.and_then(Attempt::exited)) {
            (true, exited) => exited.is_some_and(|exited| exited.code == 0),
            // A container is not up before its postStart hook has run.
            (false, _) => running && series.started && series.ready && series.post_start == Hook::Done,
        };
        let long_lived = !is_init || is_sidecar(container);
        let given = latest.and_then(|latest| latest.resources.clone());
        let allocated = container.resources.as_ref().and_then(|own| own.requests.clone());
        let image = latest.map(|latest| latest.image.clone()).or_else(|| container.image.clone()).unwrap_or_default();
        ContainerStatus {
            name: container.name.clone(),
            image,
            image_id: latest.map(|latest| latest.image_id.clone()).unwrap_or_default(),
            container_id: latest.map(|latest| format!("containerd://{}", latest.id)),
            restart_count: latest.map_or(0, |latest| latest.number as i32),
            ready,
            started: Some(running && series.started),
            state: Some(state),
            last_state: Some(last),
            resources: given.or_else(|| container.resources.clone()).filter(|_| running && long_lived),
            allocated_resources: allocated.filter(|_| long_lived),
            volume_mounts: volume_mounts(container),
            ..ContainerStatus::default()
        }
    }

    fn states(&self, container: &Container, series: &Series) -> (ContainerState, ContainerState) {
        let terminated_before = |attempt: Option<&Attempt>| ContainerState {
            terminated: attempt.and_then(|attempt| Some(terminated(attempt, attempt.exited()?))),
            ..ContainerState::default()
        };
        let last = terminated_before(series.previous.as_ref());
        let Some(latest) = &series.latest else {
            return (waiting(self.waiting(container, series)), last);
        };
        let Some(exited) = latest.exited() else {
            let started_at = match latest.state {
                super::observed::State::Running { started_at, .. } => Some(Time(started_at)),
                super::observed::State::Exited(_) => None,
            };
            let running = Some(ContainerStateRunning { started_at });
            return (ContainerState { running, ..ContainerState::default() }, last);
        };
        match self.waits_again(container, series, latest, exited) {
            Some(reason) => (waiting(reason), terminated_before(Some(latest))),
            None => {
                (ContainerState { terminated: Some(terminated(latest, exited)), ..ContainerState::default() }, last)
            }
        }
    }

    /// Why an ended container that shall run again does not yet.
    fn waits_again(
        &self,
        container: &Container,
        series: &Series,
        latest: &Attempt,
        exited: &Exited,
    ) -> Option<(String, Option<String>)> {
        let over = self.observed.ending.is_some() || is_over(self.spec, self.observed);
        if over || !restarts(self.spec, container, exited) {
            return None;
        }
        if let (Some(at), _) = next_attempt(container, latest, exited)
            && at > self.now
        {
            let message = format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                go_duration(latest.backoff_seconds),
                container.name,
                self.id.name,
                self.id.namespace,
                self.id.uid
            );
            return Some(("CrashLoopBackOff".to_owned(), Some(message)));
        }
        self.problem(container, series)
    }

    fn waiting(&self, container: &Container, series: &Series) -> (String, Option<String>) {
        let initializes = self.spec.init_containers.as_ref().is_some_and(|list| !list.is_empty());
        let default = if initializes { "PodInitializing" } else { "ContainerCreating" };
        self.problem(container, series).unwrap_or_else(|| (default.to_owned(), None))
    }

    /// What keeps a container from starting.
    fn problem(&self, container: &Container, series: &Series) -> Option<(String, Option<String>)> {
        if let Some(failure) = &series.start_failure {
            return Some((failure.reason.to_owned(), Some(failure.retry.message.clone())));
        }
        let image = container.image.as_deref().unwrap_or_default();
        match self.observed.images.get(image) {
            Some(
                Image::Failed { reason: reason @ ("ErrImagePull" | "RegistryUnavailable"), retry }
                | Image::Pulling { failed: Some((reason, retry)) },
            ) if self.now > retry.failed_at + FRESH => {
                let message = format!("Back-off pulling image {image:?}: {reason}: {}", retry.message);
                Some(("ImagePullBackOff".to_owned(), Some(message)))
            }
            Some(Image::Failed { reason, retry }) => Some(((*reason).to_owned(), Some(retry.message.clone()))),
            _ => None,
        }
    }

    /// kubelet's `getPhase`.
    fn phase(&self, main: &[ContainerStatus], before: &PodStatus) -> &'static str {
        match before.phase.as_deref() {
            Some("Succeeded") => return "Succeeded",
            Some("Failed") => return "Failed",
            _ => {}
        }
        let (spec, observed) = (self.spec, self.observed);
        if observed.expired && !observed.any_running() {
            return "Failed";
        }
        let inits = spec.init_containers.as_deref().unwrap_or_default();
        if inits.iter().any(|init| init_failed(spec, init, observed)) && !observed.any_running() {
            return "Failed";
        }
        let mut counts = Counts::default();
        main.iter().for_each(|status| counts.add(status));
        let begun = counts.running + counts.stopped > 0;
        if !begun && inits.iter().any(|init| !self.initialized(init)) || counts.waiting > 0 {
            return "Pending";
        }
        if counts.running > 0 {
            return "Running";
        }
        if counts.stopped == 0 {
            return "Pending";
        }
        // Sidecars still run: the pod has not ended.
        if observed.any_running() {
            return "Running";
        }
        if observed.ending.is_some() || is_over(spec, observed) {
            return if counts.stopped == counts.succeeded { "Succeeded" } else { "Failed" };
        }
        "Running"
    }

    fn initialized(&self, init: &Container) -> bool {
        let Some(series) = self.observed.series(&init.name) else { return false };
        if is_sidecar(init) {
            return series.is_running() && series.started || series.exited().is_some();
        }
        series.exited().is_some_and(|exited| exited.code == 0)
    }

    fn conditions(
        &self,
        phase: &str,
        init: &[ContainerStatus],
        main: &[ContainerStatus],
        before: &PodStatus,
        generation: Option<i64>,
    ) -> Vec<PodCondition> {
        let sidecars_ready = self.spec.init_containers.iter().flatten().zip(init).filter(|(init, _)| is_sidecar(init));
        let must_be_ready = main.iter().chain(sidecars_ready.map(|(_, status)| status));
        let unready =
            must_be_ready.filter(|status| !status.ready).map(|status| status.name.as_str()).collect::<Vec<_>>();
        let incomplete = self.spec.init_containers.iter().flatten().filter(|init| !self.initialized(init));
        let incomplete = incomplete.map(|init| init.name.as_str()).collect::<Vec<_>>();
        let begun = main.iter().any(|status| status.container_id.is_some());

        let has_sandbox = matches!(self.observed.sandbox, Sandbox::Ready { .. }) && !self.observed.torn_down;
        let sandbox = Verdict::of(has_sandbox, "", String::new);
        let initialized = match phase {
            "Succeeded" => Verdict::because(true, "PodCompleted", String::new()),
            _ => Verdict::of(begun || incomplete.is_empty(), "ContainersNotInitialized", || {
                format!("containers with incomplete status: [{}]", incomplete.join(" "))
            }),
        };
        let containers_ready = match phase {
            "Succeeded" => Verdict::because(false, "PodCompleted", String::new()),
            "Failed" => Verdict::because(false, "PodFailed", String::new()),
            _ => Verdict::of(unready.is_empty(), "ContainersNotReady", || {
                format!("containers with unready status: [{}]", unready.join(" "))
            }),
        };
        let ready = self.gates(before, &containers_ready);
        let listed = [
            ("PodReadyToStartContainers", sandbox),
            ("Initialized", initialized),
            ("Ready", ready),
            ("ContainersReady", containers_ready),
        ];
        let resizing = self.resizing().into_iter();
        let all = listed.into_iter().chain(resizing);
        all.map(|(kind, verdict)| verdict.condition(kind, before, generation, self.now)).collect()
    }

    /// Conditions that are there while they hold.
    fn resizing(&self) -> Vec<(&'static str, Verdict)> {
        let mut resizing = Vec::new();
        if let Some(pending) = &self.observed.resize_pending {
            let verdict = Verdict::because(true, pending.reason, pending.message.clone());
            resizing.push((resize::PENDING, verdict));
        }
        let under_way = |container: &Container| {
            let latest = self.observed.latest(&container.name);
            latest.is_some_and(|one| one.is_running() && resize::way(container, one.resources.as_ref()).is_some())
        };
        let mut containers = self.spec.containers.iter().chain(self.spec.init_containers.iter().flatten());
        if containers.any(under_way) {
            let verdict = match &self.observed.resize_failure {
                Some(failure) => Verdict::because(true, "Error", failure.message.clone()),
                None => Verdict::of(true, "", String::new),
            };
            resizing.push((resize::IN_PROGRESS, verdict));
        }
        resizing
    }

    /// Ready is ContainersReady plus the conditions named by readiness gates.
    fn gates(&self, before: &PodStatus, containers: &Verdict) -> Verdict {
        if !containers.holds {
            return containers.clone();
        }
        let mut missing = Vec::new();
        for gate in self.spec.readiness_gates.iter().flatten() {
            let condition = before.conditions.iter().flatten().find(|condition| condition.type_ == gate.condition_type);
            match condition {
                None => missing.push(format!(
                    "corresponding condition of pod readiness gate {:?} does not exist.",
                    gate.condition_type
                )),
                Some(condition) if condition.status != "True" => missing.push(format!(
                    "the status of pod readiness gate {:?} is not \"True\", but {}",
                    gate.condition_type, condition.status
                )),
                Some(_) => {}
            }
        }
        Verdict::of(missing.is_empty(), "ReadinessGatesNotReady", || missing.join(", "))
    }
}

#[derive(Default)]
struct Counts {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

impl Counts {
    fn add(&mut self, status: &ContainerStatus) {
        let Some(state) = &status.state else { return };
        let ended_before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        if state.running.is_some() {
            self.running += 1;
        } else if let Some(terminated) = &state.terminated {
            self.stopped += 1;
            self.succeeded += usize::from(terminated.exit_code == 0);
        } else if ended_before {
            self.stopped += 1;
        } else {
            self.waiting += 1;
        }
    }
}

#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    /// The reason explains why it does not hold.
    fn of(holds: bool, reason: &'static str, message: impl FnOnce() -> String) -> Self {
        if holds { Self { holds, reason: None, message: None } } else { Self::because(holds, reason, message()) }
    }

    fn because(holds: bool, reason: &'static str, message: String) -> Self {
        Self {
            holds,
            reason: (!reason.is_empty()).then_some(reason),
            message: (!message.is_empty()).then_some(message),
        }
    }

    fn condition(self, kind: &str, before: &PodStatus, generation: Option<i64>, now: Timestamp) -> PodCondition {
        let status = if self.holds { "True" } else { "False" };
        let old = before.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let unchanged = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: self.reason.map(str::to_owned),
            message: self.message,
            last_transition_time: Some(unchanged.unwrap_or(Time(now))),
            observed_generation: generation,
            ..PodCondition::default()
        }
    }
}

fn waiting((reason, message): (String, Option<String>)) -> ContainerState {
    let waiting = Some(ContainerStateWaiting { reason: Some(reason), message });
    ContainerState { waiting, ..ContainerState::default() }
}

fn terminated(attempt: &Attempt, exited: &Exited) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(format!("containerd://{}", attempt.id)),
        exit_code: exited.code,
        reason: Some(exited.reason.clone()),
        message: (!exited.message.is_empty()).then(|| exited.message.clone()),
        started_at: Some(Time(exited.started_at.unwrap_or(Timestamp::UNIX_EPOCH))),
        finished_at: Some(Time(exited.finished_at)),
        signal: None,
    }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let status = mounts.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|read_only| *read_only).map(|_| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    });
    Some(status.collect())
}

/// As Go prints durations: `10s`, `2m40s`, `5m0s`.
fn go_duration(seconds: u32) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

/// When the status will change by time alone.
pub fn next_change(pod: &Pod, observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let spec = pod.spec.as_ref()?;
    let fresh = observed.images.values().filter_map(|image| match image {
        Image::Failed { retry, .. } => Some(retry.failed_at + FRESH + SignedDuration::from_millis(1)),
        Image::Present { .. } | Image::Pulling { .. } => None,
    });
    fresh.chain(active_deadline(spec, observed)).filter(|at| *at > now).min()
}

/// Containers that begin to wait, before a restart or before their image is asked for again, as the events that say so.
pub fn back_offs(pod: &Pod, before: &PodStatus, after: &PodStatus) -> Vec<PodEvent> {
    let id = PodId::of(pod);
    let known = waits(before).collect::<Vec<_>>();
    let begun = waits(after).filter(|wait| !known.contains(wait));
    let events = |(name, reason, _): (&str, &str, i32)| {
        let restart = reason == "CrashLoopBackOff";
        let message = if restart {
            format!("Back-off restarting failed container {name} in pod {}_{}({})", id.name, id.namespace, id.uid)
        } else {
            let container = pod.spec.as_ref().and_then(|spec| super::container(spec, name));
            format!("Back-off pulling image {:?}", container.and_then(|c| c.image).unwrap_or_default())
        };
        let container = Some(name.to_owned());
        let error = PodEvent {
            warning: true,
            reason: "Failed",
            message: format!("Error: {reason}"),
            container: container.clone(),
        };
        let begins = PodEvent { warning: restart, reason: "BackOff", message, container };
        [Some(begins), (!restart).then_some(error)].into_iter().flatten()
    };
    begun.flat_map(events).collect()
}

/// The containers that wait out a back-off: name, reason and number of restarts.
fn waits(status: &PodStatus) -> impl Iterator<Item = (&str, &str, i32)> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten().filter_map(|container| {
        let reason = container.state.as_ref()?.waiting.as_ref()?.reason.as_deref()?;
        let waits = matches!(reason, "CrashLoopBackOff" | "ImagePullBackOff");
        waits.then_some((container.name.as_str(), reason, container.restart_count))
    })
}

/// A merge patch for what differs, conditions by type; `None` when nothing does.
pub fn patch(before: &PodStatus, after: &PodStatus) -> Option<Value> {
    let (before, after) = (fields(before), fields(after));
    let mut changed = Map::new();
    for (key, value) in &after {
        if before.get(key) == Some(value) {
            continue;
        }
        let value = match (key.as_str(), value.as_array()) {
            ("conditions", Some(list)) => {
                let old = before.get(key).and_then(Value::as_array);
                let fresh = list.iter().filter(|condition| !old.is_some_and(|old| old.contains(condition)));
                let over = old.into_iter().flatten().filter(|old| {
                    let same = |condition: &&Value| condition["type"] == old["type"];
                    PASSING.iter().any(|kind| old["type"] == *kind) && !list.iter().any(|now| same(&now))
                });
                let over = over.map(|old| json!({"type": old["type"], "$patch": "delete"}));
                fresh.cloned().map(with_nulls).chain(over).collect()
            }
            // Lists of addresses merge by their key on the server: replace them as a whole.
            ("podIPs" | "hostIPs", Some(list)) => {
                let mut list = list.clone();
                list.insert(0, json!({"$patch": "replace"}));
                list.into()
            }
            _ => value.clone(),
        };
        changed.insert(key.clone(), value);
    }
    // Only what this agent writes is ever taken back.
    for key in ["reason", "message", "podIP", "podIPs", "containerStatuses", "initContainerStatuses"] {
        if before.contains_key(key) && !after.contains_key(key) {
            changed.insert(key.to_owned(), Value::Null);
        }
    }
    (!changed.is_empty()).then(|| json!({"status": changed}))
}

/// A merged condition keeps fields the patch does not name, so that what is not set is named as nothing.
fn with_nulls(mut condition: Value) -> Value {
    if let Some(fields) = condition.as_object_mut() {
        for key in ["reason", "message"] {
            fields.entry(key).or_insert(Value::Null);
        }
    }
    condition
}

fn fields(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
