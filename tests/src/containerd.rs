//! A private containerd: own root, state and socket below one directory, nothing shared with the host's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::process::{Background, command};
use crate::{packages, wait};

const START_LIMIT: Duration = Duration::from_secs(30);

/// Where Debian's own containerd listens.
pub const HOST_SOCKET: &str = "/run/containerd/containerd.sock";

/// Whether the host's own containerd answers.
pub fn host_is_running() -> bool {
    std::os::unix::net::UnixStream::connect(HOST_SOCKET).is_ok()
}

/// A containerd below `dir`. It is left running when the value is dropped; [`Containerd::stop`] ends it.
pub struct Containerd {
    dir: PathBuf,
    process: Background,
}

impl Containerd {
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), process: Background::at(&dir.join("pid")) }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Starts it unless it runs already.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::start_by(dir, Background::start)
    }

    /// Like [`Containerd::start`] on another host.
    pub fn start_on(host: &Host, dir: &Path) -> Result<Self> {
        Self::start_by(dir, |command, pid_file, log| host.spawn(command, pid_file, log))
    }

    fn start_by(
        dir: &Path,
        spawn: impl FnOnce(std::process::Command, &Path, &Path) -> Result<Background>,
    ) -> Result<Self> {
        let existing = Self::at(dir);
        if existing.process.pid().is_some() {
            return Ok(existing);
        }
        std::fs::create_dir_all(dir).with_context(|| format!("create {dir:?}"))?;
        let config = dir.join("config.toml");
        std::fs::write(&config, configuration(dir)).with_context(|| format!("write {config:?}"))?;
        let program = packages::find_program("containerd").context("containerd is not installed")?;
        let start = command(program, ["--config".as_ref(), config.as_os_str()]);
        let process = spawn(start, &dir.join("pid"), &dir.join("log"))?;
        let containerd = Self { dir: dir.to_owned(), process };
        let socket = containerd.socket();
        wait::until(&format!("containerd (log: {:?})", dir.join("log")), START_LIMIT, || {
            Ok(std::os::unix::net::UnixStream::connect(&socket).ok())
        })?;
        Ok(containerd)
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    pub fn stop(&self) -> Result<()> {
        self.process.stop().map(drop)
    }

    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }
}

/// The CRI plugin is off, as the agent speaks containerd's own API; without it, and without the snapshotters that
/// look for devices, containerd starts in a fraction of the time.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{dir}/containerd.sock"
"#
    )
}
