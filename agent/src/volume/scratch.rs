//! Empty directories: on disk, or in memory.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use nix::mount::{MsFlags, mount};
use procfs::process::Process;

use super::{Error, ownership};

/// An `emptyDir`: anyone in the pod may write, contents stay while the pod lives.
pub fn prepare_empty_dir(
    volume: &str,
    path: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<i64>,
) -> Result<(), Error> {
    let io = |action| at(volume, action, path);
    if path.exists() && (source.medium.as_deref() != Some("Memory") || is_mounted(path)) {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(io("create directory"))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok()).map(Quantity::value);
            let size = limit.filter(|bytes| *bytes > 0).map(|bytes| format!("size={bytes}"));
            mount_tmpfs(path, size.as_deref()).map_err(io("mount tmpfs at"))?;
        }
        medium => {
            let problem = format!("medium {medium:?} is not supported");
            return Err(Error::Unsupported { volume: volume.to_owned(), problem });
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map_err(io("set mode of"))?;
    if let Some(group) = group {
        ownership::give(path, group).map_err(io("change group of"))?;
    }
    Ok(())
}

/// A directory whose files never reach the disk.
pub fn prepare_memory_dir(volume: &str, path: &Path) -> Result<(), Error> {
    let io = |action| at(volume, action, path);
    if is_mounted(path) {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(io("create directory"))?;
    mount_tmpfs(path, None).map_err(io("mount tmpfs at"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).map_err(io("set mode of"))
}

fn mount_tmpfs(path: &Path, options: Option<&str>) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, options)?)
}

fn is_mounted(path: &Path) -> bool {
    let mounts = Process::myself().and_then(|process| process.mountinfo());
    mounts.is_ok_and(|list| list.0.iter().any(|mount| mount.mount_point == path))
}

fn at(volume: &str, action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let (volume, path): (String, PathBuf) = (volume.to_owned(), path.to_owned());
    move |source| Error::Io { volume, action, path, source }
}
