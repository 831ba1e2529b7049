//! Namespaces without a process: made on a thread of their own and kept by bind mounts, so that neither the agent's end
//! nor any container's end closes them.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::statfs::{FsType, statfs},
};
use tokio::sync::oneshot;

use crate::network::bridge;

/// What `statfs` calls a pinned namespace.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}", path.display())]
    Path { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{action}")]
    System { action: &'static str, source: io::Error },
    #[error(transparent)]
    Network(#[from] bridge::Error),
    #[error("the thread that makes namespaces ended early")]
    Thread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    Net,
    Ipc,
    Uts,
}

impl Namespace {
    pub fn file(self) -> &'static str {
        match self {
            Namespace::Net => "net",
            Namespace::Ipc => "ipc",
            Namespace::Uts => "uts",
        }
    }
    fn flag(self) -> CloneFlags {
        match self {
            Namespace::Net => CloneFlags::CLONE_NEWNET,
            Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
            Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        }
    }
}

pub struct Request {
    /// Namespaces are pinned at `directory/net` and so on.
    pub directory: PathBuf,
    pub namespaces: Vec<Namespace>,
    /// Set in the UTS namespace, if one is made.
    pub hostname: String,
    pub sysctls: Vec<(String, String)>,
    /// Attaches the network namespace to the built-in network while this thread stands in it.
    pub attach: Option<bridge::Attach>,
}

/// Is a namespace pinned at this path? False after a reboot: files survive it, mounts don't.
pub fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Makes and pins the namespaces. What an earlier, interrupted call left is replaced.
pub async fn pin(request: Request) -> Result<(), Error> {
    let (done, result) = oneshot::channel();
    // A thread that has unshared its namespaces can't go back to a pool.
    let thread = std::thread::Builder::new().name("namespaces".into()).spawn(move || {
        // The receiver is gone only when the caller was dropped; then the pins are found or removed later.
        let _dropped = done.send(pin_here(&request));
    });
    thread.map_err(|source| Error::System { action: "start thread", source })?;
    result.await.unwrap_or(Err(Error::Thread))
}

fn pin_here(request: &Request) -> Result<(), Error> {
    let directory = &request.directory;
    fs::create_dir_all(directory).map_err(|source| Error::Path {
        action: "create",
        path: directory.clone(),
        source,
    })?;
    if request.namespaces.is_empty() {
        return Ok(());
    }
    let host = request.attach.as_ref().map(bridge::Attach::on_host).transpose()?;
    let flags = request.namespaces.iter().map(|namespace| namespace.flag()).collect();
    unshare(flags).map_err(|errno| Error::System { action: "unshare namespaces", source: errno.into() })?;
    if request.namespaces.contains(&Namespace::Uts) {
        nix::unistd::sethostname(&request.hostname)
            .map_err(|errno| Error::System { action: "set hostname", source: errno.into() })?;
    }
    if request.namespaces.contains(&Namespace::Net) {
        loopback_up().map_err(|source| Error::System { action: "bring loopback up", source })?;
    }
    if let (Some(attach), Some(host)) = (&request.attach, host) {
        attach.in_pod(host)?;
    }
    for (name, value) in &request.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|source| Error::Path { action: "set sysctl", path, source })?;
    }
    for namespace in &request.namespaces {
        let path = directory.join(namespace.file());
        let source = Path::new("/proc/thread-self/ns").join(namespace.file());
        bind(&source, &path)?;
    }
    Ok(())
}

/// Pins a namespace of a process where it is not pinned yet, or another one is.
pub fn pin_of(process: u32, namespace: &str, directory: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let path = directory.join(namespace);
    let source = PathBuf::from(format!("/proc/{process}/ns/{namespace}"));
    let inode = |path: &Path| fs::metadata(path).ok().map(|found| found.ino());
    if is_pinned(&path) && inode(&path) == inode(&source) {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(|source| Error::Path {
        action: "create",
        path: directory.to_owned(),
        source,
    })?;
    bind(&source, &path)
}

fn bind(source: &Path, path: &Path) -> Result<(), Error> {
    let failed = |action| {
        let path = path.to_owned();
        move |source| Error::Path { action, path, source }
    };
    unpin(path)?;
    File::create(path).map_err(failed("create"))?;
    mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| failed("bind namespace to")(errno.into()))
}

/// Releases a pinned namespace; it ends with its last process. Safe to repeat.
pub fn unpin(path: &Path) -> Result<(), Error> {
    let failed = |action| {
        let path = path.to_owned();
        move |source| Error::Path { action, path, source }
    };
    while is_pinned(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|errno| failed("release namespace at")(errno.into()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove")(error)),
        _ => Ok(()),
    }
}

/// In the calling thread's network namespace.
fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is valid; the name fits and stays terminated by a zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open and the request outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
