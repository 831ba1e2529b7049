//! A PID namespace shared by the containers of a pod. Such a namespace lives only as long as its first process, so this
//! is the one case that needs a pause process. It is a child in a session of its own and outlives the agent.

use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::oneshot;

use super::namespaces;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start pause process {command:?}")]
    Start { command: Vec<String>, source: io::Error },
    #[error("{action} {}", path.display())]
    Path { action: &'static str, path: PathBuf, source: io::Error },
    #[error("stop pause process {pid}")]
    Stop { pid: i32, source: io::Error },
    #[error(transparent)]
    Namespaces(#[from] namespaces::Error),
    #[error("the thread that starts the pause process ended early")]
    Thread,
}

/// Starts a pause process in a new PID namespace and pins the namespace at `path`; its pid stands in `path` + `.pid`.
pub async fn pin(path: &Path, command: &[String]) -> Result<(), Error> {
    release(path).await?;
    let (done, result) = oneshot::channel();
    let (path, command) = (path.to_owned(), command.to_owned());
    let thread = std::thread::Builder::new().name("pause".into()).spawn(move || {
        // The receiver is gone only when the caller was dropped; `release` then finds the process by its file.
        let _dropped = done.send(start_here(&path, &command));
    });
    thread.map_err(|source| Error::Start { command: Vec::new(), source })?;
    result.await.unwrap_or(Err(Error::Thread))
}

fn start_here(path: &Path, command: &[String]) -> Result<(), Error> {
    let failed = |source| Error::Start { command: command.to_owned(), source };
    let Some((program, arguments)) = command.split_first() else {
        return Err(failed(io::Error::from(io::ErrorKind::InvalidInput)));
    };
    // From here on this thread's children are born into the new namespace, the first as its PID 1.
    unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| failed(errno.into()))?;
    let mut pause = Command::new(program);
    pause.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        pause.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?));
    }
    let child = pause.spawn().map_err(failed)?;
    let pid = child.id();
    let write = |source| Error::Path { action: "write", path: pid_file(path), source };
    std::fs::write(pid_file(path), pid.to_string()).map_err(write)?;
    std::fs::File::create(path).map_err(write)?;
    let source = PathBuf::from(format!("/proc/{pid}/ns/pid"));
    mount(Some(&source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(|errno| Error::Path {
        action: "bind namespace to",
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// Writes down again which process is the first of a pinned namespace.
pub fn find_first(path: &Path) -> Result<(), Error> {
    let write = |source| Error::Path { action: "write", path: pid_file(path), source };
    let processes = procfs::process::all_processes().map_err(|error| write(io::Error::other(error)))?;
    let first = processes.flatten().find(|process| {
        let inner = || process.status().ok()?.nspid?.last().copied();
        same_namespace(path, process.pid) && inner() == Some(1)
    });
    match first {
        Some(process) => std::fs::write(pid_file(path), process.pid.to_string()).map_err(write),
        // Then there is nothing to stop either.
        None => Ok(()),
    }
}

fn pid_file(path: &Path) -> PathBuf {
    path.with_extension("pid")
}

/// Ends the pause process, and with it every process of its namespace, and releases the pin. Safe to repeat.
pub async fn release(path: &Path) -> Result<(), Error> {
    // A pid file outlives a reboot and pids are used again: only the process that is in the pinned namespace counts.
    let pid = std::fs::read_to_string(pid_file(path)).ok().and_then(|text| text.parse::<i32>().ok());
    if let Some(pid) = pid
        && namespaces::is_pinned(path)
        && same_namespace(path, pid)
    {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(errno) => return Err(Error::Stop { pid, source: errno.into() }),
        }
        // Only this process's own child can be waited for; after an agent restart it belongs to PID 1 of the host.
        let _not_ours = nix::sys::wait::waitpid(Pid::from_raw(pid), None);
    }
    namespaces::unpin(path)?;
    match std::fs::remove_file(pid_file(path)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Path { action: "remove", path: pid_file(path), source })
        }
        _ => Ok(()),
    }
}

fn same_namespace(path: &Path, pid: i32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.ino());
    let (pinned, process) = (inode(path), inode(Path::new(&format!("/proc/{pid}/ns/pid"))));
    pinned.is_some() && pinned == process
}

/// What a pause process does: nothing, and reaping what the pod's processes leave behind. Never returns.
pub fn pause() -> ! {
    // Ignored explicitly: PID 1 must end by SIGKILL from outside only, not by a signal from a container.
    // SAFETY: no handler of ours is installed.
    unsafe {
        // The call fails for invalid signals only.
        let _never = nix::sys::signal::signal(Signal::SIGTERM, nix::sys::signal::SigHandler::SigIgn);
        let _never = nix::sys::signal::signal(Signal::SIGINT, nix::sys::signal::SigHandler::SigIgn);
    }
    let mut children = nix::sys::signal::SigSet::empty();
    children.add(Signal::SIGCHLD);
    // Blocked, so that a child's end between reaping and waiting stays pending.
    let _never = children.thread_block();
    loop {
        while matches!(
            nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)),
            Ok(status) if status != nix::sys::wait::WaitStatus::StillAlive
        ) {}
        let _interrupted = children.wait();
    }
}
