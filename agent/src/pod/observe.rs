//! Observation: what containerd and the kernel say about a pod's things, at the start of an owner and whenever events
//! may have been lost.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;

use super::{
    act::chain,
    observed::{Attempt, Condemned, Exited, Hook, Sandbox, Series, State, attempt, label},
    owner::Owner,
};
use crate::runtime::{Container, Task, TaskState};

/// A container record and its task, as found when the agent starts.
pub type Found = (Container, Option<Task>);

/// The exit code of a container that a reboot ended: nobody saw how.
const LOST_CODE: i32 = 255;

impl Owner {
    /// Takes back what an earlier agent left running, without touching it.
    pub(super) async fn take_over(&mut self, found: Vec<Found>) {
        self.lost_shim = !found.is_empty() || self.shared.paths.pod(&self.id.uid).exists();
        self.load_sandbox();
        let mut found = found
            .into_iter()
            .filter_map(|(record, task)| {
                let name = record.labels.get(label::CONTAINER)?.clone();
                Some((name, attempt(&record.id, &record.labels)?, record, task))
            })
            .collect::<Vec<_>>();
        found.sort_by_key(|(_, attempt, ..)| attempt.number);
        for (name, attempt, record, task) in found {
            self.take_container(&name, attempt, &record, task).await;
        }
        if self.observed.sandbox == Sandbox::Absent {
            self.recover_sandbox();
        }
        let attached = self.sandbox.as_ref().filter(|record| record.attachment.is_some());
        if let (Some(guard), Some(record)) = (&self.shared.guard, attached) {
            guard.tell(&self.pod, &record.addresses);
            if self.observed.containers.is_empty() {
                // Nothing has run in it yet, perhaps because it was not protected: it is prepared again.
                self.observed.sandbox = Sandbox::Absent;
            }
        }
    }

    /// Containers that run do so in a sandbox, even if nothing is written about it any more.
    fn recover_sandbox(&mut self) {
        let attempts = self.observed.containers.values().filter_map(|series| series.latest.as_ref());
        let since = attempts.clone().map(|attempt| attempt.created_at).min();
        let process = attempts.filter_map(|attempt| match attempt.state {
            State::Running { pid, .. } if pid != 0 => Some(pid),
            _ => None,
        });
        let (Some(process), Some(since)) = (process.min(), since) else { return };
        match self.shared.sandboxes.recover(&self.pod, &self.shared.node(), process, since) {
            Ok(record) => {
                tracing::info!(pod = %self.id, "sandbox found again by its processes");
                self.observed.sandbox = Sandbox::Ready { addresses: record.addresses.clone(), ready_at: since };
                self.sandbox = Some(record);
            }
            Err(error) => {
                tracing::warn!(pod = %self.id, error = chain(&error), "sandbox is made again, containers with it");
                let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
                for series in self.observed.containers.values_mut().filter(|series| series.is_running()) {
                    series.condemned = Some(Condemned { message: message.clone(), grace_seconds: None });
                }
            }
        }
    }

