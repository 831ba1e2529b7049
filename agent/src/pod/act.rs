//! The steps of a plan, done. Each is safe to repeat after an interruption at any point, and leaves in `observed` what
//! it achieved or why it failed.

use std::{collections::HashMap, time::Duration};

use containerd_client::types::Mount as SnapshotMount;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::{
    hooks,
    observed::{
        Attempt, Condemned, Exited, Hook, Image, Retry, Sandbox, Series, StartFailure, State, Volumes, attempt_labels,
        container_id, definition_hash, exit_labels, label,
    },
    owner::{Outcome, Owner},
    plan::{Step, grace_seconds},
    resources::{Resources, qos},
};
use crate::{
    image::policy::{Decision, Policy},
    logs::{Fifos, Pump},
    probe::{Kind, Target, Worker},
    runtime::{self, NewContainer, task::SIGKILL},
    sandbox, spec, volume,
};

/// First and longest waits between tries, by what failed.
const SANDBOX_RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(500), SignedDuration::from_secs(30));
const VOLUME_RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(500), SignedDuration::from_secs(30));
const IMAGE_RETRY: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(10), SignedDuration::from_secs(300));
const START_RETRY: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(2), SignedDuration::from_secs(60));
const CLEANUP_RETRY: (SignedDuration, SignedDuration) =
    (SignedDuration::from_millis(200), SignedDuration::from_secs(30));
