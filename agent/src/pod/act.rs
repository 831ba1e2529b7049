//! The steps of a plan, done. Each is safe to repeat after an interruption at any point, and leaves in `observed` what
//! it achieved or why it failed. Here is what comes first and last in a pod's life; `prepare`, `start` and `attend` have
//! the steps between.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::{
    observed::{Retry, Series, State, container_id, exit_labels, label},
    owner::Owner,
    plan::{Step, grace_seconds},
    prepare::GUARD_LIMIT,
    resources::qos,
};
use crate::{logs::Fifos, runtime, sandbox, spec, volume};

const CLEANUP_RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(200), SignedDuration::from_secs(30));
/// Between tries to record an exit: without containerd nothing else can be done about the pod.
const SETTLE_RETRY: Duration = Duration::from_secs(2);
/// How long an ended container's output may take to arrive.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Volume(#[from] volume::Error),
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    #[error(transparent)]
    Spec(#[from] spec::Error),
    #[error(transparent)]
    Logs(#[from] crate::logs::Error),
    #[error(transparent)]
    Cluster(#[from] crate::cluster::Error),
    #[error("{action} {path}")]
    Io { action: &'static str, path: String, source: std::io::Error },
    #[error("network policies could not be applied to the pod within {GUARD_LIMIT:?}")]
    Unguarded,
    #[error("{0} is not prepared")]
    Unprepared(&'static str),
}

/// With its sources: what the user reads in events and statuses.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}
impl Owner {
    pub(super) fn cgroup(&self) -> String {
        let qos = self.pod.spec.as_ref().map_or(super::resources::Qos::BestEffort, qos);
        self.shared.cgroups.pod_path(qos, &self.id.uid)
    }

    /// Preparations together, then the first other step; the plan is made again after it.
    pub(super) async fn act(&mut self, steps: Vec<Step>) {
        let (preparations, others): (Vec<_>, Vec<_>) = steps.into_iter().partition(Step::is_preparation);
        if !preparations.is_empty() {
            return self.prepare(preparations).await;
        }
        for step in others {
            let again = matches!(step, Step::Start { .. } | Step::Expire | Step::Finish);
            self.act_one(step).await;
            if again {
                return;
            }
        }
    }

    async fn act_one(&mut self, step: Step) {
        match step {
            Step::CreateSandbox | Step::PrepareVolumes | Step::FindImage { .. } => self.prepare(vec![step]).await,
            Step::Settle { container } => self.settle(&container).await,
            Step::Start { container, number, backoff_seconds } => self.start(&container, number, backoff_seconds).await,
            Step::PostStart { container } => self.post_start(&container),
            Step::Resize => self.resize().await,
            Step::Stop { container, deadline, why } => self.stop(&container, deadline, why),
            Step::Expire => {
                self.observed.expired = true;
                let grace = self.pod.spec.as_ref().map_or(0, grace_seconds);
                self.end_by(Timestamp::now() + SignedDuration::from_secs(grace));
                let text = "Pod was active on the node longer than the specified deadline";
                self.event(true, "DeadlineExceeded", text.to_owned(), None);
            }
            Step::TearDown => {
                let result = self.tear_down().await;
                self.observed.torn_down = self.cleaned("tear down", result);
            }
            Step::Remove => {
                let result = self.remove().await;
                self.observed.containers_removed = self.cleaned("remove", result);
            }
            Step::Finish => {
                let result = self.leave().await;
                if self.cleaned("delete", result) {
                    self.finish();
                }
            }
        }
    }

    fn cleaned(&mut self, action: &str, result: Result<(), Error>) -> bool {
        let Err(error) = result else {
            self.observed.cleanup_failure = None;
            return true;
        };
        let message = chain(&error);
        tracing::warn!(pod = %self.id, action, error = message, "cleanup is tried again");
        let (first, last) = CLEANUP_RETRY;
        let before = self.observed.cleanup_failure.as_ref();
        self.observed.cleanup_failure = Some(Retry::after(before, Timestamp::now(), message, first, last));
        false
    }

    pub(super) fn container(&self, name: &str) -> Option<Container> {
        self.pod.spec.as_ref().and_then(|spec| super::container(spec, name))
    }

    pub(super) fn series(&mut self, name: &str) -> &mut Series {
        self.observed.containers.entry(name.to_owned()).or_default()
    }

    /// Writes an exit into the record, then lets the task go. In this order: until the label stands, the stopped task
    /// is the only witness.
    async fn settle(&mut self, name: &str) {
        let Some(latest) = self.observed.series(name).and_then(|series| series.latest.clone()) else { return };
        let Some(exited) = latest.exited() else { return };
        let result = async {
            self.shared.runtime.label_container(&latest.id, exit_labels(exited)).await?;
            self.shared.runtime.delete_task(&latest.id).await
        };
        match result.await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(pod = %self.id, container = name, error = chain(&error), "exit not recorded yet");
                tokio::time::sleep(SETTLE_RETRY).await;
                return;
            }
            Err(_) | Ok(()) => {}
        }
        self.shared.unregister(&latest.id);
        if let Some(definition) = self.container(name) {
            self.fifos(&definition, latest.number).remove();
        }
        if let Some(State::Exited(exited)) = self.series(name).latest.as_mut().map(|latest| &mut latest.state) {
            exited.settled = true;
        }
    }

    pub(super) fn fifos(&self, container: &Container, number: u32) -> Fifos {
        let path = |stream: &str| self.shared.paths.fifo(&self.id.uid, &container.name, number, stream);
        Fifos {
            stdin: container.stdin.unwrap_or(false).then(|| path("stdin")),
            stdout: path("stdout"),
            stderr: (!container.tty.unwrap_or(false)).then(|| path("stderr")),
        }
    }

    async fn tear_down(&mut self) -> Result<(), Error> {
        self.workers.clear();
        let uid = &self.id.uid;
        let known = |id: &str| {
            self.observed
                .containers
                .values()
                .any(|series| [&series.latest, &series.previous].into_iter().flatten().any(|attempt| attempt.id == id))
        };
        // Records whose labels this agent does not understand, such as another version's.
        for record in self.shared.runtime.list_containers(&[(label::POD_UID, uid)]).await? {
            if !known(&record.id) {
                self.remove_record(&record).await?;
            }
        }
        self.shared.sandboxes.tear_down(uid).await?;
        if let Some(guard) = &self.shared.guard {
            guard.leave(uid);
        }
        volume::remove(uid, &self.shared.paths).await?;
        sandbox::mounts::unmount_below(&self.shared.paths.pod(uid)).map_err(sandbox::Error::from)?;
        self.shared.cgroups.remove_pod(uid)?;
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), Error> {
        let uid = self.id.uid.clone();
        for record in self.shared.runtime.list_containers(&[(label::POD_UID, &uid)]).await? {
            self.remove_record(&record).await?;
            self.shared.unregister(&record.id);
        }
        if self.lost_shim {
            self.shared.runtime.end_lost_shim(&uid);
            self.lost_shim = false;
        }
        self.pumps.clear();
        // Root file systems that were prepared for containers that never came to be.
        for container in self.pod.spec.iter().flat_map(super::all_containers) {
            let next = self.observed.latest(&container.name);
            let id = container_id(&self.id, &container.name, next.map_or(0, |latest| latest.number + 1));
            self.shared.runtime.remove_snapshot(&id).await?;
        }
        // Again: the OCI runtime may have left a cgroup of a container behind.
        self.shared.cgroups.remove_pod(&uid)?;
        self.shared.sandboxes.remove_files(&uid)?;
        let logs = self.shared.paths.pod_logs(&self.id);
        match std::fs::remove_dir_all(&logs) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove", path: logs.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }

    /// A container with its log's link.
    pub(super) async fn remove_record(&self, record: &runtime::Container) -> Result<(), Error> {
        self.shared.runtime.remove_container(&record.id).await?;
        match record.labels.get(label::CONTAINER) {
            Some(name) => remove_file(&self.shared.paths.log_link(&self.id, name, &record.id)),
            None => Ok(()),
        }
    }

    async fn leave(&mut self) -> Result<(), Error> {
        if self.observed.gone {
            return Ok(());
        }
        match self.shared.cluster.delete_pod(&self.id).await {
            Err(error) if !error.is_gone() => Err(error.into()),
            Err(_) | Ok(()) => Ok(()),
        }
    }
}

fn remove_file(path: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.display().to_string(), source })
        }
        _ => Ok(()),
    }
}