    fn load_sandbox(&mut self) {
        match self.shared.sandboxes.load(&self.id.uid) {
            Ok(Some(record)) => {
                let ready_at = record.ready_at.unwrap_or_else(Timestamp::now);
                self.observed.sandbox = Sandbox::Ready { addresses: record.addresses.clone(), ready_at };
                self.sandbox = Some(record);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(pod = %self.id, error = chain(&error), "sandbox record not read"),
        }
    }

    async fn take_container(&mut self, name: &str, mut attempt: Attempt, record: &Container, task: Option<Task>) {
        if attempt.is_running() {
            match &task {
                // Unknown: its shim did not answer containerd in time, as on a busy host after a restart. It is there, and
                // is asked again.
                Some(task) if matches!(task.state, TaskState::Running | TaskState::Paused | TaskState::Unknown) => {
                    if task.state == TaskState::Unknown {
                        self.inbox.put(|letters| letters.resync = true);
                    }
                    attempt.state = State::Running { started_at: attempt.created_at, pid: task.pid };
                    self.shared.register(&attempt.id, &self.inbox);
                    self.follow_log(name, &attempt);
                }
                Some(task) if task.state == TaskState::Stopped => {
                    self.shared.register(&attempt.id, &self.inbox);
                    self.follow_log(name, &attempt);
                    // Read by `ended` below, which needs the attempt in its place.
                }
                _ if record.labels.get(label::BOOT_ID) == Some(&self.shared.boot_id) && !self.has_run(&attempt.id) => {
                    // Made but never started: an agent stopped in between. The same attempt is made again.
                    if let Err(error) = self.remove_record(record).await {
                        tracing::warn!(pod = %self.id, container = name, error = chain(&error), "half-made container");
                    }
                    return;
                }
                _ => attempt.state = State::Exited(lost(&attempt)),
            }
        }
        let id = attempt.id.clone();
        let definition = self.container(name).unwrap_or_default();
        let hook = definition.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
        let hook_pending = hook && !record.labels.contains_key(label::POST_START_DONE);
        let (was_started, was_ready) = self.reported_state(&id);
        let series = self.observed.containers.entry(name.to_owned()).or_default();
        let running = attempt.is_running();
        *series = Series {
            previous: series.latest.take(),
            latest: Some(attempt),
            post_start: if hook_pending && running { Hook::Pending } else { Hook::Done },
            started: running && (definition.startup_probe.is_none() || was_started),
            ready: running && (definition.readiness_probe.is_none() || was_ready),
            ..Series::default()
        };
        if let Some(task) = task.filter(|task| running && task.state == TaskState::Stopped) {
            self.ended(&id, task.exit).await;
        }
    }

    /// Whether the server was told that a container runs, or how it ended.
    fn has_run(&self, container_id: &str) -> bool {
        self.told(container_id).is_some_and(|told| {
            told.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        })
    }

    fn told(&self, container_id: &str) -> Option<&ContainerStatus> {
        let full = format!("containerd://{container_id}");
        let status = self.pod.status.as_ref()?;
        let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten().find(|status| status.container_id.as_ref() == Some(&full))
    }

    /// What the server was last told about a container: probes go on from there, so that a restarted agent does not
    /// take ready pods out of their Services.
    fn reported_state(&self, container_id: &str) -> (bool, bool) {
        self.told(container_id).map_or((false, false), |status| (status.started.unwrap_or(false), status.ready))
    }

    fn follow_log(&mut self, name: &str, attempt: &Attempt) {
        let Some(container) = self.container(name) else { return };
        let fifos = self.fifos(&container, attempt.number);
        match self.open_log(&container, attempt, &fifos) {
            Ok(pump) => drop(self.pumps.insert(attempt.id.clone(), pump)),
            Err(error) => tracing::warn!(pod = %self.id, container = name, error = chain(&error), "output is not read"),
        }
    }

    /// Compares what should run with containerd's tasks.
    pub(super) async fn resync(&mut self) {
        let running = self.observed.containers.values().filter_map(|series| series.latest.as_ref());
        let running = running.filter(|latest| latest.is_running()).map(|latest| latest.id.clone()).collect::<Vec<_>>();
        for id in running {
            match self.shared.runtime.task(&id).await {
                Ok(Some(task)) if task.state == TaskState::Stopped => self.ended(&id, task.exit).await,
                Ok(Some(_)) => {}
                Ok(None) => {
                    let exit = crate::runtime::Exit { code: LOST_CODE, at: Timestamp::now() };
                    self.ended(&id, exit).await;
                }
                Err(error) => return tracing::warn!(pod = %self.id, error = chain(&error), "tasks not compared"),
            }
        }
    }
}

fn lost(attempt: &Attempt) -> Exited {
    Exited {
        code: LOST_CODE,
        reason: "Unknown".to_owned(),
        message: String::new(),
        started_at: Some(attempt.created_at),
        finished_at: Timestamp::now(),
        settled: false,
    }
}
