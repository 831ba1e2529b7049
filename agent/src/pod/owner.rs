//! The owner of one pod: a task that asks `plan` what to do, does it, reports the status, and waits for the next event.
//! It alone changes the pod's things on this node.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api_client::{Object, Revision};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    PodId,
    admit::Rejection,
    image::PullEnd,
    inbox::{Desired, Inbox, Letters},
    observed::{Ending, Exited, Hook, Observed, Retry, State},
    plan::{GRACE_SECONDS, Plan, Step, grace_seconds, plan, replaced_by},
    shared::Shared,
    status,
    view::{ContainerView, PodView},
};
use crate::{
    cluster::{self, PodEvent},
    image::uses::Claim,
    logs::Pump,
    probe::{Kind, Verdict, Worker},
    runtime::{self, Exit},
    sandbox::Record,
    volume::Volumes,
};

/// Waits between tries to report a status the server did not take.
const REPORT_RETRY: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(1), SignedDuration::from_secs(30));
/// Probe verdicts not yet read; a full channel makes the probe wait.
const VERDICTS: usize = 16;
/// A pod that vanished from the server gets no time to end: whoever forced that did not want to wait.
const GONE_GRACE: SignedDuration = SignedDuration::from_secs(1);
/// A wake time that has passed and asks for nothing must not become a busy loop.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// What a container's start under way may still take when the agent stops: containerd goes on with a call whose caller
/// has left, and the next agent could meet a task that comes after it has looked. Within the agent's own drain.
const START_DRAIN: Duration = Duration::from_millis(400);
/// Everything is compared with containerd this often, events or not.
const AUDIT: Duration = Duration::from_secs(300);

pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
    pub(super) id: PodId,
    pub(super) inbox: Arc<Inbox>,
    pub(super) pod: Arc<Pod>,
    pub(super) observed: Observed,
    pub(super) sandbox: Option<Record>,
    pub(super) volumes: Volumes,
    /// Found images by the text of the container's field.
    pub(super) images: HashMap<String, runtime::Image>,
    /// Keeps them from garbage collection, by the same text.
    pub(super) claims: HashMap<String, Claim>,
    /// Logs being written, by container id.
    pub(super) pumps: HashMap<String, Pump>,
    /// Probes of running containers, by container id.
    pub(super) workers: HashMap<String, Vec<(Kind, Worker)>>,
    pub(super) verdicts: (mpsc::Sender<Verdict>, mpsc::Receiver<Verdict>),
    /// What takes long runs beside the owner and ends with it.
    pub(super) operations: JoinSet<Outcome>,
    /// Stops under way, by container name.
    pub(super) stops: HashMap<String, AbortHandle>,
    /// The status the server has, as far as we know…
    reported: PodStatus,
    /// …and the revision at which it had it: what the watch shows of older ones is history.
    reported_at: Revision,
    reporting: Option<PodStatus>,
    report_retry: Option<Retry>,
    finished: bool,
    /// Other resources were allocated to the pod, and its containers don't have them yet.
    pub(super) resizing: bool,
    /// A start was cut off, perhaps by an agent's end: the pod's shim may run without containerd knowing.
    pub(super) lost_shim: bool,
}

