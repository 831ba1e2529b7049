//! What to do next for a pod: a pure function from what is wanted and what is observed to a list of steps. It is asked
//! again after every step and every event, so it never remembers anything and needs to be right only about now.
//!
//! ```text
//! absent -> sandbox, volumes, images -> init containers one by one -> containers -> over -> torn down -> removed
//! ```

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{
    observed::{Attempt, Exited, Hook, Image, Observed, Sandbox, Series, Volumes, definition_hash},
    resize::{self, Way},
    resources::is_sidecar,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    CreateSandbox,
    PrepareVolumes,
    FindImage {
        container: String,
    },
    /// Records an exit durably and frees its task. Before anything else: a shim may be shared with the next attempt.
    Settle {
        container: String,
    },
    Start {
        container: String,
        number: u32,
        backoff_seconds: u32,
    },
    PostStart {
        container: String,
    },
    /// Gives running containers what is allocated to them now.
    Resize,
    /// The container must have ended by the deadline.
    Stop {
        container: String,
        deadline: Timestamp,
        why: String,
    },
    /// The pod's deadline has passed.
    Expire,
    /// Releases network, namespaces, volumes and cgroup; containers stay for their logs.
    TearDown,
    /// Removes containers, logs and the pod's directory.
    Remove,
    /// Deletes the pod on the server: the last step.
    Finish,
}

impl Step {
    /// Steps that prepare different things and may run at the same time.
    pub fn is_preparation(&self) -> bool {
        matches!(self, Step::CreateSandbox | Step::PrepareVolumes | Step::FindImage { .. })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Ask again at this time even if nothing happens.
    pub wake: Option<Timestamp>,
}

impl Plan {
    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// First wait between restarts, and the longest; also the default of `terminationGracePeriodSeconds`.
const BACKOFF_FIRST_SECONDS: u32 = 10;
const BACKOFF_MAX_SECONDS: u32 = 300;
/// A container that ran this long starts over with the first wait (twice the longest).
const BACKOFF_RESET: SignedDuration = SignedDuration::from_secs(2 * BACKOFF_MAX_SECONDS as i64);
pub const GRACE_SECONDS: i64 = 30;
/// A stop under way is replaced only by one that ends clearly earlier.
const STOP_TOLERANCE: SignedDuration = SignedDuration::from_millis(500);

pub fn plan(pod: &Pod, observed: &Observed, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = &pod.spec else { return plan };
    for (name, series) in &observed.containers {
        if series.exited().is_some_and(|exited| !exited.settled) {
            plan.step(Step::Settle { container: name.clone() });
        }
    }
    if !plan.steps.is_empty() {
        return plan;
    }
    if let Some(ending) = &observed.ending {
        stop_all(&mut plan, spec, observed, ending.deadline);
        if !observed.any_running() {
            clean_up(&mut plan, pod, observed, now);
        }
        return plan;
    }
    let is_over = is_over(spec, observed);
    if let Some(deadline) = active_deadline(spec, observed)
        && !is_over
    {
        if now >= deadline {
            plan.step(Step::Expire);
            return plan;
        }
        plan.wake_at(deadline);
    }
    if is_over {
        // Only sidecars can still run.
        let deadline = now + SignedDuration::from_secs(grace_seconds(spec));
        stop_all(&mut plan, spec, observed, deadline);
        if !observed.any_running() {
            clean_up(&mut plan, pod, observed, now);
        }
        return plan;
    }
    run(&mut plan, spec, observed, now);
    plan
}

pub fn grace_seconds(spec: &PodSpec) -> i64 {
    spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS)
}

pub fn active_deadline(spec: &PodSpec, observed: &Observed) -> Option<Timestamp> {
    let seconds = spec.active_deadline_seconds?;
    observed.started_at?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Stops what runs: containers at once, sidecars only after them and one by one, last started first.
fn stop_all(plan: &mut Plan, spec: &PodSpec, observed: &Observed, deadline: Timestamp) {
    let sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init)).map(|init| init.name.as_str());
    let sidecars = sidecars.collect::<Vec<_>>();
    let running = observed.containers.iter().filter(|(_, series)| series.is_running()).collect::<Vec<_>>();
    let (last, first): (Vec<_>, Vec<_>) = running.into_iter().partition(|(name, _)| sidecars.contains(&name.as_str()));
    let mut stop = |name: &str, series: &Series| {
        let earlier = |under_way: Timestamp| deadline + STOP_TOLERANCE < under_way;
        if series.stopping.is_none_or(earlier) {
            let why = "Stopping container ".to_owned() + name;
            plan.step(Step::Stop { container: name.to_owned(), deadline, why });
        }
    };
    if !first.is_empty() {
        first.iter().for_each(|(name, series)| stop(name, series));
        return;
    }
    let next = sidecars.iter().rev().find_map(|name| last.iter().find(|(running, _)| running == name));
    if let Some((name, series)) = next {
        stop(name, series);
    }
}

