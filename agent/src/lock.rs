//! One agent per state directory: a lock that the kernel drops with the process, however it dies. `cleanup` takes it
//! too, as it would otherwise fight with a running agent over every pod.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

const FILE: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another agent{holder} has {directory}: stop it first")]
    Held { directory: String, holder: String },
    #[error("lock {path}")]
    Io { path: String, source: io::Error },
}

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a state directory that exists, without waiting.
pub fn take(state_dir: &Path) -> Result<Lock, Error> {
    let path = state_dir.join(FILE);
    let failed = |source| Error::Io { path: path.display().to_string(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut id = String::new();
            // Only for the message; a file that cannot be read names nobody.
            drop(file.read_to_string(&mut id));
            let holder = if id.is_empty() { id } else { format!(" (process {})", id.trim()) };
            return Err(Error::Held { directory: state_dir.display().to_string(), holder });
        }
    }
    let mut record = || -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    if let Err(error) = record() {
        // A full disk must not keep a node down.
        tracing::warn!(%error, path = %path.display(), "the lock does not tell who holds it");
    }
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let lock = take(directory.path()).unwrap();
        let error = take(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(lock);
        take(directory.path()).unwrap();
    }
}
