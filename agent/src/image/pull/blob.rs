//! One blob from a registry into the content store. An interrupted download goes on where it stopped, from the same
//! server or the next, also after a restart of the agent; one whose bytes turn out wrong begins anew.
//!
//! At most a few pieces of a download are in memory (`registry::READ_BYTES_MAX` each).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use containerd_client::types::Descriptor;
use tokio::sync::mpsc;

use super::{Error, Fetch, Kind, kind};
use crate::{
    image::registry::{self, Download, Session},
    runtime::{self, Runtime, content::Ingest},
};

/// Failures in a row, without a byte in between, before a blob is given up. The pod's own back-off comes after.
const FAILURES_MAX: u32 = 6;
/// A blob whose content is wrong may be so on one mirror, or by a proxy on the way; twice is a rule.
const CORRUPTIONS_MAX: u32 = 2;
/// First and longest waits between tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The longest wait that a registry may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Pieces read ahead of containerd.
const PIECES_AHEAD: usize = 2;

/// What is being fetched, by digest: images that share a layer fetch it once.
#[derive(Default)]
pub struct Locks {
    held: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    pub(super) fn of(&self, digest: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = held.get(digest).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        held.insert(digest.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

/// Why one try ended.
enum Ended {
    Registry(registry::Error),
    Runtime(runtime::Error),
    /// The connection ended in the middle.
    Short {
        at: u64,
    },
    /// Not the bytes that were asked for.
    Corrupt(String),
}

impl Fetch<'_> {
    pub(super) async fn blob(&self, wanted: &Descriptor) -> Result<(), Error> {
        let lock = self.request.locks.of(&wanted.digest);
        let _turn = lock.lock().await;
        self.leased.keep_blob(&wanted.digest).await?;
        if self.leased.blob_exists(&wanted.digest).await? {
            self.request.progress.add(wanted.size as u64);
            return Ok(());
        }
        let servers = self.sessions.iter().filter(|session| session.endpoint().pulls).collect::<Vec<_>>();
        let mut problems = Vec::new();
        for (index, session) in servers.iter().enumerate() {
            match self.blob_from(session, wanted).await {
                Ok(()) => return Ok(()),
                Err(Ended::Runtime(error)) => return Err(error.into()),
                Err(Ended::Corrupt(problem)) if index + 1 == servers.len() => {
                    return Err(Error::Corrupt { what: format!("blob {}", wanted.digest), problem });
                }
                Err(Ended::Corrupt(problem)) => {
                    problems.push(registry::Error::Answer { url: wanted.digest.clone(), problem });
                }
                Err(Ended::Registry(error)) => problems.push(error),
                Err(Ended::Short { at }) => {
                    let problem = format!("the connection ended at byte {at} of {} again and again", wanted.size);
                    problems.push(registry::Error::Answer { url: wanted.digest.clone(), problem });
                }
            }
        }
        Err(failed(&wanted.digest, &problems))
    }

    /// Tries one server as long as that may help.
    async fn blob_from(&self, session: &Session, wanted: &Descriptor) -> Result<(), Ended> {
        let reference = format!("layer-{}", wanted.digest);
        let (mut failures, mut corruptions, mut furthest) = (0, 0, 0);
        loop {
            let begin = self.leased.ingested(&reference).await.map_err(Ended::Runtime)?;
            if begin > furthest {
                (failures, furthest) = (0, begin);
            }
            let ended = match self.continue_blob(session, wanted, &reference, begin).await {
                Ok(()) => return Ok(()),
                Err(ended) => ended,
            };
            let pause = match &ended {
                Ended::Registry(error) if error.is_passing() => error.retry_after(),
                // A writer that was cut off holds the blob for a moment.
                Ended::Runtime(error) if error.is_locked() => None,
                Ended::Short { .. } => None,
                Ended::Corrupt(_) => {
                    self.leased.abort_ingest(&reference).await.map_err(Ended::Runtime)?;
                    corruptions += 1;
                    furthest = 0;
                    None
                }
                Ended::Registry(_) | Ended::Runtime(_) => return Err(ended),
            };
            failures += 1;
            if failures >= FAILURES_MAX || corruptions >= CORRUPTIONS_MAX {
                return Err(ended);
            }
            let doubled = (PAUSE.0 * 2_u32.pow(failures - 1)).min(PAUSE.1);
            let pause = pause.map_or(doubled, |asked| asked.clamp(PAUSE.0, RETRY_AFTER_MAX));
            tracing::debug!(digest = wanted.digest, problem = %ended, ?pause, "download is tried again");
            tokio::time::sleep(pause).await;
        }
    }

    /// One request: from `begin` to the end of the blob, or as far as it goes.
    async fn continue_blob(
        &self,
        session: &Session,
        wanted: &Descriptor,
        reference: &str,
        begin: u64,
    ) -> Result<(), Ended> {
        let size = wanted.size as u64;
        if begin > size {
            return Err(Ended::Corrupt(format!("{begin} bytes of {size} are there")));
        }
        let (chunks, receiver) = mpsc::channel(PIECES_AHEAD);
        let mut ingest = Ingest {
            reference: reference.to_owned(),
            digest: wanted.digest.clone(),
            size,
            offset: begin,
            labels: HashMap::new(),
        };
        if begin == size {
            // All was written, and the commit is missing.
            drop(chunks);
            return write(self.leased, ingest, receiver).await;
        }
        let download = session.blob(&wanted.digest, begin).await.map_err(Ended::Registry)?;
        if download.offset != begin {
            // A server that knows no ranges sends all of it again.
            self.leased.abort_ingest(reference).await.map_err(Ended::Runtime)?;
            ingest.offset = download.offset;
            if download.offset != 0 {
                let problem = format!("range from {} where {begin} was asked for", download.offset);
                return Err(Ended::Registry(registry::Error::Answer { url: download.url, problem }));
            }
        }
        let progress = self.request.progress;
        let came = std::sync::atomic::AtomicU64::new(0);
        let count = |bytes: u64| {
            progress.add(bytes);
            came.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        };
        count(ingest.offset);
        let (read, written) =
            tokio::join!(read(download, ingest.offset, size, chunks, &count), write(self.leased, ingest, receiver));
        let ended = match (read, written) {
            (Err(Ended::Corrupt(problem)), _) | (_, Err(Ended::Corrupt(problem))) => Err(Ended::Corrupt(problem)),
            (_, Err(ended)) | (Err(ended), Ok(())) => Err(ended),
            (Ok(()), Ok(())) => Ok(()),
        };
        if ended.is_err() {
            progress.take_back(came.into_inner());
        }
        ended
    }
}

/// Passes a body on, up to the size the blob must have.
async fn read(
    download: Download,
    begin: u64,
    size: u64,
    chunks: mpsc::Sender<Bytes>,
    count: &impl Fn(u64),
) -> Result<(), Ended> {
    let Download { mut body, url, .. } = download;
    let mut at = begin;
    while let Some(data) = registry::next(&mut body, &url).await.map_err(Ended::Registry)? {
        at += data.len() as u64;
        if at > size {
            return Err(Ended::Corrupt(format!("more than {size} bytes came")));
        }
        count(data.len() as u64);
        if chunks.send(data).await.is_err() {
            // containerd refused, and its answer says why.
            return Ok(());
        }
    }
    if at < size { Err(Ended::Short { at }) } else { Ok(()) }
}

async fn write(leased: &Runtime, ingest: Ingest, receiver: mpsc::Receiver<Bytes>) -> Result<(), Ended> {
    leased.ingest(ingest, receiver).await.map_err(|error| match error.is_wrong_content() {
        true => Ended::Corrupt(crate::image::chain(&error)),
        false => Ended::Runtime(error),
    })
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Registry(error) => write!(f, "{}", crate::image::chain(error)),
            Ended::Runtime(error) => write!(f, "{}", crate::image::chain(error)),
            Ended::Short { at } => write!(f, "the connection ended at byte {at}"),
            Ended::Corrupt(problem) => write!(f, "{problem}"),
        }
    }
}

/// What all servers said of a blob; the last is the registry itself.
pub(super) fn failed(digest: &str, problems: &[registry::Error]) -> Error {
    let kind = problems.last().map_or(Kind::Other, kind);
    let texts = problems.iter().map(|problem| crate::image::chain(problem)).collect::<Vec<_>>();
    let problems = if texts.is_empty() { "no server may be asked for it".to_owned() } else { texts.join("; ") };
    Error::Fetch { digest: digest.to_owned(), problems, kind }
}
