//! Tasks: the running side of a container.

use std::path::PathBuf;

use containerd_client::{
    services::v1::{
        CloseIoRequest, CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, ListTasksRequest,
        ResizePtyRequest, StartRequest, UpdateTaskRequest, WaitRequest, tasks_client::TasksClient,
    },
    types::{
        Mount,
        v1::{Process, Status},
    },
};
use jiff::Timestamp;
use oci_spec::runtime::LinuxResources;
use prost_types::Any;

use super::{Error, Result, Runtime, answered, gone_is_fine, options};

/// How containerd names the type of an OCI runtime's resources in JSON.
const RESOURCES_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    Created,
    Running,
    Stopped,
    Paused,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub container_id: String,
    pub pid: u32,
    pub state: TaskState,
    /// Meaningful when `state` is `Stopped`.
    pub exit: Exit,
}

/// How a process ended. Ended by signal N is code 128 + N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    pub at: Timestamp,
}

/// Fifos of a process, opened by the reader before the task is created: creation waits for readers.
#[derive(Clone, Debug, Default)]
pub struct Io {
    pub stdin: Option<PathBuf>,
    pub stdout: Option<PathBuf>,
    /// Must be set when `stdout` is, except with a terminal: containerd opens an empty path otherwise and fails.
    pub stderr: Option<PathBuf>,
    pub terminal: bool,
}

impl Io {
    fn path(path: &Option<PathBuf>) -> String {
        path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    }
    pub(super) fn paths(&self) -> [String; 3] {
        [Self::path(&self.stdin), Self::path(&self.stdout), Self::path(&self.stderr)]
    }
}

pub const SIGTERM: u32 = 15;
pub const SIGKILL: u32 = 9;

impl Runtime {
    pub(super) fn tasks(&self) -> TasksClient<tonic::transport::Channel> {
        TasksClient::new(self.channel())
    }

    /// Makes the container's init process, not yet running its program. Calls for containers that share a shim must
    /// not overlap: containerd may then remove a live shim's socket and start a second shim.
    pub async fn create_task(&self, id: &str, rootfs: Vec<Mount>, io: &Io) -> Result<u32> {
        let [stdin, stdout, stderr] = io.paths();
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin,
            stdout,
            stderr,
            terminal: io.terminal,
            options: Some(options::encode(self.oci_runtime())),
            ..CreateTaskRequest::default()
        };
        // The message of a container that cannot start, in upstream's words. It names no attempt: every attempt fails
        // with the same text, and events about it add up.
        Ok(answered(self.tasks().create(self.request(request)).await, "failed to create", "containerd task")?.pid)
    }

    pub async fn start_task(&self, id: &str) -> Result<u32> {
        let request = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
        Ok(answered(self.tasks().start(self.request(request)).await, "start task", id)?.pid)
    }

    /// `None` when the container has no task.
    pub async fn task(&self, id: &str) -> Result<Option<Task>> {
        let request = GetRequest { container_id: id.to_owned(), exec_id: String::new() };
        match answered(self.tasks().get(self.request(request)).await, "get task", id) {
            Ok(found) => Ok(found.process.map(|process| Task::new(id, process))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn list_tasks(&self) -> Result<Vec<Task>> {
        let result = self.tasks().list(self.request(ListTasksRequest::default())).await;
        let tasks = answered(result, "list tasks", self.namespace())?.tasks;
        // A listed process has the container's id in `id` (1.6 leaves `container_id` empty).
        Ok(tasks.into_iter().map(|process| Task::new(&process.id.clone(), process)).collect())
    }

    /// Signals the container's init process, or every process of the container with `all`.
    pub async fn kill_task(&self, id: &str, signal: u32, all: bool) -> Result<()> {
        let request = KillRequest { container_id: id.to_owned(), exec_id: String::new(), signal, all };
        gone_is_fine(answered(self.tasks().kill(self.request(request)).await, "kill task", id))
    }

    /// Resizes the terminal of a container that has one.
    pub async fn resize_task(&self, id: &str, width: u32, height: u32) -> Result<()> {
        let request = ResizePtyRequest { container_id: id.to_owned(), exec_id: String::new(), width, height };
        answered(self.tasks().resize_pty(self.request(request)).await, "resize terminal of", id)?;
        Ok(())
    }

    /// Gives the cgroup of a running container other limits. What `resources` does not name stays.
    pub async fn update_task(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let value = serde_json::to_vec(resources).map_err(|source| Error::Json {
            what: "resources of container",
            digest: id.to_owned(),
            source,
        })?;
        let resources = Some(Any { type_url: RESOURCES_TYPE_URL.to_owned(), value });
        let request = UpdateTaskRequest { container_id: id.to_owned(), resources, ..UpdateTaskRequest::default() };
        answered(self.tasks().update(self.request(request)).await, "update task", id)?;
        Ok(())
    }

    /// Ends the input of a container's init process for good.
    pub async fn close_task_stdin(&self, id: &str) -> Result<()> {
        let request = CloseIoRequest { container_id: id.to_owned(), exec_id: String::new(), stdin: true };
        let result = self.tasks().close_io(self.request(request)).await.map(|answer| answer.map(drop));
        gone_is_fine(answered(result, "close input of", id))
    }

    /// Returns when the task has ended.
    pub async fn wait_task(&self, id: &str) -> Result<Exit> {
        let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
        let ended = answered(self.tasks().wait(self.stream_request(request)).await, "wait for task", id)?;
        Ok(Exit { code: ended.exit_status as i32, at: timestamp(ended.exited_at) })
    }

    /// Success when there is no task.
    pub async fn delete_task(&self, id: &str) -> Result<()> {
        let request = DeleteTaskRequest { container_id: id.to_owned() };
        gone_is_fine(answered(self.tasks().delete(self.request(request)).await.map(|r| r.map(drop)), "delete task", id))
    }

    /// Ends a task at once, however it stands.
    pub async fn kill_and_delete_task(&self, id: &str) -> Result<()> {
        match self.task(id).await? {
            None => return Ok(()),
            Some(task) if task.state == TaskState::Stopped => {}
            Some(_) => {
                self.kill_task(id, SIGKILL, true).await?;
                match self.wait_task(id).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    Err(_) | Ok(_) => {}
                }
            }
        }
        self.delete_task(id).await
    }
}

impl Task {
    fn new(container_id: &str, process: Process) -> Self {
        let state = match process.status() {
            Status::Created => TaskState::Created,
            Status::Running => TaskState::Running,
            Status::Stopped => TaskState::Stopped,
            Status::Paused | Status::Pausing => TaskState::Paused,
            Status::Unknown => TaskState::Unknown,
        };
        Self {
            container_id: container_id.to_owned(),
            pid: process.pid,
            state,
            exit: Exit { code: process.exit_status as i32, at: timestamp(process.exited_at) },
        }
    }
}

/// The epoch stands for "not known".
pub(super) fn timestamp(value: Option<prost_types::Timestamp>) -> Timestamp {
    let value = value.unwrap_or_default();
    // Go's zero time is in the year 1, which jiff can hold but nobody wants to read.
    if value.seconds <= 0 {
        return Timestamp::UNIX_EPOCH;
    }
    Timestamp::new(value.seconds, value.nanos).unwrap_or(Timestamp::UNIX_EPOCH)
}
