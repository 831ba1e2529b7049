//! Container logs: output read from fifos, written as CRI log files, rotated, and offered to `attach`.
//!
//! The container runtime writes to fifos that only this module reads. While no agent runs, containers go on until the
//! fifo is full (64 KiB a stream), then wait; a new agent opens the fifos again and nothing is lost. What is lost is
//! the unread output of a container that *ends* while no agent runs: the kernel drops a fifo that nobody holds open.

pub mod file;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use nix::sys::stat::Mode;
use tokio::{
    net::unix::pipe::{self, Receiver, Sender},
    sync::{broadcast, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::runtime::Io;
use file::LogFile;

/// One read from a fifo; a pipe holds 64 KiB.
const READ_BYTES: usize = 32 << 10;
/// Chunks an attached client may lag behind before it loses some.
const ATTACH_CHUNKS: usize = 64;

#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A piece of output as attached clients get it.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub stream: Stream,
    pub data: Bytes,
}

/// Which fifos a container has.
#[derive(Clone, Debug)]
pub struct Fifos {
    pub stdin: Option<PathBuf>,
    pub stdout: PathBuf,
    /// `None` with a terminal: all output comes through one.
    pub stderr: Option<PathBuf>,
}

impl Fifos {
    pub fn io(&self) -> Io {
        Io {
            stdin: self.stdin.clone(),
            stdout: Some(self.stdout.clone()),
            stderr: self.stderr.clone(),
            terminal: self.stderr.is_none(),
        }
    }

    /// Makes the fifos that do not exist yet.
    pub fn create(&self) -> Result<(), Error> {
        for path in self.all() {
            match nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(()) | Err(nix::Error::EEXIST) => {}
                Err(errno) => {
                    return Err(Error { action: "create fifo", path: path.clone(), source: errno.into() });
                }
            }
        }
        Ok(())
    }

    pub fn remove(&self) {
        for path in self.all() {
            if let Err(error) = std::fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove fifo");
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [self.stdin.as_ref(), Some(&self.stdout), self.stderr.as_ref()].into_iter().flatten()
    }
}

/// Live streams of this node's containers, by container id.
#[derive(Clone, Default)]
pub struct Streams {
    open: Arc<Mutex<HashMap<String, Arc<Hub>>>>,
}

struct Hub {
    stdin: Option<PathBuf>,
    /// Told after each write to the log; gone with the last one.
    grown: watch::Sender<()>,
    /// Present from the first attach on.
    taps: Mutex<Option<broadcast::Sender<Chunk>>>,
    ended: watch::Receiver<bool>,
    reopen: tokio::sync::Notify,
}

/// A client's view of a running container's streams.
pub struct Attached {
    pub output: broadcast::Receiver<Chunk>,
    pub stdin: Option<Sender>,
}

/// Tells a reader of a log that there is more to read, and when there will not be any more.
pub struct Growth(watch::Receiver<()>);

impl Growth {
    /// True after the last write. What was written so far is old news from here on.
    pub fn is_over(&mut self) -> bool {
        self.0.borrow_and_update();
        self.0.has_changed().is_err()
    }

    /// Returns when something has been written since `is_over` was asked, or all has been.
    pub async fn changed(&mut self) {
        // An error is the end, which the next `is_over` tells.
        let _over = self.0.changed().await;
    }
}

/// A container's log being written. Dropping it leaves the container's output unread.
pub struct Pump {
    ended: watch::Receiver<bool>,
    stop: CancellationToken,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Pump {
    /// Waits until all output has been written, or until the limit.
    pub async fn drained(&mut self, limit: Duration) {
        let all = self.ended.wait_for(|ended| *ended);
        if !matches!(tokio::time::timeout(limit, all).await, Ok(Ok(_))) {
            tracing::debug!("output of an ended container is still open");
        }
    }
}

impl Streams {
    /// Opens the fifos and starts writing `log`. Must come before the task's creation, which waits for readers.
    pub fn start(&self, id: &str, fifos: &Fifos, log: &Path, tasks: &TaskTracker) -> Result<Pump, Error> {
        let open = |path: &PathBuf| {
            // Non-blocking: a blocking open would wait for the shim to open its end.
            pipe::OpenOptions::new().open_receiver(path).map_err(|source| Error {
                action: "open fifo",
                path: path.clone(),
                source,
            })
        };
        let stdout = open(&fifos.stdout)?;
        let stderr = fifos.stderr.as_ref().map(open).transpose()?;
        let file = LogFile::open(log).map_err(|source| Error { action: "open log", path: log.to_owned(), source })?;
        let (end, ended) = watch::channel(false);
        let stop = CancellationToken::new();
        let hub = Arc::new(Hub {
            stdin: fifos.stdin.clone(),
            grown: watch::Sender::new(()),
            taps: Mutex::default(),
            ended: ended.clone(),
            reopen: tokio::sync::Notify::new(),
        });
        self.lock().insert(id.to_owned(), hub.clone());
        let (streams, id, token) = (self.clone(), id.to_owned(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = copy(stdout, stderr, file, &hub) => {}
            }
            streams.lock().remove(&id);
            end.send_replace(true);
        });
        Ok(Pump { ended, stop })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Hub>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when the container's streams are not open (it has ended, or is not ours).
    pub fn attach(&self, id: &str, with_stdin: bool) -> Result<Option<Attached>, Error> {
        let Some(hub) = self.lock().get(id).cloned() else { return Ok(None) };
        if *hub.ended.borrow() {
            return Ok(None);
        }
        let output = {
            let mut taps = hub.taps.lock().unwrap_or_else(PoisonError::into_inner);
            taps.get_or_insert_with(|| broadcast::channel(ATTACH_CHUNKS).0).subscribe()
        };
        let stdin = hub.stdin.as_ref().filter(|_| with_stdin).map(|path| {
            // Read-write, so that opening never fails for want of a reader.
            pipe::OpenOptions::new().read_write(true).open_sender(path).map_err(|source| Error {
                action: "open fifo",
                path: path.clone(),
                source,
            })
        });
        Ok(Some(Attached { output, stdin: stdin.transpose()? }))
    }

    /// News of a container's log; `None` when nothing more will be written to it.
    pub fn growth(&self, id: &str) -> Option<Growth> {
        self.lock().get(id).map(|hub| Growth(hub.grown.subscribe()))
    }

    /// Starts a new file for a container whose log somebody moved away.
    pub fn reopen(&self, id: &str) {
        if let Some(hub) = self.lock().get(id) {
            hub.reopen.notify_one();
        }
    }
}

/// Copies both streams to their ends. A stream ends when the last writer has closed it.
async fn copy(stdout: Receiver, stderr: Option<Receiver>, mut file: LogFile, hub: &Hub) {
    let (mut stdout, mut stderr) = (Some(stdout), stderr);
    while stdout.is_some() || stderr.is_some() {
        let (stream, pipe) = tokio::select! {
            () = ready(stdout.as_ref()) => (Stream::Stdout, &mut stdout),
            () = ready(stderr.as_ref()) => (Stream::Stderr, &mut stderr),
            () = hub.reopen.notified() => {
                if let Err(error) = file.reopen() {
                    tracing::error!(%error, "cannot open log again");
                }
                continue;
            }
        };
        if let Some(open) = pipe
            && !copy_once(open, stream, &mut file, hub)
        {
            *pipe = None;
            file.end(stream);
        }
    }
}

async fn ready(pipe: Option<&Receiver>) {
    match pipe {
        // An error shows again in the read that follows.
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

/// False at the end of the stream.
fn copy_once(pipe: &Receiver, stream: Stream, file: &mut LogFile, hub: &Hub) -> bool {
    thread_local! {
        // One buffer for all containers a worker thread serves: idle containers hold no memory here.
        static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; READ_BYTES]);
    }
    BUFFER.with_borrow_mut(|buffer| match pipe.try_read(buffer) {
        Ok(0) => false,
        Ok(count) => {
            file.write(stream, &buffer[..count], jiff::Timestamp::now());
            if hub.grown.receiver_count() > 0 {
                hub.grown.send_replace(());
            }
            let taps = hub.taps.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(taps) = taps.as_ref().filter(|taps| taps.receiver_count() > 0) {
                // Fails when the last client left in between.
                let _nobody = taps.send(Chunk { stream, data: Bytes::copy_from_slice(&buffer[..count]) });
            }
            true
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Err(error) => {
            tracing::warn!(%error, "reading a container's output");
            false
        }
    })
}
