//! What is mounted into a container: the kernel's file systems, the pod's `/etc` files, volumes with their sub-paths,
//! the termination message.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MsFlags, mount},
    sys::stat::{Mode, mkdirat},
};
use oci_spec::runtime::{Mount, MountBuilder};

use super::{env::expand, security::is_privileged};
use crate::{cgroup, paths::Paths, sandbox, volume::Volumes};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("volume {name:?} of mount {path:?} is not prepared")]
    NoVolume { name: String, path: String },
    #[error("failed to prepare subPath {sub_path:?} of volume {volume:?}")]
    SubPath { volume: String, sub_path: String, source: io::Error },
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Unmount(#[from] sandbox::mounts::Error),
}

fn entry(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    MountBuilder::default()
        .destination(destination)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .expect("the destination is set")
}

/// `propagation` as the API has it; `None` is private.
fn bind(destination: &str, source: &Path, read_only: bool, propagation: Option<&str>) -> Mount {
    let propagation = match propagation {
        Some("HostToContainer") => "rslave",
        Some("Bidirectional") => "rshared",
        _ => "rprivate",
    };
    let access = if read_only { "ro" } else { "rw" };
    entry(destination, "bind", &source.to_string_lossy(), &["rbind", propagation, access])
}

/// The kernel's file systems.
pub fn system(container: &Container, cgroups: cgroup::Version) -> Vec<Mount> {
    let access = if is_privileged(container) { "rw" } else { "ro" };
    let cgroup = match cgroups {
        cgroup::Version::V1 => "cgroup",
        cgroup::Version::V2 => "cgroup2",
    };
    vec![
        entry("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        entry("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        entry("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        entry("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        entry("/sys/fs/cgroup", cgroup, "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ]
}

pub struct Request<'a> {
    pub uid: &'a str,
    pub spec: &'a PodSpec,
    pub container: &'a Container,
    pub attempt: u32,
    pub volumes: &'a Volumes,
    pub env: &'a [(String, String)],
    pub paths: &'a Paths,
}

/// Everything that comes from the host: shared memory, `/etc` files, volumes, termination message. Parents come before
/// what lies below them.
pub fn host(request: &Request<'_>) -> Result<Vec<Mount>, Error> {
    let Request { uid, spec, container, paths, .. } = *request;
    let own = container.volume_mounts.as_deref().unwrap_or_default();
    let taken = |path: &str| own.iter().any(|mount| mount.mount_path.trim_end_matches('/') == path);
    let read_only = super::read_only_root(container);
    let shm = if spec.host_ipc.unwrap_or(false) { PathBuf::from("/dev/shm") } else { paths.shm(uid) };
    let shared = [
        ("/dev/shm", shm, false),
        ("/etc/hosts", paths.hosts(uid), false),
        ("/etc/hostname", paths.hostname(uid), read_only),
        ("/etc/resolv.conf", paths.resolv_conf(uid), read_only),
    ];
    let mut mounts = shared
        .iter()
        .filter(|(path, ..)| !taken(path))
        .map(|(path, source, read_only)| bind(path, source, *read_only, None))
        .collect::<Vec<_>>();
    for (index, own) in own.iter().enumerate() {
        mounts.push(volume(request, own, index)?);
    }
    let message = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message.is_empty() && !taken(message) {
        let file = paths.termination_message(uid, &container.name, request.attempt);
        create_world_writable(&file)?;
        mounts.push(bind(message, &file, false, None));
    }
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

fn volume(request: &Request<'_>, own: &VolumeMount, index: usize) -> Result<Mount, Error> {
    let missing = || Error::NoVolume { name: own.name.clone(), path: own.mount_path.clone() };
    let volume = request.volumes.get(&own.name).ok_or_else(missing)?;
    let read_only = own.read_only.unwrap_or(false) || volume.read_only;
    let known = |name: &str| request.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let sub_path = match (&own.sub_path, &own.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        (_, Some(expression)) if !expression.is_empty() => Some(expand(expression, known)),
        _ => None,
    };
    let source = match sub_path {
        None => volume.host_path.clone(),
        Some(sub_path) => {
            let target = request.paths.volume_subpath(request.uid, &own.name, &request.container.name, index);
            pin_sub_path(&volume.host_path, &sub_path, &target).map_err(|error| match error {
                SubPathError::Io(source) => Error::SubPath { volume: own.name.clone(), sub_path, source },
                SubPathError::Unmount(error) => Error::Unmount(error),
            })?;
            target
        }
    };
    let mount_path =
        if own.mount_path.starts_with('/') { own.mount_path.clone() } else { format!("/{}", own.mount_path) };
    Ok(bind(&mount_path, &source, read_only, own.mount_propagation.as_deref()))
}

enum SubPathError {
    Io(io::Error),
    Unmount(sandbox::mounts::Error),
}

impl From<io::Error> for SubPathError {
    fn from(error: io::Error) -> Self {
        SubPathError::Io(error)
    }
}

/// Bind-mounts a path inside a volume to `target`. The volume's contents are the pod's: symlinks in it must not lead
/// out of it, and may be changed while we look. So the path is opened beneath the volume in one step and the opened
/// file itself is bound, not its name.
fn pin_sub_path(volume: &Path, sub_path: &str, target: &Path) -> Result<(), SubPathError> {
    let relative = Path::new(sub_path);
    if relative.is_absolute() || relative.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "must be a relative path without '..'").into());
    }
    let root = File::open(volume)?;
    let opened = match open_beneath(&root, relative, OFlag::O_PATH) {
        Err(nix::Error::ENOENT) => make_beneath(&root, relative)?,
        other => other.map_err(io::Error::from)?,
    };
    sandbox::mounts::unmount(target).map_err(SubPathError::Unmount)?;
    let is_dir =
        nix::sys::stat::fstat(&opened).map_err(io::Error::from)?.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
    if is_dir {
        std::fs::create_dir_all(target)?;
    } else {
        target.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        File::create(target)?;
    }
    let source = format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd());
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source.as_str()), target, None::<&str>, flags, None::<&str>).map_err(io::Error::from)?;
    Ok(())
}

