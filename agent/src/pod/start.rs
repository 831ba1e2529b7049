//! Starting a container: root file system, spec, record, fifos, task.

use containerd_client::types::Mount as SnapshotMount;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::{
    act::{Error, chain},
    observed::{
        Attempt, Exited, Hook, Retry, Sandbox, StartFailure, State, attempt_labels, container_id, definition_hash,
        label,
    },
    owner::Owner,
    prepare::timed,
};
use crate::{
    logs::{Fifos, Pump},
    runtime::{self, NewContainer},
    spec,
};

/// First and longest waits between tries to make a container.
const START_RETRY: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(2), SignedDuration::from_secs(60));
/// The exit code of a container whose program could not be started (containerd's).
const START_ERROR_CODE: i32 = 128;

impl Owner {
    pub(super) async fn start(&mut self, name: &str, number: u32, backoff_seconds: u32) {
        let Some(container) = self.container(name) else { return };
        let id = container_id(&self.id, name, number);
        let text = container.image.clone().unwrap_or_default();
        let mut attempt = Attempt {
            id: id.clone(),
            number,
            backoff_seconds,
            created_at: self.after_sandbox(Timestamp::now()),
            hash: definition_hash(name, &text),
            image: text.clone(),
            image_id: self.images.get(&text).map(|image| image.image_id.clone()).unwrap_or_default(),
            resources: Some(container.resources.clone().unwrap_or_default()),
            state: State::Running { started_at: Timestamp::now(), pid: 0 },
        };
        let rootfs = match timed("container", self.create_container(&container, &attempt)).await {
            Ok(rootfs) => rootfs,
            Err(error) => return self.start_failed(name, error),
        };
        self.event(false, "Created", "Container created".to_owned(), Some(name));
        match timed("task", self.start_task(&container, &attempt, rootfs)).await {
            Ok((pid, pump)) => {
                // The moment an agent that takes the container back finds as well: containerd keeps no other.
                attempt.state = State::Running { started_at: attempt.created_at, pid };
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

    /// A container is newer than its sandbox, whatever the clock says: one that was set back in between would make it
    /// look like a container of an older sandbox, whose end is followed by a start without a wait.
    fn after_sandbox(&self, now: Timestamp) -> Timestamp {
        match &self.observed.sandbox {
            Sandbox::Ready { ready_at, .. } => now.max(*ready_at),
            Sandbox::Absent | Sandbox::Failed(_) => now,
        }
    }

    /// Notes the new attempt; what was the latest becomes the one before.
    fn started(&mut self, container: &Container, attempt: Attempt) {
        let hook = container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
        let running = attempt.is_running();
        let series = self.series(&container.name);
        if let Some(old) = series.latest.take_if(|latest| latest.id != attempt.id) {
            series.previous = Some(old);
        }
        let image = attempt.image.clone();
        series.latest = Some(attempt);
        series.start_failure = None;
        series.stopping = None;
        series.condemned = None;
        series.post_start = if hook && running { Hook::Pending } else { Hook::Done };
        series.started = running && container.startup_probe.is_none();
        series.ready = running && container.readiness_probe.is_none();
        // The next start asks for it again: the tag may name another image by then.
        self.observed.images.remove(&image);
    }

    fn start_failed(&mut self, name: &str, error: Error) {
        let reason = match &error {
            Error::Spec(error) if error.is_config() => "CreateContainerConfigError",
            _ => "CreateContainerError",
        };
        if matches!(&error, Error::Runtime(error) if error.is_not_found()) {
            // Perhaps the image, removed by hand: it is looked for again.
            let image = self.container(name).and_then(|container| container.image);
            self.observed.images.remove(&image.unwrap_or_default());
        }
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
        labels.insert(label::BOOT_ID.to_owned(), self.shared.boot_id.clone());
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
        let node = self.shared.node();
        let sources = spec::env::Sources {
            pod: &self.pod,
            node_name: &self.shared.node_name,
            pod_ips: self.observed.addresses(),
            host_ips: &node.addresses,
            node_cpu_milli: self.shared.node_cpu_milli,
            node_memory_bytes: self.shared.host.memory_bytes,
            config_maps,
            secrets,
            services: &services,
        };
        Ok(spec::env::build(container, &sources).map_err(spec::Error::from)?)
    }

    async fn start_task(
        &mut self,
        container: &Container,
        attempt: &Attempt,
        rootfs: Vec<SnapshotMount>,
    ) -> Result<(u32, Pump), Error> {
        let shared = self.shared.clone();
        let runtime = &shared.runtime;
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
                Err(error) => {
                    self.lost_shim = true;
                    if error.is_unavailable() {
                        return Err(error.into());
                    }
                    last = Some(error);
                }
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
}

/// Without containerd nothing is known about an attempt; it is not the container that failed.
fn unavailable(error: &Error) -> bool {
    matches!(error, Error::Runtime(error) if error.is_unavailable()) || !matches!(error, Error::Runtime(_))
}
