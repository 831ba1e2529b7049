//! Looking after running containers: their probes, their hooks, and their end.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;

use super::{
    act::chain,
    hooks,
    observed::{Condemned, Hook, State, label},
    owner::{Outcome, Owner},
};
use crate::{
    probe::{Kind, Target, Worker},
    runtime::{self, task::SIGKILL},
};

/// What a container that is asked to end gets at least, whatever its grace period (kubelet's
/// `minimumGracePeriodInSeconds`).
const GRACE_MIN: Duration = Duration::from_secs(2);
/// The kubelet lets hooks after start run without limit; a day bounds what a lost process can hold.
const POST_START_MAX: Duration = Duration::from_secs(24 * 3600);
/// Upstream's limits of termination messages (`MaxContainerTerminationMessageLength` and the log fallback).
const MESSAGE_BYTES_MAX: usize = 4096;
const MESSAGE_LOG_BYTES_MAX: usize = 2048;
const MESSAGE_LOG_LINES_MAX: usize = 80;

impl Owner {
    /// Workers for every probe that should run now; the startup probe holds back the others.
    pub(super) fn probe_running(&mut self) {
        let Some(spec) = self.pod.spec.clone() else { return };
        for (name, series) in &self.observed.containers {
            let Some(latest) = series.latest.as_ref().filter(|latest| latest.is_running()) else { continue };
            let State::Running { started_at, .. } = latest.state else { continue };
            let Some(container) = super::container(&spec, name) else { continue };
            let probes = [
                (Kind::Startup, container.startup_probe.filter(|_| !series.started)),
                (Kind::Readiness, container.readiness_probe.filter(|_| series.started)),
                (Kind::Liveness, container.liveness_probe.filter(|_| series.started)),
            ];
            let workers = self.workers.entry(latest.id.clone()).or_default();
            // A container that is being stopped, or whose startup probe is done, is not asked again.
            let stopping = series.stopping.is_some() || series.condemned.is_some();
            workers.retain(|(kind, _)| match kind {
                Kind::Startup => !series.started && !stopping,
                Kind::Liveness => !stopping,
                Kind::Readiness => true,
            });
            for (kind, probe) in probes {
                let Some(probe) = probe else { continue };
                if workers.iter().any(|(running, _)| *running == kind) || (stopping && kind != Kind::Readiness) {
                    continue;
                }
                let target = Target {
                    pod: self.pod.clone(),
                    container: name.clone(),
                    container_id: latest.id.clone(),
                    pod_ip: self.observed.addresses().first().copied(),
                    started_at,
                    fifos: self.shared.paths.exec(),
                };
                let (runtime, verdicts) = (self.shared.runtime.clone(), self.verdicts.0.clone());
                let worker = Worker::start(runtime, target, kind, probe, verdicts, &self.shared.tasks);
                workers.push((kind, worker));
            }
        }
    }

