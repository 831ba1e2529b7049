//! `keelson backup`: everything that a cluster is made of, as one file: what the store holds at one revision, and the
//! keys of the data directory, without which a restored cluster would be another one to its nodes and users.
//!
//! The store is read itself, not through the API server, so a backup works beside a running server and without one.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use store_client::backup::{self, Attachment, Summary};
use store_client::embedded::Snapshot;

use crate::args;
use crate::config::{self, Settings, Store};
use crate::control_plane::connect_etcd;

/// What of the data directory belongs into a backup. The rest is made anew from these, or belongs to this host's node.
pub const KEYS: &str = "pki";
/// A file of keys that is larger is none.
const KEY_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// A page of etcd that is compacted away while it is read makes the backup begin again; etcd keeps at least minutes.
const ATTEMPTS_MAX: usize = 3;

/// `keelson backup FILE`.
pub async fn run(arguments: args::Backup) -> Result<()> {
    let settings = config::load(arguments.storage.into())?;
    let summary = take(&settings, &arguments.file).await?;
    println!("{}", describe(&arguments.file, &summary));
    println!("It holds private keys and Secrets; only its owner can read it (mode 0600).");
    Ok(())
}

async fn take(settings: &Settings, file: &Path) -> Result<Summary> {
    let keys = read_keys(&settings.data_dir)?;
    let beside = beside(file);
    let written = write(settings, &keys, &beside).await;
    let checked = written.and_then(|()| {
        let summary = verify(&beside)?;
        fs::rename(&beside, file).with_context(|| format!("write {}", file.display()))?;
        let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|d| d.sync_all())
            .with_context(|| format!("flush directory {}", directory.display()))?;
        Ok(summary)
    });
    if checked.is_err() {
        // What is left of the attempt is of no use, and its own error is the one to report.
        drop(fs::remove_file(&beside));
    }
    checked
}

async fn write(settings: &Settings, keys: &[Attachment], path: &Path) -> Result<()> {
    let attempt = || format!("write {}", path.display());
    for attempts in 1.. {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let out = BufWriter::new(file.with_context(attempt)?);
        let taken = match &settings.store {
            Store::Memory => bail!("the memory store keeps nothing that could be backed up"),
            Store::Embedded => {
                let directory = settings.data_dir.join("store");
                let snapshot = Snapshot::open(&directory).with_context(|| {
                    format!("has a server run with --data-dir {} yet?", settings.data_dir.display())
                })?;
                backup::take_snapshot(&snapshot, facts("embedded"), keys, out)
            }
            Store::Etcd(etcd) => backup::take(&connect_etcd(etcd).await?, facts("etcd"), keys, out).await,
        };
        match taken {
            Ok((out, _)) => {
                let file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(attempt)?;
                return file.sync_all().with_context(attempt);
            }
            Err(backup::Error::Store(store_client::Error::Compacted { .. })) if attempts < ATTEMPTS_MAX => {}
            Err(error) => return Err(error).with_context(attempt),
        }
    }
    unreachable!("the last attempt returns")
}

fn facts(engine: &str) -> Vec<(String, String)> {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let facts = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("taken", &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("host", &host),
        ("store", engine),
    ];
    facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The files below `pki`, which is flat.
fn read_keys(data_dir: &Path) -> Result<Vec<Attachment>> {
    let directory = data_dir.join(KEYS);
    let entries = fs::read_dir(&directory).with_context(|| {
        format!("read the keys in {} (has a server run with this --data-dir yet?)", directory.display())
    })?;
    let mut keys = Vec::new();
    for entry in entries {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        // Files being written beside their place belong to nobody yet.
        if !metadata.is_file() || name.contains(".new-") {
            continue;
        }
        if metadata.len() > KEY_FILE_BYTES_MAX {
            bail!("{} has {} bytes: no key is that large", path.display(), metadata.len());
        }
        let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        keys.push(Attachment { name: format!("{KEYS}/{name}"), mode: metadata.permissions().mode() & 0o777, content });
    }
    keys.sort_by(|a, b| a.name.cmp(&b.name));
    if !keys.iter().any(|key| key.name == format!("{KEYS}/ca.key")) {
        bail!("{} has no ca.key: this is not the data directory of a server", directory.display());
    }
    Ok(keys)
}

/// Reads a backup to its end.
pub fn verify(path: &Path) -> Result<Summary> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    backup::verify(BufReader::new(file)).with_context(|| path.display().to_string())
}

/// One line about a backup.
pub fn describe(path: &Path, summary: &Summary) -> String {
    let facts = &summary.header.facts;
    let fact = |name: &str| facts.iter().find(|(known, _)| known == name).map_or("?", |(_, value)| value.as_str());
    format!(
        "{}: {} objects at revision {}, {} key files, {:.1} MB; taken {} on {} by keelson {}, {} store",
        path.display(),
        summary.records,
        summary.header.revision,
        summary.attachments,
        summary.bytes as f64 / 1e6,
        fact("taken"),
        fact("host"),
        fact("version"),
        fact("store"),
    )
}

/// Where a file is written before it takes its place.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}
