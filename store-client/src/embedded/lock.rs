//! One process per store directory: an advisory lock that the kernel drops with the process, however it dies.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::{Error, Result};

const FILE_NAME: &str = "lock";

/// Held while the directory is in use. The file stays: removing it would let two processes lock two files.
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Makes the directory if needed (only its owner may enter: it holds Secrets) and locks it without waiting.
    pub fn acquire(directory: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Open {
            attempt: format!("open store directory {}", directory.display()),
            detail: error.to_string(),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(directory.join(FILE_NAME)).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(Error::Locked { directory: directory.display().to_string(), holder });
            }
        }
        // The process number only serves the error message of the next one; a full disk must not stop the opening.
        if let Err(error) = record_holder(&mut file) {
            tracing::warn!(%error, directory = %directory.display(), "cannot record the holder of the store's lock");
        }
        Ok(Self { _file: file })
    }
}

/// Whether somebody has the directory open. Changes nothing, not even where there is no directory.
pub fn in_use(directory: impl AsRef<Path>) -> Result<bool> {
    let path = directory.as_ref().join(FILE_NAME);
    let failed = |error: std::io::Error| Error::Open {
        attempt: format!("look whether {} is in use", path.display()),
        detail: error.to_string(),
    };
    match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(error)),
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        },
    }
}

fn record_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// " (process N)" if the file says so.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
        Ok(_) | Err(_) => String::new(),
    }
}
