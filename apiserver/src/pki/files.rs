//! Files of the key directory: created with their final mode, replaced atomically.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Error;

/// Keys and everything that contains one.
const PRIVATE_MODE: u32 = 0o600;
/// Certificates alone; the directory above is closed to others anyway.
const PUBLIC_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;

/// Whether a write must survive a power cut before the server goes on. True for what can't be made again (the
/// authority, the signing key); everything else is simply issued anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    Yes,
    No,
}

pub(super) fn create_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(|source| Error::File {
        action: "creating directory",
        path: path.to_owned(),
        source,
    })
}

/// The text of a file, `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "reading", path: path.to_owned(), source }),
    }
}

/// Writes a file only its owner can read, atomically. For kubeconfigs and the like that outlive this module.
pub fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    write(path, content, PRIVATE_MODE, Durable::No)
}

pub(super) fn write_key(path: &Path, content: &str, durable: Durable) -> Result<(), Error> {
    write(path, content, PRIVATE_MODE, durable)
}

pub(super) fn write_certificate(path: &Path, content: &str, durable: Durable) -> Result<(), Error> {
    write(path, content, PUBLIC_MODE, durable)
}

fn write(path: &Path, content: &str, mode: u32, durable: Durable) -> Result<(), Error> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let beside = directory.join(name);
    let result = write_beside(&beside, content, mode, durable).and_then(|()| fs::rename(&beside, path));
    let result = result.and_then(|()| match durable {
        Durable::Yes => File::open(directory)?.sync_all(),
        Durable::No => Ok(()),
    });
    result.map_err(|source| {
        // The half-written neighbour is worthless; the write's own error is the one to report.
        drop(fs::remove_file(&beside));
        Error::File { action: "writing", path: path.to_owned(), source }
    })
}

fn write_beside(path: &Path, content: &str, mode: u32, durable: Durable) -> std::io::Result<()> {
    // A leftover of a killed process must not lend its mode to the new file.
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    if durable == Durable::Yes { file.sync_all() } else { Ok(()) }
}