/// Contents of volumes that follow objects of the cluster are brought up to date this often (kubelet's
/// `syncFrequency`), later by up to the spread.
const REFRESH: SignedDuration = SignedDuration::from_secs(60);
const REFRESH_SPREAD_MS: i64 = 15_000;
/// What a container that is asked to end gets at least, whatever its grace period (kubelet's
/// `minimumGracePeriodInSeconds`).
const GRACE_MIN: Duration = Duration::from_secs(2);
/// How long an ended container's output may take to arrive.
pub(super) const DRAIN: Duration = Duration::from_secs(2);
/// The kubelet lets hooks after start run without limit; a day bounds what a lost process can hold.
const POST_START_MAX: Duration = Duration::from_secs(24 * 3600);
/// Upstream's limits of termination messages (`MaxContainerTerminationMessageLength` and the log fallback).
const MESSAGE_BYTES_MAX: usize = 4096;
const MESSAGE_LOG_BYTES_MAX: usize = 2048;
const MESSAGE_LOG_LINES_MAX: usize = 80;
/// The exit code of a container whose program could not be started (containerd's).
const START_ERROR_CODE: i32 = 128;

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

    /// Sandbox, volumes and images depend on nothing of each other.
    async fn prepare(&mut self, steps: Vec<Step>) {
        let containers = steps.iter().filter_map(|step| match step {
            Step::FindImage { container } => self.container(container),
            _ => None,
        });
        let containers = containers.collect::<Vec<_>>();
        let sandbox = async {
            if !steps.contains(&Step::CreateSandbox) {
                return None;
            }
            Some(self.create_sandbox().await)
        };
        let volumes = async {
            if !steps.contains(&Step::PrepareVolumes) {
                return None;
            }
            let context = self.shared.volume_context(self.observed.addresses());
            Some(volume::prepare(&self.pod, &context).await)
        };
        let images = futures_util::future::join_all(containers.iter().map(|container| self.find_image(container)));
        let (sandbox, volumes, images) =
            tokio::join!(timed("sandbox", sandbox), timed("volumes", volumes), timed("images", images));
        if let Some(result) = sandbox {
            self.sandbox_made(result);
        }
        if let Some(result) = volumes {
            self.volumes_made(result);
        }
        for (container, found) in containers.iter().zip(images) {
            self.image_found(container, found);
        }
    }

    async fn create_sandbox(&self) -> Result<sandbox::Record, Error> {
        if let Some(spec) = &self.pod.spec {
            self.shared.cgroups.create_pod(qos(spec), &self.id.uid, Resources::of_pod(spec))?;
        }
        match self.shared.sandboxes.load(&self.id.uid)? {
            Some(record) => Ok(record),
            None => Ok(self.shared.sandboxes.create(&self.pod, &self.shared.node).await?),
        }
    }

    fn sandbox_made(&mut self, result: Result<sandbox::Record, Error>) {
        self.observed.sandbox = match result {
            Ok(record) => {
                let ready_at = record.ready_at.unwrap_or_else(Timestamp::now);
                let addresses = record.addresses.clone();
                self.sandbox = Some(record);
                Sandbox::Ready { addresses, ready_at }
            }
            Err(error) => {
                let message = chain(&error);
                self.event(true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}"), None);
                let before = match &self.observed.sandbox {
                    Sandbox::Failed(retry) => Some(retry),
                    _ => None,
                };
                let (first, last) = SANDBOX_RETRY;
                Sandbox::Failed(Retry::after(before, Timestamp::now(), message, first, last))
            }
        };
    }

    fn volumes_made(&mut self, result: Result<volume::Volumes, volume::Error>) {
        let now = Timestamp::now();
        self.observed.refresh_at = self.pod.spec.as_ref().filter(|spec| has_changing_volumes(spec)).map(|_| {
            // Spread, so that pods started together do not ask together for ever.
            now + REFRESH + SignedDuration::from_millis(rand::random_range(0..REFRESH_SPREAD_MS))
        });
        if let (Volumes::Ready, Err(error)) = (&self.observed.volumes, &result) {
            // What was prepared stays in use; the next refresh may succeed.
            tracing::warn!(pod = %self.id, error = chain(error), "volumes not refreshed");
            return;
        }
        self.observed.volumes = match result {
            Ok(volumes) => {
                self.volumes = volumes;
                Volumes::Ready
            }
            Err(error) => {
                let message = chain(&error);
                self.event(true, "FailedMount", format!("MountVolume.SetUp failed for {message}"), None);
                let before = match &self.observed.volumes {
                    Volumes::Failed(retry) => Some(retry),
                    _ => None,
                };
                let (first, last) = VOLUME_RETRY;
                Volumes::Failed(Retry::after(before, now, message, first, last))
            }
        };
    }

    async fn find_image(&self, container: &Container) -> Result<Option<runtime::Image>, runtime::Error> {
        let runtime = &self.shared.runtime;
        let found = runtime.find_image(container.image.as_deref().unwrap_or_default()).await?;
        if let Some(image) = &found {
            runtime.unpack_image(image).await?;
            if self.observed.series(&container.name).is_none_or(|series| series.latest.is_none()) {
                // Ahead of need, beside the slower work on the sandbox; `remove` takes back what was never used.
                let id = container_id(&self.id, &container.name, 0);
                runtime.prepare_snapshot(&id, &image.resolved.chain_id).await?;
            }
        }
        Ok(found)
    }

    fn image_found(&mut self, container: &Container, found: Result<Option<runtime::Image>, runtime::Error>) {
        let text = container.image.clone().unwrap_or_default();
        let policy = Policy::of(container.image_pull_policy.as_deref(), &text);
        let decision = found.as_ref().ok().map(|found| policy.decide(found.is_some()));
        let (reason, message) = match (found, decision) {
            (Ok(Some(image)), Some(Decision::Use)) => {
                let message = format!("Container image {text:?} already present on machine");
                self.event(false, "Pulled", message, Some(&container.name));
                let present = Image::Present { image_id: image.image_id.clone() };
                self.images.insert(text.clone(), image);
                self.observed.images.insert(text, present);
                return;
            }
            (Ok(_), Some(Decision::Refuse)) => {
                ("ErrImageNeverPull", format!("Container image {text:?} is not present with pull policy of Never"))
            }
            (Ok(_), _) => (
                "ErrImagePull",
                format!("failed to pull image {text:?}: this node cannot pull from registries yet; import the image"),
            ),
            (Err(error @ runtime::Error::Invalid { .. }), _) => ("InvalidImageName", chain(&error)),
            (Err(error), _) => ("ErrImagePull", chain(&error)),
        };
        let kind = if reason == "ErrImageNeverPull" { "ErrImageNeverPull" } else { "Failed" };
        self.event(true, kind, message.clone(), Some(&container.name));
        let before = match self.observed.images.get(&text) {
            Some(Image::Failed { retry, .. }) => Some(retry),
            _ => None,
        };
        let (first, last) = IMAGE_RETRY;
        let retry = Retry::after(before, Timestamp::now(), message, first, last);
        self.observed.images.insert(text, Image::Failed { reason, retry });
    }

    pub(super) fn container(&self, name: &str) -> Option<Container> {
        self.pod.spec.as_ref().and_then(|spec| super::container(spec, name))
    }

    fn series(&mut self, name: &str) -> &mut Series {
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
                // Nothing else can be done about this pod without containerd.
                tokio::time::sleep(GRACE_MIN).await;
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

    async fn start(&mut self, name: &str, number: u32, backoff_seconds: u32) {
        let Some(container) = self.container(name) else { return };
        let id = container_id(&self.id, name, number);
        let text = container.image.clone().unwrap_or_default();
        let mut attempt = Attempt {
            id: id.clone(),
            number,
            backoff_seconds,
            created_at: Timestamp::now(),
            hash: definition_hash(name, &text),
            image: text.clone(),
            image_id: self.images.get(&text).map(|image| image.image_id.clone()).unwrap_or_default(),
            state: State::Running { started_at: Timestamp::now(), pid: 0 },
        };
        let rootfs = match timed("container", self.create_container(&container, &attempt)).await {
            Ok(rootfs) => rootfs,
            Err(error) => return self.start_failed(name, error),
        };
        self.event(false, "Created", "Container created".to_owned(), Some(name));
        match timed("task", self.start_task(&container, &attempt, rootfs)).await {
            Ok((pid, pump)) => {
                attempt.state = State::Running { started_at: Timestamp::now(), pid };
                self.pumps.insert(id, pump);
                self.event(false, "Started", "Container started".to_owned(), Some(name));
                self.started(&container, attempt);
            }
            Err(error) if unavailable(&error) => self.start_failed(name, error),
            Err(error) => {
                let message = chain(&error);
                self.event(true, "Failed", format!("Error: {message}"), Some(name));
                attempt.state = State::Exited(Exited {
                    code: START_ERROR_CODE,
                    reason: "StartError".to_owned(),
                    message,
                    started_at: None,
                    finished_at: Timestamp::now(),
                    settled: false,
                });
                self.started(&container, attempt);
            }
        }
        self.forget_older(name).await;
    }

    /// Notes the new attempt; what was the latest becomes the one before.
    fn started(&mut self, container: &Container, attempt: Attempt) {
        let hook = container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
        let running = attempt.is_running();
        let series = self.series(&container.name);
        if let Some(old) = series.latest.take_if(|latest| latest.id != attempt.id) {
            series.previous = Some(old);
        }
        series.latest = Some(attempt);
        series.start_failure = None;
        series.stopping = None;
        series.condemned = None;
        series.post_start = if hook && running { Hook::Pending } else { Hook::Done };
        series.started = running && container.startup_probe.is_none();
        series.ready = running && container.readiness_probe.is_none();
    }

    fn start_failed(&mut self, name: &str, error: Error) {
        let reason = match &error {
            Error::Spec(error) if error.is_config() => "CreateContainerConfigError",
            _ => "CreateContainerError",
        };
        let message = chain(&error);
        self.event(true, "Failed", format!("Error: {message}"), Some(name));
        let before = self.observed.series(name).and_then(|series| series.start_failure.as_ref());
        let (first, last) = START_RETRY;
        let retry = Retry::after(before.map(|failure| &failure.retry), Timestamp::now(), message, first, last);
        self.series(name).start_failure = Some(StartFailure { reason, retry });
    }

    /// Attempts before the previous one are of no use to anybody.
    async fn forget_older(&mut self, name: &str) {
        let Some(series) = self.observed.series(name) else { return };
        let Some(oldest) = series.previous.as_ref().map(|previous| previous.number) else { return };
        let Some(number) = oldest.checked_sub(1) else { return };
        let id = container_id(&self.id, name, number);
        if let Err(error) = self.shared.runtime.remove_container(&id).await {
            tracing::warn!(pod = %self.id, container = name, error = chain(&error), "old attempt not removed");
        }
        self.remove_attempt_files(name, number, &id);
    }

    fn remove_attempt_files(&self, name: &str, number: u32, id: &str) {
        let paths = &self.shared.paths;
        let log = paths.log(&self.id, name, number);
        let rotated = crate::logs::file::rotated(&log).unwrap_or_default();
        let files = [log, paths.log_link(&self.id, name, id), paths.termination_message(&self.id.uid, name, number)];
        for file in files.into_iter().chain(rotated) {
            if let Err(error) = std::fs::remove_file(&file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(file = %file.display(), %error, "file of an old attempt not removed");
            }
        }
    }

    /// Returns the mounts of the container's root file system.
    async fn create_container(&self, container: &Container, attempt: &Attempt) -> Result<Vec<SnapshotMount>, Error> {
        let pod_spec = self.pod.spec.as_ref().ok_or(Error::Unprepared("pod"))?;
        let image = self.images.get(&attempt.image).ok_or(Error::Unprepared("image"))?;
        let runtime = &self.shared.runtime;
        let (env, rootfs) =
            tokio::join!(self.environment(container), runtime.prepare_snapshot(&attempt.id, &image.resolved.chain_id));
        let (env, rootfs) = (env?, rootfs?);
        let users = self.shared.users(&image.resolved.chain_id, &rootfs);
        let spec = self.oci_spec(pod_spec, container, attempt, image, &users, env)?;
        let mut labels = attempt_labels(&self.id, &self.shared.node_name, &container.name, attempt);
        labels.insert(label::BOOT_ID.to_owned(), super::observe::boot_id());
        labels.insert(label::TTY.to_owned(), container.tty.unwrap_or(false).to_string());
        labels.insert(label::STDIN.to_owned(), container.stdin.unwrap_or(false).to_string());
        let new = NewContainer { id: attempt.id.clone(), image: image.name.clone(), labels, spec };
        match runtime.create_container(new).await {
            // Left by an interrupted start of this same attempt.
            Err(error) if error.is_already_exists() => Ok(rootfs),
            other => Ok(other.map(|()| rootfs)?),
        }
    }

    fn oci_spec(
        &self,
        pod_spec: &PodSpec,
        container: &Container,
        attempt: &Attempt,
        image: &runtime::Image,
        users: &spec::security::UserDatabase,
        env: Vec<(String, String)>,
    ) -> Result<oci_spec::runtime::Spec, Error> {
        let sandbox = self.sandbox.as_ref().ok_or(Error::Unprepared("sandbox"))?;
        let mounts = spec::mounts::host(&spec::mounts::Request {
            uid: &self.id.uid,
            spec: pod_spec,
            container,
            attempt: attempt.number,
            volumes: &self.volumes,
            env: &env,
            paths: &self.shared.paths,
        })
        .map_err(spec::Error::from)?;
        Ok(spec::build(spec::Request {
            uid: &self.id.uid,
            container_id: &attempt.id,
            spec: pod_spec,
            container,
            image: &image.resolved.config,
            users,
            hostname: &sandbox.hostname,
            env,
            mounts,
            namespaces: (&self.shared.paths.namespaces(&self.id.uid), &sandbox.namespaces),
            cgroup: &self.cgroup(),
            host: &self.shared.host,
        })?)
    }

    async fn environment(&self, container: &Container) -> Result<Vec<(String, String)>, Error> {
        let cluster = &self.shared.cluster;
        let namespace = &self.id.namespace;
        let wanted = spec::env::references(container);
        let mut config_maps = std::collections::BTreeMap::new();
        for name in wanted.config_maps {
            if let Some(found) = cluster.config_map(namespace, &name).await? {
                config_maps.insert(name, found);
            }
        }
        let mut secrets = std::collections::BTreeMap::new();
        for name in wanted.secrets {
            if let Some(found) = cluster.secret(namespace, &name).await? {
                secrets.insert(name, found);
            }
        }
        let services = cluster.services(namespace).await?;
        let sources = spec::env::Sources {
            pod: &self.pod,
            node_name: &self.shared.node_name,
            pod_ips: self.observed.addresses(),
            host_ips: &self.shared.node.addresses,
            node_cpu_milli: self.shared.node_cpu_milli,
            node_memory_bytes: self.shared.host.memory_bytes,
            config_maps,
            secrets,
            services: &services,
        };
        Ok(spec::env::build(container, &sources).map_err(spec::Error::from)?)
    }

    async fn start_task(
        &self,
        container: &Container,
        attempt: &Attempt,
        rootfs: Vec<SnapshotMount>,
    ) -> Result<(u32, Pump), Error> {
        let runtime = &self.shared.runtime;
        let directory = self.shared.paths.container(&self.id.uid, &container.name);
        std::fs::create_dir_all(&directory).map_err(|source| Error::Io {
            action: "create",
            path: directory.display().to_string(),
            source,
        })?;
        let fifos = self.fifos(container, attempt.number);
        // Before the task exists: its end may be the next thing to happen.
        self.shared.register(&attempt.id, &self.inbox);
        let mut last = None;
        // Twice, because containerd 1.6 may take away the socket of the pod's shim while another task uses it.
        for _ in 0..2 {
            if last.is_some() {
                // Also a task that an interrupted start of this attempt left.
                runtime.kill_and_delete_task(&attempt.id).await?;
            }
            fifos.remove();
            fifos.create()?;
            let pump = self.open_log(container, attempt, &fifos)?;
            match runtime.create_task(&attempt.id, rootfs.clone(), &fifos.io()).await {
                Ok(_) => {
                    let pid = runtime.start_task(&attempt.id).await?;
                    return Ok((pid, pump));
                }
                Err(error) if error.is_unavailable() => return Err(error.into()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(Error::Unprepared("task"), Error::from))
    }

    pub(super) fn open_log(&self, container: &Container, attempt: &Attempt, fifos: &Fifos) -> Result<Pump, Error> {
        let paths = &self.shared.paths;
        let log = paths.log(&self.id, &container.name, attempt.number);
        let pump = self.shared.streams.start(&attempt.id, fifos, &log, &self.shared.tasks)?;
        let link = paths.log_link(&self.id, &container.name, &attempt.id);
        let linked = link.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            match std::os::unix::fs::symlink(&log, &link) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        });
        if let Err(error) = linked {
            tracing::warn!(link = %link.display(), %error, "log not linked");
        }
        Ok(pump)
    }

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

    fn post_start(&mut self, name: &str) {
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
    fn stop(&mut self, name: &str, deadline: Timestamp, why: String) {
        let Some(id) =
            self.observed.series(name).and_then(|series| series.latest.as_ref()).map(|latest| latest.id.clone())
        else {
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
                self.shared.runtime.remove_container(&record.id).await?;
            }
        }
        self.shared.sandboxes.tear_down(uid).await?;
        volume::remove(uid, &self.shared.paths).await?;
        sandbox::mounts::unmount_below(&self.shared.paths.pod(uid)).map_err(sandbox::Error::from)?;
        self.shared.cgroups.remove_pod(uid)?;
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), Error> {
        let uid = self.id.uid.clone();
        for record in self.shared.runtime.list_containers(&[(label::POD_UID, &uid)]).await? {
            self.shared.runtime.remove_container(&record.id).await?;
            self.shared.unregister(&record.id);
            if let Some(name) = record.labels.get(label::CONTAINER) {
                remove_file(&self.shared.paths.log_link(&self.id, name, &record.id))?;
            }
        }
        self.pumps.clear();
        // Root file systems that were prepared for containers that never came to be.
        for container in self.pod.spec.iter().flat_map(super::all_containers) {
            let next = self.observed.series(&container.name).and_then(|series| series.latest.as_ref());
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

    async fn leave(&mut self) -> Result<(), Error> {
        if self.observed.gone {
            return Ok(());
        }
        match self.shared.cluster.delete_pod(&self.id).await {
            Err(error) if !error.is_gone() => Err(error.into()),
            Err(_) | Ok(()) => Ok(()),
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

/// Notes how long a part of the way to a running container took.
async fn timed<T>(what: &'static str, part: impl Future<Output = T>) -> T {
    let begun = std::time::Instant::now();
    let done = part.await;
    tracing::trace!(what, elapsed = ?begun.elapsed(), "done");
    done
}

/// Volumes whose contents follow objects of the cluster.
fn has_changing_volumes(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    })
}

/// Without containerd nothing is known about an attempt; it is not the container that failed.
fn unavailable(error: &Error) -> bool {
    matches!(error, Error::Runtime(error) if error.is_unavailable()) || !matches!(error, Error::Runtime(_))
}

fn remove_file(path: &std::path::Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.display().to_string(), source })
        }
        _ => Ok(()),
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