fn open_beneath(root: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(root, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}

/// Makes the directories of a path that are missing, one level at a time beneath the volume.
fn make_beneath(root: &File, path: &Path) -> io::Result<OwnedFd> {
    let mut at = open_beneath(root, Path::new("."), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let mut sofar = PathBuf::new();
    for part in path.components() {
        sofar.push(part);
        match mkdirat(&at, part.as_os_str(), Mode::from_bits_truncate(0o750)) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        // From the root each time: an existing part may be a symlink to elsewhere in the volume.
        at = open_beneath(root, &sofar, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    }
    Ok(at)
}

/// The container's user, whoever that is, writes its last words here.
fn create_world_writable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed("create directory of"))?;
    }
    let file = File::create(path).map_err(failed("create"))?;
    file.set_permissions(PermissionsExt::from_mode(0o666)).map_err(failed("set mode of"))
}

#[cfg(test)]
mod tests {
    use super::{make_beneath, open_beneath};
    use nix::fcntl::OFlag;
    use std::{fs, fs::File, os::unix::fs::symlink, path::Path};

    #[test]
    fn sub_paths_stay_beneath_their_volume() {
        let volume = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), volume.path().join("out")).unwrap();
        symlink("real", volume.path().join("in")).unwrap();
        fs::create_dir(volume.path().join("real")).unwrap();
        let root = File::open(volume.path()).unwrap();
        assert!(open_beneath(&root, Path::new("out/x"), OFlag::O_PATH).is_err());
        assert!(make_beneath(&root, Path::new("out/x")).is_err());
        assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
        make_beneath(&root, Path::new("in/a/b")).unwrap();
        assert!(volume.path().join("real/a/b").is_dir());
    }
}