fn clean_up(plan: &mut Plan, pod: &Pod, observed: &Observed, now: Timestamp) {
    if let Some(retry) = observed.cleanup_failure.as_ref().filter(|retry| !retry.is_due(now)) {
        return plan.wake_at(retry.at);
    }
    if !observed.torn_down {
        return plan.step(Step::TearDown);
    }
    if observed.gone || pod.metadata.deletion_timestamp.is_some() {
        if !observed.containers_removed {
            return plan.step(Step::Remove);
        }
        plan.step(Step::Finish);
    }
}

/// No container will run again: all have ended for good, or an init container has failed for good.
pub fn is_over(spec: &PodSpec, observed: &Observed) -> bool {
    if observed.terminal {
        return true;
    }
    let ended = |container: &Container| {
        let series = observed.series(&container.name);
        series.and_then(Series::exited).is_some_and(|exited| !restarts(spec, container, exited))
    };
    if spec.init_containers.iter().flatten().any(|init| init_failed(spec, init, observed)) {
        return true;
    }
    !spec.containers.is_empty() && spec.containers.iter().all(ended)
}

/// A plain init container that ended with an error and is not tried again.
pub fn init_failed(spec: &PodSpec, init: &Container, observed: &Observed) -> bool {
    let exited = observed.series(&init.name).and_then(Series::exited);
    !is_sidecar(init) && exited.is_some_and(|exited| exited.code != 0 && !restarts(spec, init, exited))
}

/// Does the policy ask for another attempt after this end? Plain init containers follow the pod's policy, where
/// `Always` means until they succeed.
pub fn restarts(spec: &PodSpec, container: &Container, exited: &Exited) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|code| *code == exited.code);
        if listed == (codes.operator == "In") {
            return rule.action.starts_with("Restart");
        }
    }
    let is_init = spec.init_containers.iter().flatten().any(|init| init.name == container.name);
    let policy = container.restart_policy.as_deref().or(spec.restart_policy.as_deref()).unwrap_or("Always");
    match policy {
        "Never" => false,
        "OnFailure" => exited.code != 0,
        _ => !is_init || is_sidecar(container) || exited.code != 0,
    }
}

/// Whether an attempt was made for another definition than the container has now, so that it is to be replaced.
pub fn is_replaced(container: &Container, latest: &Attempt) -> bool {
    let hash = definition_hash(&container.name, container.image.as_deref().unwrap_or_default());
    latest.hash != hash || resize::way(container, latest.resources.as_ref()) == Some(Way::Restart)
}

/// How long a status may keep silent about a container that is being replaced.
const REPLACEMENT_MAX: SignedDuration = SignedDuration::from_secs(3);

/// A container has ended to be replaced at once, and by then it is or something is in its way: what is told of the pod
/// goes from the old one to the new one without the moment between, as the kubelet's does.
pub fn replaced_by(pod: &Pod, observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    let spec = pod.spec.as_ref().filter(|_| observed.ending.is_none() && !observed.terminal)?;
    let sidecars = spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
    let until = spec.containers.iter().chain(sidecars).filter_map(|container| {
        let series = observed.series(&container.name).filter(|series| series.start_failure.is_none())?;
        let latest = series.latest.as_ref().filter(|latest| is_replaced(container, latest))?;
        let exited = latest.exited().filter(|exited| restarts(spec, container, exited))?;
        let image = observed.images.get(container.image.as_deref().unwrap_or_default());
        let failed = matches!(image, Some(Image::Failed { .. } | Image::Pulling { .. }));
        (!failed).then_some(exited.finished_at + REPLACEMENT_MAX)
    });
    until.filter(|until| *until > now).max()
}

