//! Taking mounts and directories away without ever deleting through a mount: a bind mount of the host's files may lie
//! below a pod's directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};
use procfs::process::Process;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the list of mounts")]
    List(#[source] procfs::ProcError),
    #[error("unmount {}", path.display())]
    Unmount { path: PathBuf, source: io::Error },
    #[error("remove {}: {} is still mounted", path.display(), mounted.display())]
    StillMounted { path: PathBuf, mounted: PathBuf },
    #[error("remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// Unmounts what is mounted at this very path, if anything. Safe to repeat.
pub fn unmount(path: &Path) -> Result<(), Error> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point, or not there.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            Err(errno) => return Err(Error::Unmount { path: path.to_owned(), source: errno.into() }),
        }
    }
}

/// Mount points at or below a path, deepest first.
pub fn below(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = Process::myself().and_then(|process| process.mountinfo()).map_err(Error::List)?;
    let mut found =
        list.0.into_iter().map(|mount| mount.mount_point).filter(|point| point.starts_with(path)).collect::<Vec<_>>();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(found)
}

pub fn unmount_below(path: &Path) -> Result<(), Error> {
    below(path)?.iter().try_for_each(|point| unmount(point))
}

/// Unmounts everything below, then removes the directory. Refuses while anything is mounted.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    unmount_below(path)?;
    if let Some(mounted) = below(path)?.pop() {
        return Err(Error::StillMounted { path: path.to_owned(), mounted });
    }
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Remove { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