/// How an operation beside the owner ended.
pub(super) enum Outcome {
    Reported(Result<Revision, cluster::Error>),
    Pulled(PullEnd),
    PostStart {
        container: String,
        container_id: String,
        failure: Option<String>,
    },
    /// A stopped container's end, in case its event is lost.
    Stopped {
        container_id: String,
        exit: Option<Exit>,
    },
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>, pod: Arc<Pod>, inbox: Arc<Inbox>) -> Self {
        let reported = pod.status.clone().unwrap_or_default();
        let terminal = matches!(reported.phase.as_deref(), Some("Succeeded" | "Failed"));
        let started_at = reported.start_time.as_ref().map(|time| time.0).unwrap_or_else(Timestamp::now);
        Self {
            id: PodId::of(&pod),
            shared,
            inbox,
            pod,
            observed: Observed { started_at: Some(started_at), terminal, ..Observed::default() },
            sandbox: None,
            volumes: Volumes::new(),
            images: HashMap::new(),
            claims: HashMap::new(),
            pumps: HashMap::new(),
            workers: HashMap::new(),
            verdicts: mpsc::channel(VERDICTS),
            operations: JoinSet::new(),
            stops: HashMap::new(),
            reported,
            reported_at: Revision::NONE,
            reporting: None,
            report_retry: None,
            finished: false,
            resizing: false,
            lost_shim: false,
        }
    }

    /// This node does not take the pod: it fails, and nothing of it runs.
    pub(super) fn reject(&mut self, rejection: Rejection) {
        self.event(true, rejection.reason, rejection.message.clone(), None);
        self.observed.started_at = None;
        self.observed.terminal = true;
        self.observed.rejected = Some(rejection);
    }

    /// Until the pod is gone or the agent stops; stopping leaves everything as it is.
    pub(super) async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        self.notice_deletion();
        while !self.finished {
            let now = Timestamp::now();
            let Plan { steps, wake } = plan(&self.pod, &self.observed, now);
            self.probe_running();
            self.notice_resized();
            let replaced_by = replaced_by(&self.pod, &self.observed, now);
            if replaced_by.is_none() {
                self.report(now);
            }
            self.publish_view(now);
            if !steps.is_empty() && !self.must_report_first(&steps) {
                let starting = steps.iter().any(|step| matches!(step, Step::Start { .. }));
                let act = self.act(steps);
                tokio::pin!(act);
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {
                        if starting && tokio::time::timeout(START_DRAIN, act).await.is_err() {
                            tracing::debug!("left a container in the middle of its start");
                        }
                        break;
                    }
                    () = &mut act => {}
                }
                continue;
            }
            let changes = status::next_change(&self.pod, &self.observed, now);
            let wake = [wake, changes, self.report_wake(), replaced_by];
            let pause = wake.into_iter().flatten().min().map_or(AUDIT, |at| until(at).clamp(PAUSE_MIN, AUDIT));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                letters = self.inbox.take() => self.read(letters).await,
                Some(outcome) = self.operations.join_next() => {
                    // An aborted stop has nothing to say.
                    if let Ok(outcome) = outcome { self.hear(outcome).await }
                }
                Some(verdict) = self.verdicts.1.recv() => self.judge(verdict),
                () = tokio::time::sleep(pause) => {
                    if pause == AUDIT { self.resync().await }
                }
            }
        }
        if self.finished {
            self.shared.views.remove(&self.id.uid);
        }
    }

    /// The pod leaves the server only after its last status arrived there.
    fn must_report_first(&self, steps: &[Step]) -> bool {
        let leaving = matches!(steps.first(), Some(Step::Finish));
        leaving && !self.observed.gone && (self.reporting.is_some() || self.report_retry.is_some())
    }

    /// Sends the status if it differs from what the server has; one at a time, the newest next.
    fn report(&mut self, now: Timestamp) {
        if self.reporting.is_some() || self.observed.gone || self.report_wake().is_some_and(|at| at > now) {
            return;
        }
        let status = self.status(now);
        let Some(patch) = status::patch(&self.reported, &status) else {
            self.report_retry = None;
            return;
        };
        for event in status::back_offs(&self.pod, &self.reported, &status) {
            self.shared.cluster.event(&self.pod, event);
        }
        self.reporting = Some(status);
        let (cluster, id) = (self.shared.cluster.clone(), self.id.clone());
        self.operations.spawn(async move { Outcome::Reported(cluster.patch_pod_status(&id, &patch).await) });
    }

    /// When to try again; nothing to wait for while an attempt is under way.
    fn report_wake(&self) -> Option<Timestamp> {
        self.report_retry.as_ref().filter(|_| self.reporting.is_none()).map(|retry| retry.at)
    }

    pub(super) fn status(&self, now: Timestamp) -> PodStatus {
        let node = self.shared.node();
        let mut status = status::status(&self.pod, &self.observed, &node.addresses, &self.reported, now);
        // Conditions of others are kept in what we compare with, so that gates see them.
        let ours = status.conditions.get_or_insert_default();
        let foreign = self.reported.conditions.iter().flatten();
        let foreign = foreign.filter(|theirs| !status::OURS.contains(&theirs.type_.as_str())).cloned();
        let foreign = foreign.collect::<Vec<_>>();
        ours.extend(foreign);
        status
    }

    fn publish_view(&self, now: Timestamp) {
        let spec = self.pod.spec.as_ref();
        let containers = self.observed.containers.iter().filter_map(|(name, series)| {
            let latest = series.latest.as_ref()?;
            let definition = spec.and_then(|spec| super::container(spec, name));
            let (pid, started_at) = match &latest.state {
                State::Running { pid, started_at } => (Some(*pid), Some(*started_at)),
                State::Exited(exited) => (None, exited.started_at),
            };
            let previous_log = series.previous.as_ref().map(|old| self.shared.paths.log(&self.id, name, old.number));
            let view = ContainerView {
                id: latest.id.clone(),
                number: latest.number,
                pid,
                started_at,
                log: self.shared.paths.log(&self.id, name, latest.number),
                previous_log,
                cgroup: format!("{}/{}", self.cgroup(), latest.id),
                tty: definition.as_ref().and_then(|container| container.tty).unwrap_or(false),
                stdin: definition.as_ref().and_then(|container| container.stdin).unwrap_or(false),
            };
            Some((name.clone(), view))
        });
        let pinned = self.sandbox.as_ref().is_some_and(|record| record.namespaces.iter().any(|name| name == "net"));
        self.shared.views.put(PodView {
            id: self.id.clone(),
            pod: self.pod.clone(),
            status: Arc::new(self.status(now)),
            addresses: self.observed.addresses().to_vec(),
            netns: pinned.then(|| self.shared.paths.namespaces(&self.id.uid).join("net")),
            containers: containers.collect(),
        });
    }

    async fn read(&mut self, letters: Letters) {
        if let Some(Desired { pod, resize_pending }) = letters.desired {
            self.notice_resize(&pod, resize_pending);
            if self.reporting.is_none() && pod.revision() >= self.reported_at {
                // Whoever wrote it: where it is not what we see here, it is written again.
                self.reported = pod.status.clone().unwrap_or_default();
                self.reported_at = pod.revision();
            } else if let Some(theirs) = pod.status.as_ref().and_then(|status| status.conditions.clone()) {
                // Others' conditions (gates, disruption) count at once; ours may be older than what we sent.
                self.merge_conditions(theirs);
            }
            let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
            if self.observed.refresh_at.is_some() && shown(&pod) != shown(&self.pod) {
                // Downward API volumes show them.
                self.observed.refresh_at = Some(Timestamp::now());
            }
            self.pod = pod;
            self.notice_deletion();
        }
        if letters.gone {
            self.observed.gone = true;
            self.end_by(Timestamp::now() + GONE_GRACE);
        }
        for (container_id, exit) in letters.exits {
            self.ended(&container_id, exit).await;
        }
        self.images_came(&letters.images);
        if letters.resync {
            self.resync().await;
        }
    }

    fn merge_conditions(&mut self, theirs: Vec<k8s_openapi::api::core::v1::PodCondition>) {
        let known = self.reported.conditions.get_or_insert_default();
        for condition in theirs.into_iter().filter(|condition| !status::OURS.contains(&condition.type_.as_str())) {
            match known.iter_mut().find(|known| known.type_ == condition.type_) {
                Some(known) => *known = condition,
                None => known.push(condition),
            }
        }
    }

    fn notice_deletion(&mut self) {
        if self.pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let spec_grace = self.pod.spec.as_ref().map_or(GRACE_SECONDS, grace_seconds);
        let grace = self.pod.metadata.deletion_grace_period_seconds.unwrap_or(spec_grace);
        let since = self.observed.ending.as_ref().map_or_else(Timestamp::now, |ending| ending.since);
        self.end_by(since + SignedDuration::from_secs(grace.max(0)));
    }

    /// A deadline is only ever brought forward.
    pub(super) fn end_by(&mut self, deadline: Timestamp) {
        let now = Timestamp::now();
        let ending = self.observed.ending.get_or_insert(Ending { since: now, deadline });
        ending.deadline = ending.deadline.min(deadline);
    }

    async fn hear(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Reported(result) => self.report_answered(result),
            Outcome::Pulled(end) => self.pull_ended(end),
            Outcome::PostStart { container, container_id, failure } => {
                self.post_start_ended(&container, &container_id, failure).await;
            }
            Outcome::Stopped { container_id, exit: Some(exit) } => self.ended(&container_id, exit).await,
            Outcome::Stopped { exit: None, .. } => self.resync().await,
        }
    }

    fn report_answered(&mut self, result: Result<Revision, cluster::Error>) {
        let Some(sent) = self.reporting.take() else { return };
        match result {
            Ok(revision) => {
                self.reported = sent;
                self.reported_at = revision;
                self.report_retry = None;
            }
            Err(error) if error.is_gone() => {
                // The watch will tell; until then there is nobody to report to.
                self.reported = sent;
                self.report_retry = None;
            }
            Err(error) => {
                tracing::warn!(pod = %self.id, error = super::act::chain(&error), "status not reported");
                let (first, last) = REPORT_RETRY;
                let now = Timestamp::now();
                self.report_retry = Some(Retry::after(self.report_retry.as_ref(), now, error.to_string(), first, last));
            }
        }
    }

    fn judge(&mut self, verdict: Verdict) {
        let Some((name, series)) = self.observed.containers.iter_mut().find(|(_, series)| {
            series.latest.as_ref().is_some_and(|latest| latest.id == verdict.container_id && latest.is_running())
        }) else {
            return;
        };
        if !verdict.passing {
            let message = format!("{} probe failed: {}", verdict.kind.name(), verdict.message);
            let event = PodEvent { warning: true, reason: "Unhealthy", message, container: Some(name.clone()) };
            self.shared.cluster.event(&self.pod, event);
        }
        let spec = self.pod.spec.as_ref();
        let container = spec.and_then(|spec| super::container(spec, name));
        match (verdict.kind, verdict.passing) {
            (Kind::Readiness, ready) => series.ready = ready,
            (Kind::Startup, true) => series.started = true,
            (Kind::Liveness, true) => {}
            (kind @ (Kind::Startup | Kind::Liveness), false) => {
                let probe = container.as_ref().and_then(|container| match kind {
                    Kind::Startup => container.startup_probe.as_ref(),
                    _ => container.liveness_probe.as_ref(),
                });
                let word = if kind == Kind::Startup { "startup" } else { "liveness" };
                series.condemned = Some(super::observed::Condemned {
                    message: format!("Container {name} failed {word} probe, will be restarted"),
                    grace_seconds: probe.and_then(|probe| probe.termination_grace_period_seconds),
                });
            }
        }
    }

    pub(super) fn event(&self, warning: bool, reason: &'static str, message: String, container: Option<&str>) {
        let event = PodEvent { warning, reason, message, container: container.map(str::to_owned) };
        self.shared.cluster.event(&self.pod, event);
    }

    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// The container of this id, if it is the latest attempt of its name.
    pub(super) fn name_of(&self, container_id: &str) -> Option<String> {
        let latest = |series: &super::observed::Series| series.latest.as_ref().is_some_and(|l| l.id == container_id);
        self.observed.containers.iter().find(|(_, series)| latest(series)).map(|(name, _)| name.clone())
    }

    /// Records that a container ended: its output is complete, its exit known, its stop and probes over.
    pub(super) async fn ended(&mut self, container_id: &str, exit: Exit) {
        let Some(name) = self.name_of(container_id) else { return };
        if let Some(mut pump) = self.pumps.remove(container_id) {
            pump.drained(super::act::DRAIN).await;
        }
        self.workers.remove(container_id);
        if let Some(stop) = self.stops.remove(&name) {
            stop.abort();
        }
        let exited = self.exited(&name, container_id, exit);
        let Some(series) = self.observed.containers.get_mut(&name) else { return };
        series.stopping = None;
        series.condemned = None;
        series.post_start = Hook::Done;
        series.started = false;
        series.ready = false;
        if let Some(latest) = &mut series.latest {
            match &latest.state {
                State::Running { .. } => latest.state = State::Exited(exited),
                State::Exited(_) => {}
            }
        }
    }

    fn exited(&self, name: &str, container_id: &str, exit: Exit) -> Exited {
        let latest = self.observed.latest(name);
        let started_at = latest.and_then(|latest| match latest.state {
            State::Running { started_at, .. } => Some(started_at),
            State::Exited(_) => None,
        });
        let killed = self.shared.cgroups.oom_kills(&format!("{}/{container_id}", self.cgroup())) > 0;
        let reason = match exit.code {
            0 => "Completed",
            _ if killed => "OOMKilled",
            _ => "Error",
        };
        let finished_at = if exit.at == Timestamp::UNIX_EPOCH { Timestamp::now() } else { exit.at };
        let number = latest.map_or(0, |latest| latest.number);
        let message = self.termination_message(name, number, exit.code != 0);
        Exited { code: exit.code, reason: reason.to_owned(), message, started_at, finished_at, settled: false }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}