    pub(super) fn post_start(&mut self, name: &str) {
        let Some(container) = self.container(name) else { return };
        let series = self.series(name);
        series.post_start = Hook::Running;
        let Some(id) = series.latest.as_ref().map(|latest| latest.id.clone()) else { return };
        let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone()) else {
            return;
        };
        let (shared, pod_ip) = (self.shared.clone(), self.observed.addresses().first().copied());
        self.operations.spawn(async move {
            let fifos = shared.paths.exec();
            let target = hooks::Target {
                runtime: &shared.runtime,
                container: &container,
                container_id: &id,
                pod_ip,
                fifos: &fifos,
            };
            let failure = hooks::run(&handler, &target, POST_START_MAX).await.err().map(|error| chain(&error));
            Outcome::PostStart { container: container.name.clone(), container_id: id, failure }
        });
    }

    pub(super) async fn post_start_ended(&mut self, name: &str, container_id: &str, failure: Option<String>) {
        if self.name_of(container_id).as_deref() != Some(name) || !self.series(name).is_running() {
            return;
        }
        match failure {
            None => {
                self.series(name).post_start = Hook::Done;
                let labels = HashMap::from([(label::POST_START_DONE.to_owned(), "true".to_owned())]);
                if let Err(error) = self.shared.runtime.label_container(container_id, labels).await {
                    tracing::warn!(pod = %self.id, container = name, error = chain(&error), "hook may run again");
                }
            }
            Some(message) => {
                self.event(true, "FailedPostStartHook", format!("PostStartHook failed: {message}"), Some(name));
                let message = "FailedPostStartHook".to_owned();
                self.series(name).condemned = Some(Condemned { message, grace_seconds: None });
            }
        }
    }

    /// Starts to end a container: hook, signal, and at the deadline the end by force.
    pub(super) fn stop(&mut self, name: &str, deadline: Timestamp, why: String) {
        let Some(id) = self.observed.latest(name).map(|latest| latest.id.clone()) else {
            return;
        };
        let container = self.container(name).unwrap_or_default();
        if self.observed.series(name).is_some_and(|series| series.stopping.is_none()) {
            self.event(false, "Killing", why, Some(name));
        }
        self.series(name).stopping = Some(deadline);
        let image = container.image.as_deref().and_then(|text| self.images.get(text));
        let signal = stop_signal(&container, image);
        let (shared, pod_ip) = (self.shared.clone(), self.observed.addresses().first().copied());
        let (pod, event_pod) = (self.id.clone(), self.pod.clone());
        let stop = self.operations.spawn(async move {
            let runtime = &shared.runtime;
            let limit = remaining(deadline);
            let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
            if let Some(handler) = handler.filter(|_| !limit.is_zero()) {
                let fifos = shared.paths.exec();
                let target = hooks::Target { runtime, container: &container, container_id: &id, pod_ip, fifos: &fifos };
                if let Err(error) = hooks::run(handler, &target, limit).await {
                    shared.cluster.event(
                        &event_pod,
                        crate::cluster::PodEvent {
                            warning: true,
                            reason: "FailedPreStopHook",
                            message: format!("PreStopHook failed: {}", chain(&error)),
                            container: Some(container.name.clone()),
                        },
                    );
                }
            }
            let end = end_container(runtime, &id, signal, remaining(deadline).max(GRACE_MIN));
            let exit = match end.await {
                Ok(exit) => Some(exit),
                Err(error) => {
                    tracing::warn!(%pod, container = container.name, error = chain(&error), "container not stopped");
                    None
                }
            };
            Outcome::Stopped { container_id: id, exit }
        });
        if let Some(earlier) = self.stops.insert(name.to_owned(), stop) {
            earlier.abort();
        }
    }

    /// The container's last words: its message file, or the end of its log where that is asked for.
    pub(super) fn termination_message(&self, name: &str, number: u32, failed: bool) -> String {
        use std::io::Read;
        let path = self.shared.paths.termination_message(&self.id.uid, name, number);
        let mut bytes = Vec::new();
        if let Ok(file) = std::fs::File::open(&path)
            && let Err(error) = file.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut bytes)
        {
            tracing::debug!(path = %path.display(), %error, "termination message");
        }
        let policy = self.container(name).and_then(|container| container.termination_message_policy);
        if bytes.is_empty() && failed && policy.as_deref() == Some("FallbackToLogsOnError") {
            let log = self.shared.paths.log(&self.id, name, number);
            return crate::logs::file::tail(&log, MESSAGE_LOG_LINES_MAX, MESSAGE_LOG_BYTES_MAX).unwrap_or_default();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn remaining(deadline: Timestamp) -> Duration {
    Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// Signals the container, gives it the time, ends it by force.
async fn end_container(
    runtime: &runtime::Runtime,
    id: &str,
    signal: u32,
    time: Duration,
) -> Result<runtime::Exit, runtime::Error> {
    runtime.kill_task(id, signal, false).await?;
    if let Ok(ended) = tokio::time::timeout(time, runtime.wait_task(id)).await {
        return ended;
    }
    runtime.kill_task(id, SIGKILL, true).await?;
    runtime.wait_task(id).await
}

/// `lifecycle.stopSignal`, else the image's, else SIGTERM.
fn stop_signal(container: &Container, image: Option<&runtime::Image>) -> u32 {
    let own = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone());
    let image = || image.and_then(|image| image.resolved.config.config().as_ref()?.stop_signal().clone());
    let Some(text) = own.or_else(image) else { return runtime::task::SIGTERM };
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    text.parse()
        .ok()
        .or_else(|| name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as u32))
        .unwrap_or(runtime::task::SIGTERM)
}