/// When the next attempt may start, and with which wait after it. `None`: at once.
pub fn next_attempt(container: &Container, latest: &Attempt, exited: &Exited) -> (Option<Timestamp>, u32) {
    let ran = exited.finished_at.duration_since(latest.created_at);
    if latest.backoff_seconds == 0 || ran > BACKOFF_RESET || is_replaced(container, latest) {
        return (None, BACKOFF_FIRST_SECONDS);
    }
    let at = exited.finished_at + SignedDuration::from_secs(i64::from(latest.backoff_seconds));
    (Some(at), (latest.backoff_seconds * 2).min(BACKOFF_MAX_SECONDS))
}

/// The pod shall run: from nothing to all containers running.
fn run(plan: &mut Plan, spec: &PodSpec, observed: &Observed, now: Timestamp) {
    prepare(plan, spec, observed, now);
    let Sandbox::Ready { ready_at, .. } = &observed.sandbox else { return };
    if observed.volumes != Volumes::Ready {
        return;
    }
    let current = |attempt: &Attempt| attempt.created_at >= *ready_at;
    // Once a container has run in this sandbox, init containers have done their work.
    let initialized = spec.containers.iter().any(|container| observed.latest(&container.name).is_some_and(current));
    for init in spec.init_containers.iter().flatten() {
        let series = observed.series(&init.name);
        if is_sidecar(init) {
            keep(plan, spec, init, observed, *ready_at, now);
            let up =
                series.is_some_and(|series| series.is_running() && series.started && series.post_start == Hook::Done);
            if !initialized && !up {
                return;
            }
            continue;
        }
        let done = series.and_then(|series| series.latest.as_ref()).filter(|latest| current(latest));
        let done = done.and_then(Attempt::exited).is_some_and(|exited| exited.code == 0);
        if !initialized && !done {
            keep(plan, spec, init, observed, *ready_at, now);
            return;
        }
    }
    for container in &spec.containers {
        keep(plan, spec, container, observed, *ready_at, now);
        // A container whose postStart hook runs holds back the ones after it.
        if observed.series(&container.name).is_some_and(|series| series.is_running() && series.post_start != Hook::Done)
        {
            return;
        }
    }
    for container in super::ephemeral_containers(spec) {
        if observed.latest(&container.name).is_none() {
            start(plan, &container, observed, 0, 0, now);
        }
    }
}

/// Sandbox, volumes and the images of all containers that are yet to start, at the same time.
fn prepare(plan: &mut Plan, spec: &PodSpec, observed: &Observed, now: Timestamp) {
    match &observed.sandbox {
        Sandbox::Absent => plan.step(Step::CreateSandbox),
        Sandbox::Failed(retry) if retry.is_due(now) => plan.step(Step::CreateSandbox),
        Sandbox::Failed(retry) => plan.wake_at(retry.at),
        Sandbox::Ready { .. } => {}
    }
    match &observed.volumes {
        Volumes::Unprepared => plan.step(Step::PrepareVolumes),
        Volumes::Failed(retry) if retry.is_due(now) => plan.step(Step::PrepareVolumes),
        Volumes::Failed(retry) => plan.wake_at(retry.at),
        Volumes::Ready => match observed.refresh_at {
            Some(at) if at <= now => plan.step(Step::PrepareVolumes),
            Some(at) => plan.wake_at(at),
            None => {}
        },
    }
    let first_start =
        |container: &&Container| observed.series(&container.name).is_none_or(|series| series.latest.is_none());
    let mut asked = Vec::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers).filter(first_start) {
        let image = container.image.as_deref().unwrap_or_default();
        if !observed.images.contains_key(image) && !asked.contains(&image) {
            asked.push(image);
            plan.step(Step::FindImage { container: container.name.clone() });
        }
    }
}

