//! `keelson restore`: a cluster from a backup, on an empty machine or in the place of the one that is there. Nothing is
//! touched before the whole backup has been read and checked, and no server starts on half of a restore.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use store_client::backup::{self, Attachment, Item, Reader, Summary};
use store_client::embedded::{self, Snapshot};
use store_client::etcd;
use store_client::{Error as StoreError, Revision};

use crate::args;
use crate::backup::{KEYS, describe, verify};
use crate::config::{self, Settings, Store};
use crate::control_plane::connect_etcd;

/// `keelson restore FILE`.
pub async fn run(arguments: args::Restore) -> Result<()> {
    let args::Restore { file, storage, force, dry_run } = arguments;
    let settings = config::load(storage.into())?;
    let summary = verify(&file)?;
    println!("{}", describe(&file, &summary));
    let keys = Keys::read(&file, &settings.data_dir)?;
    if !force {
        keys.refuse_others()?;
    }
    if dry_run {
        look(&settings, force)?;
        println!("The backup is whole. Nothing was restored (--dry-run).");
        return Ok(());
    }
    let revision = match &settings.store {
        Store::Memory => bail!("the memory store keeps nothing that could be restored"),
        Store::Embedded => into_directory(&settings.data_dir.join("store"), &file, &summary, &keys, force)?,
        Store::Etcd(etcd) => into_etcd(etcd, &file, &summary, &keys).await?,
    };
    println!("Restored {} objects; the store is at revision {revision}. Start the server now.", summary.records);
    println!(
        "Watches from before are told to list again. Pods that the backup does not know are ended by their nodes."
    );
    Ok(())
}

/// What a dry run can say about the place without changing it.
fn look(settings: &Settings, force: bool) -> Result<()> {
    let directory = settings.data_dir.join("store");
    if matches!(settings.store, Store::Embedded) && embedded::in_use(&directory)? {
        bail!("a server is running on {}: stop it first", settings.data_dir.display());
    }
    if matches!(settings.store, Store::Embedded) && !force {
        refuse_store(&directory)?;
    }
    Ok(())
}

fn refuse_store(directory: &Path) -> Result<()> {
    if let Ok(snapshot) = Snapshot::open(directory) {
        bail!(
            "{} holds a store already, at revision {}: give --force to replace it",
            directory.display(),
            snapshot.revision()
        );
    }
    Ok(())
}

fn into_directory(directory: &Path, file: &Path, summary: &Summary, keys: &Keys, force: bool) -> Result<Revision> {
    if !force {
        refuse_store(directory)?;
    }
    // Of a store that cannot be read any more nothing can be learnt; the jump is large enough.
    let replaced = Snapshot::open(directory).ok().map(|snapshot| snapshot.revision());
    let base = backup::base(replaced.into_iter().chain([summary.header.revision]));
    let mut restore = embedded::Restore::begin(directory, base, force).map_err(explain)?;
    each_record(file, |key, value| restore.create(key, value).context("fill the new store"))?;
    // While the store does not open yet: a server must not find the keys of one cluster and the store of another.
    keys.write()?;
    restore.finish().with_context(|| format!("put the new store into {}", directory.display()))
}

fn explain(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Locked { .. } => anyhow::anyhow!("a server is running here: {error}"),
        error => anyhow::anyhow!(error).context("give --force to replace what is there"),
    }
}

async fn into_etcd(options: &config::Etcd, file: &Path, summary: &Summary, keys: &Keys) -> Result<Revision> {
    let etcd = connect_etcd(options).await?;
    let mut restore = etcd::Restore::begin(etcd, backup::base([summary.header.revision])).await?;
    let mut reader = open(file)?;
    while let Some(item) = reader.next()? {
        if let Item::Record(record) = item {
            restore.create(record.key, record.value).await.context("fill etcd")?;
        }
    }
    keys.write()?;
    restore.finish().await.context("finish the restore into etcd")
}

fn open(file: &Path) -> Result<Reader<BufReader<File>>> {
    let input = File::open(file).with_context(|| format!("open {}", file.display()))?;
    Ok(Reader::begin(BufReader::new(input))?)
}

fn each_record(file: &Path, mut each: impl FnMut(bytes::Bytes, bytes::Bytes) -> Result<()>) -> Result<()> {
    let mut reader = open(file)?;
    while let Some(item) = reader.next()? {
        if let Item::Record(record) = item {
            each(record.key, record.value)?;
        }
    }
    Ok(())
}

/// The key files of a backup, and where they belong.
struct Keys {
    directory: PathBuf,
    files: Vec<Attachment>,
}

impl Keys {
    fn read(file: &Path, data_dir: &Path) -> Result<Self> {
        let mut reader = open(file)?;
        let mut files = Vec::new();
        while let Some(item) = reader.next()? {
            match item {
                Item::Attachment(key) => files.push(plain(key)?),
                // Files come first.
                Item::Record(_) => break,
            }
        }
        Ok(Self { directory: data_dir.join(KEYS), files })
    }

    /// Fails if another cluster's keys are there.
    fn refuse_others(&self) -> Result<()> {
        let Some(ours) = self.files.iter().find(|file| file.name == "ca.key") else { return Ok(()) };
        match fs::read(self.directory.join(&ours.name)) {
            Ok(theirs) if theirs != ours.content => {
                bail!("{} holds the keys of another cluster: give --force to replace them", self.directory.display())
            }
            _ => Ok(()),
        }
    }

    /// Replaces the directory; what was there is kept beside it.
    fn write(&self) -> Result<()> {
        let at = |suffix: &str| self.directory.with_file_name(format!("{KEYS}.{suffix}"));
        let (fresh, replaced) = (at("restoring"), at("replaced"));
        let write = || -> std::io::Result<()> {
            remove(&fresh)?;
            DirBuilder::new().recursive(true).mode(0o700).create(&fresh)?;
            for file in &self.files {
                let mut options = OpenOptions::new();
                let mut out =
                    options.write(true).create_new(true).mode(file.mode & 0o700).open(fresh.join(&file.name))?;
                out.write_all(&file.content)?;
                out.sync_all()?;
            }
            File::open(&fresh)?.sync_all()?;
            if self.directory.exists() {
                remove(&replaced)?;
                fs::rename(&self.directory, &replaced)?;
            }
            fs::rename(&fresh, &self.directory)?;
            File::open(self.directory.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().with_context(|| format!("write the keys to {}", self.directory.display()))
    }
}

/// A key file by its name alone. A backup comes from elsewhere: a name must not lead out of the directory.
fn plain(file: Attachment) -> Result<Attachment> {
    let name = file.name.strip_prefix(KEYS).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default().to_owned();
    let parts: Vec<Component<'_>> = Path::new(&name).components().collect();
    ensure!(matches!(parts[..], [Component::Normal(_)]), "the backup has a file {:?}, which is no key", file.name);
    Ok(Attachment { name, ..file })
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_key_files_lead_nowhere_else() {
        let file = |name: &str| Attachment { name: name.to_owned(), mode: 0o600, content: Vec::new() };
        assert_eq!(plain(file("pki/ca.key")).unwrap().name, "ca.key");
        for name in ["pki/../ca.key", "pki//etc/passwd", "/etc/passwd", "pki/a/b", "pki/", "pki/..", "ca.key", "pkix"] {
            assert!(plain(file(name)).is_err(), "{name}");
        }
    }
}
