//! Extra processes in a running container: for `kubectl exec`, exec probes and lifecycle hooks.
//!
//! Every exec has a directory of its own for its fifos, removed with it. An `Exec` that is dropped before `finish` is
//! killed and deleted in the background.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use prost_types::Any;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::{self, Receiver, Sender},
};

use super::{
    Error, Exit, Io, Result, Runtime, answered, gone_is_fine,
    task::{SIGKILL, timestamp},
};

const PROCESS_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// A process that left its output open to others does not end our reading of it for longer than this.
const DRAIN: Duration = Duration::from_secs(2);

/// Distinguishes execs of one agent process; the process id in the name distinguishes agents.
static SEQUENCE: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    pub container_id: String,
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With a terminal everything comes through `stdout`.
    pub tty: bool,
}

/// A started process. Take the pipes out to use them; see `close_stdin` for how its input ends.
pub struct Exec {
    pub stdin: Option<Sender>,
    pub stdout: Option<Receiver>,
    pub stderr: Option<Receiver>,
    runtime: Runtime,
    container_id: String,
    id: String,
    directory: PathBuf,
    finished: bool,
}

pub struct Output {
    pub exit: Exit,
    /// Standard output and error, interleaved as they came, cut at the limit.
    pub output: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("command timed out after {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Runtime(#[from] Error),
}

impl Runtime {
    /// Starts a process in a running container. `fifos` is the directory below which the fifos are made; containerd
    /// must see the same path.
    pub async fn exec(&self, request: ExecRequest, fifos: &Path) -> Result<Exec> {
        let container = self.container(&request.container_id).await?;
        let spec: Spec = serde_json::from_slice(&container.spec).map_err(|source| Error::Json {
            what: "spec of container",
            digest: request.container_id.clone(),
            source,
        })?;
        let mut process = spec.process().clone().unwrap_or_default();
        process.set_args(Some(request.command.clone())).set_terminal(Some(request.tty));
        let process = serde_json::to_vec(&process).map_err(|source| Error::Json {
            what: "process for container",
            digest: request.container_id.clone(),
            source,
        })?;

        let id = format!("exec-{}-{}", std::process::id(), SEQUENCE.fetch_add(1, Ordering::Relaxed));
        let mut exec = Exec {
            stdin: None,
            stdout: None,
            stderr: None,
            runtime: self.clone(),
            container_id: request.container_id.clone(),
            directory: fifos.join(&id),
            id,
            finished: false,
        };
        let io = exec.open(&request)?;
        let [stdin, stdout, stderr] = io.paths();
        let added = self
            .tasks()
            .exec(self.request(ExecProcessRequest {
                container_id: request.container_id.clone(),
                stdin,
                stdout,
                stderr,
                terminal: request.tty,
                spec: Some(Any { type_url: PROCESS_TYPE_URL.to_owned(), value: process }),
                exec_id: exec.id.clone(),
            }))
            .await;
        answered(added, "add process to", &request.container_id)?;
        let start = StartRequest { container_id: request.container_id.clone(), exec_id: exec.id.clone() };
        answered(self.tasks().start(self.request(start)).await, "start process in", &request.container_id)?;
        Ok(exec)
    }

    /// Runs a command to its end and returns at most `limit` bytes of its output. Killed at `timeout`.
    pub async fn exec_capture(
        &self,
        container_id: &str,
        command: Vec<String>,
        fifos: &Path,
        limit: usize,
        timeout: Duration,
    ) -> std::result::Result<Output, CaptureError> {
        let request = ExecRequest {
            container_id: container_id.to_owned(),
            command,
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let run = async {
            let mut exec = self.exec(request, fifos).await?;
            let mut output = Vec::new();
            let (stdout, stderr) = (exec.stdout.take(), exec.stderr.take());
            let exit = {
                let collect = collect(stdout, stderr, &mut output, limit);
                tokio::pin!(collect);
                tokio::select! {
                    exit = exec.wait() => {
                        // Output written before the end is in the pipe; a child that holds it open is not waited for.
                        let _still_open = tokio::time::timeout(DRAIN, collect).await;
                        exit?
                    }
                    () = &mut collect => exec.wait().await?,
                }
            };
            exec.finish().await?;
            Ok::<_, Error>(Output { exit, output })
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(result) => Ok(result?),
            Err(_elapsed) => Err(CaptureError::TimedOut(timeout)),
        }
    }
}

async fn collect(mut stdout: Option<Receiver>, mut stderr: Option<Receiver>, output: &mut Vec<u8>, limit: usize) {
    async fn read(pipe: &mut Option<Receiver>, chunk: &mut [u8]) -> usize {
        match pipe {
            // A read error ends the stream like its end does.
            Some(open) => open.read(chunk).await.unwrap_or(0),
            None => std::future::pending().await,
        }
    }
    let (mut first, mut second) = ([0; 4096], [0; 4096]);
    while stdout.is_some() || stderr.is_some() {
        let chunk = tokio::select! {
            count = read(&mut stdout, &mut first) => {
                if count == 0 { stdout = None }
                &first[..count]
            }
            count = read(&mut stderr, &mut second) => {
                if count == 0 { stderr = None }
                &second[..count]
            }
        };
        // Past the limit the pipe is still emptied, else the process would block on it.
        let room = limit.saturating_sub(output.len()).min(chunk.len());
        output.extend_from_slice(&chunk[..room]);
    }
}

impl Exec {
    pub fn id(&self) -> &str {
        &self.id
    }