/// Keeps one container as it should be: started, restarted, replaced when its definition changed.
fn keep(
    plan: &mut Plan,
    spec: &PodSpec,
    container: &Container,
    observed: &Observed,
    sandbox_at: Timestamp,
    now: Timestamp,
) {
    let Some((series, latest)) =
        observed.series(&container.name).and_then(|series| Some((series, series.latest.as_ref()?)))
    else {
        return start(plan, container, observed, 0, 0, now);
    };
    let Some(exited) = latest.exited() else {
        return keep_running(plan, spec, container, observed, series, latest, now);
    };
    // A new sandbox runs everything again that its policy lets run again.
    let lost = latest.created_at < sandbox_at;
    let rerun_init =
        lost && exited.code == 0 && spec.init_containers.iter().flatten().any(|init| init.name == container.name);
    if !restarts(spec, container, exited) && !rerun_init {
        return;
    }
    match next_attempt(container, latest, exited) {
        // An end in the future: the clock was set back, and nobody knows how much of the wait is over.
        (Some(at), _) if at > now && !lost && exited.finished_at <= now => plan.wake_at(at),
        (_, backoff) => start(plan, container, observed, latest.number + 1, backoff, now),
    }
}

fn keep_running(
    plan: &mut Plan,
    spec: &PodSpec,
    container: &Container,
    observed: &Observed,
    series: &Series,
    latest: &Attempt,
    now: Timestamp,
) {
    if series.stopping.is_some() {
        return;
    }
    let name = container.name.clone();
    let way = resize::way(container, latest.resources.as_ref());
    let (grace, why) = match &series.condemned {
        Some(condemned) => (condemned.grace_seconds, condemned.message.clone()),
        None if way == Some(Way::Restart) => (None, format!("Container {name} resize requires restart")),
        None if is_replaced(container, latest) => {
            (None, format!("Container {name} definition changed, will be restarted"))
        }
        None => {
            if series.post_start == Hook::Pending {
                plan.step(Step::PostStart { container: name });
            }
            if way == Some(Way::InPlace) {
                resize(plan, observed, now);
            }
            return;
        }
    };
    let deadline = now + SignedDuration::from_secs(grace.unwrap_or_else(|| grace_seconds(spec)));
    plan.step(Step::Stop { container: name, deadline, why });
}

/// One step for all containers; earlier failures let it wait.
fn resize(plan: &mut Plan, observed: &Observed, now: Timestamp) {
    match observed.resize_failure.as_ref().filter(|retry| !retry.is_due(now)) {
        Some(retry) => plan.wake_at(retry.at),
        None if plan.steps.contains(&Step::Resize) => {}
        None => plan.step(Step::Resize),
    }
}

/// Starts an attempt as soon as its image is there and earlier failures let it.
fn start(
    plan: &mut Plan,
    container: &Container,
    observed: &Observed,
    number: u32,
    backoff_seconds: u32,
    now: Timestamp,
) {
    let name = container.name.clone();
    match observed.images.get(container.image.as_deref().unwrap_or_default()) {
        None => {
            // `prepare` may have asked for this image for another container.
            if !plan.steps.iter().any(|step| matches!(step, Step::FindImage { .. })) {
                plan.step(Step::FindImage { container: name });
            }
            return;
        }
        Some(Image::Pulling { .. }) => return,
        Some(Image::Failed { retry, .. }) if !retry.is_due(now) => return plan.wake_at(retry.at),
        Some(Image::Failed { .. }) => return plan.step(Step::FindImage { container: name }),
        Some(Image::Present { .. }) => {}
    }
    let failure = observed.series(&container.name).and_then(|series| series.start_failure.as_ref());
    match failure.filter(|failure| !failure.retry.is_due(now)) {
        Some(failure) => plan.wake_at(failure.retry.at),
        None => plan.step(Step::Start { container: name, number, backoff_seconds }),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
