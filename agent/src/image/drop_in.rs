//! Image archives in a directory of the node: imported when the agent starts and when they appear, for hosts that have no
//! registry to pull from. Images stay when their archive goes; `keelson image` and containerd's tools remove them.
//!
//! An archive is imported once per size and time of change, as long as its images are here. What was imported stands in
//! a file of its own; without it everything is looked at again, which changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        fd::{AsFd, AsRawFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::chain;
use crate::runtime::Runtime;

/// What archives are called.
const ENDINGS: [&str; 3] = [".tar", ".tar.gz", ".tgz"];
/// Between tries where containerd does not answer yet, and with archives that could not be imported.
const RETRY: Duration = Duration::from_secs(30);

/// How an archive was when it was imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    bytes: u64,
    changed_at_ns: i128,
    /// Names of its images.
    images: Vec<String>,
}

pub struct DropIn {
    runtime: Runtime,
    directory: PathBuf,
    /// By file name, as in the file beside.
    seen: BTreeMap<String, Seen>,
    record: PathBuf,
}

impl DropIn {
    /// `state` holds the file of what was imported.
    pub fn new(runtime: Runtime, directory: PathBuf, state: &Path) -> Self {
        let record = state.join("imported-images.json");
        let seen = std::fs::read(&record).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { runtime, directory, seen, record }
    }

    /// Imports what is there and what comes, until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let watch = std::fs::create_dir_all(&self.directory).and_then(|()| watch(&self.directory));
        let watch = match watch {
            Ok(watch) => watch,
            Err(error) => {
                return tracing::warn!(directory = %self.directory.display(), %error, "images are not imported from it");
            }
        };
        loop {
            let Some(complete) = shutdown.run_until_cancelled(self.scan()).await else { return };
            let changed = async {
                match complete {
                    true => changes(&watch).await,
                    false => tokio::time::timeout(RETRY, changes(&watch)).await.unwrap_or(Ok(())),
                }
            };
            match shutdown.run_until_cancelled(changed).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => return tracing::warn!(%error, "the image directory is not watched any more"),
            }
        }
    }

    /// Imports what is new. `false` when something has to be tried again.
    async fn scan(&mut self) -> bool {
        let found = match archives(&self.directory) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "image directory not read");
                return false;
            }
        };
        self.seen.retain(|name, _| found.contains_key(name));
        let mut complete = true;
        for (name, now) in found {
            if self.is_imported(&name, &now).await {
                continue;
            }
            match self.runtime.import_images(&self.directory.join(&name)).await {
                Ok(images) => {
                    tracing::info!(archive = name, ?images, "images imported");
                    self.seen.insert(name, Seen { images, ..now });
                }
                Err(error) => {
                    // Half-copied archives come again with their last write.
                    tracing::warn!(archive = name, error = chain(&error), "archive not imported");
                    complete &= !error.is_unavailable();
                }
            }
        }
        self.write_record();
        complete
    }

    async fn is_imported(&self, name: &str, now: &Seen) -> bool {
        let Some(before) = self.seen.get(name) else { return false };
        if (before.bytes, before.changed_at_ns) != (now.bytes, now.changed_at_ns) {
            return false;
        }
        for image in &before.images {
            if !matches!(self.runtime.find_image(image).await, Ok(Some(_))) {
                return false;
            }
        }
        true
    }

    fn write_record(&self) {
        let text = serde_json::to_vec(&self.seen).unwrap_or_default();
        if std::fs::read(&self.record).is_ok_and(|old| old == text) {
            return;
        }
        let temporary = self.record.with_extension("new");
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.record));
        if let Err(error) = written {
            tracing::warn!(file = %self.record.display(), %error, "archives are looked at again after a restart");
        }
    }
}

fn archives(directory: &Path) -> io::Result<BTreeMap<String, Seen>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Files that are being copied often begin with a dot.
        if name.starts_with('.') || !ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        // Gone meanwhile, or a link to nowhere.
        let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
        if metadata.is_file() {
            let changed_at_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
            found.insert(name, Seen { bytes: metadata.len(), changed_at_ns, images: Vec::new() });
        }
    }
    Ok(found)
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn watch(directory: &Path) -> io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    // Complete files only: written and closed, or moved here.
    inotify.add_watch(directory, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO)?;
    // SAFETY: `Watch` owns its descriptor and gives no other one.
    Ok(unsafe { AsyncFd::register(Watch(inotify)) }?)
}

/// Returns after at least one change, with all that came by then taken off.
async fn changes(watch: &AsyncFd<Watch>) -> io::Result<()> {
    loop {
        let mut ready = watch.readable().await?;
        let mut names = BTreeSet::new();
        loop {
            match watch.get_ref().0.read_events() {
                Ok(events) => names.extend(events.into_iter().filter_map(|event| event.name)),
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        if !names.is_empty() {
            return Ok(());
        }
    }
}