    fn open(&mut self, request: &ExecRequest) -> Result<Io> {
        let failed = |action: &'static str, path: &Path| {
            let path = path.display().to_string();
            move |source: std::io::Error| Error::Io { action, path, source }
        };
        std::fs::create_dir_all(&self.directory).map_err(failed("create", &self.directory))?;
        let fifo = |name: &str| -> Result<PathBuf> {
            let path = self.directory.join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .map_err(|errno| failed("create fifo", &path)(errno.into()))?;
            Ok(path)
        };
        let mut io = Io { terminal: request.tty, ..Io::default() };
        if request.stdin {
            let path = fifo("stdin")?;
            // Read-write, because a write-only open fails until the shim reads.
            let sender = pipe::OpenOptions::new().read_write(true).open_sender(&path);
            self.stdin = Some(sender.map_err(failed("open", &path))?);
            io.stdin = Some(path);
        }
        // Both or neither: containerd refuses an empty stderr beside a stdout. What nobody asked for is still read.
        let path = fifo("stdout")?;
        self.stdout = Some(pipe::OpenOptions::new().open_receiver(&path).map_err(failed("open", &path))?);
        io.stdout = Some(path);
        if !request.tty {
            let path = fifo("stderr")?;
            self.stderr = Some(pipe::OpenOptions::new().open_receiver(&path).map_err(failed("open", &path))?);
            io.stderr = Some(path);
        }
        Ok(io)
    }

    /// Returns when the process has ended.
    pub async fn wait(&self) -> Result<Exit> {
        let request = WaitRequest { container_id: self.container_id.clone(), exec_id: self.id.clone() };
        let result = self.runtime.tasks().wait(self.runtime.stream_request(request)).await;
        let ended = answered(result, "wait for process in", &self.container_id)?;
        Ok(Exit { code: ended.exit_status as i32, at: timestamp(ended.exited_at) })
    }

    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let request =
            ResizePtyRequest { container_id: self.container_id.clone(), exec_id: self.id.clone(), width, height };
        let result = self.runtime.tasks().resize_pty(self.runtime.request(request)).await;
        answered(result, "resize terminal in", &self.container_id)?;
        Ok(())
    }

    /// Ends the process's input once all that was written has been read; `stdin` must be dropped before. The shim
    /// holds the fifo open itself until it is told.
    pub async fn close_stdin(&self) -> Result<()> {
        let request = CloseIoRequest { container_id: self.container_id.clone(), exec_id: self.id.clone(), stdin: true };
        let result = self.runtime.tasks().close_io(self.runtime.request(request)).await.map(|answer| answer.map(drop));
        gone_is_fine(answered(result, "close input of process in", &self.container_id))
    }

    pub async fn kill(&self, signal: u32) -> Result<()> {
        kill(&self.runtime, &self.container_id, &self.id, signal).await
    }

    /// Deletes the ended process and its fifos.
    pub async fn finish(mut self) -> Result<()> {
        self.finished = true;
        let deleted = delete(&self.runtime, &self.container_id, &self.id).await;
        remove_directory(&self.directory);
        deleted
    }
}

async fn kill(runtime: &Runtime, container_id: &str, exec_id: &str, signal: u32) -> Result<()> {
    let request =
        KillRequest { container_id: container_id.to_owned(), exec_id: exec_id.to_owned(), signal, all: false };
    gone_is_fine(answered(runtime.tasks().kill(runtime.request(request)).await, "kill process in", container_id))
}

async fn delete(runtime: &Runtime, container_id: &str, exec_id: &str) -> Result<()> {
    let request = DeleteProcessRequest { container_id: container_id.to_owned(), exec_id: exec_id.to_owned() };
    let result = runtime.tasks().delete_process(runtime.request(request)).await.map(|answer| answer.map(drop));
    gone_is_fine(answered(result, "delete process in", container_id))
}

fn remove_directory(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %directory.display(), %error, "cannot remove fifos of a process");
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let (runtime, container_id, id) = (self.runtime.clone(), self.container_id.clone(), self.id.clone());
        let directory = std::mem::take(&mut self.directory);
        // Not tracked: it ends by the deadlines of its calls, and at process exit containerd keeps a process that the
        // container's own end removes.
        tokio::spawn(async move {
            let killed = kill(&runtime, &container_id, &id, SIGKILL).await;
            let request = WaitRequest { container_id: container_id.clone(), exec_id: id.clone() };
            let ended = runtime.tasks().wait(runtime.request(request)).await;
            let deleted = delete(&runtime, &container_id, &id).await;
            tracing::debug!(?killed, ended = ended.is_ok(), ?deleted, id, "dropped process");
            remove_directory(&directory);
        });
    }
}
