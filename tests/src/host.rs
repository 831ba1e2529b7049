//! A host without a machine: a set of namespaces with its own network, mounts, `/run`, processes and name, held by one
//! process. Ending that process ends everything in it, as pulling the plug would: processes, containers, mounts and
//! interfaces. What is left is the disk, so that the next boot is a reboot.
//!
//! Cgroups and the kernel's modules are the machine's own: agents in two hosts need different cgroup parents, which
//! they have by their data directories.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::{self, Background, command};
use crate::wait;

const BOOT_LIMIT: Duration = Duration::from_secs(10);

/// PID 1 of a host. `/sys` is mounted again because it shows the interfaces of whoever mounted it, with the machine's
/// cgroups put back; the boot id is a file, so that each boot has its own. The loop reaps orphans.
const INIT: &str = r#"
set -e
hostname "$NAME"
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p "$DIR/sys" && mount --rbind /sys "$DIR/sys"
mount -t sysfs sysfs /sys
mount --rbind "$DIR/sys/fs/cgroup" /sys/fs/cgroup
umount -l "$DIR/sys"
mount -t tmpfs tmpfs /run
cat /proc/sys/kernel/random/uuid > "$DIR/boot_id"
mount --bind "$DIR/boot_id" /proc/sys/kernel/random/boot_id
ip link set lo up
echo > "$DIR/booted"
set +e
while :; do sleep 3600 & wait $!; done
"#;

/// A running host. [`Host::power_off`] ends it; so does dropping the value.
pub struct Host {
    pub name: String,
    pub dir: PathBuf,
    init: Background,
    inside: Inside,
}

/// The namespaces of a host, open: whoever has them can go in.
pub struct Inside {
    files: Vec<(CloneFlags, File)>,
}

impl Host {
    /// `dir` is the host's disk.
    pub fn boot(dir: &Path, name: &str) -> Result<Self> {
        let (init, inside) = start(dir, name)?;
        Ok(Self { name: name.to_owned(), dir: dir.to_owned(), init, inside })
    }

    /// Pulls the plug.
    pub fn power_off(&self) -> Result<()> {
        self.init.kill()
    }

    /// Boots again after [`Host::power_off`], with nothing but the disk.
    pub fn reboot(&mut self) -> Result<()> {
        self.power_off()?;
        (self.init, self.inside) = start(&self.dir, &self.name)?;
        Ok(())
    }

    /// Pid of the host's first process, as seen from outside.
    pub fn pid(&self) -> Result<u32> {
        self.init.pid().with_context(|| format!("host {} is off", self.name))
    }

    /// Runs a command in the host to its end.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        self.inside.run(command)
    }

    /// `ip` and such, as words.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.run(&mut command("/bin/sh", ["-e", "-c", script])).with_context(|| format!("on host {}", self.name))
    }

    pub fn spawn(&self, command: Command, pid_file: &Path, log: &Path) -> Result<Background> {
        Background::start_by(command, pid_file, log, |command| self.inside.spawn(command))
    }

    /// Runs code of this process in the host's network.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.inside.within(work)
    }

    /// A second handle on the namespaces, such as for a thread that goes in and out.
    pub fn inside(&self) -> Result<Inside> {
        Inside::open(self.pid()?)
    }
}

/// Starts PID 1 in namespaces of its own, and waits until it has set them up.
fn start(dir: &Path, name: &str) -> Result<(Background, Inside)> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {dir:?}"))?;
    let booted = dir.join("booted");
    if booted.exists() {
        std::fs::remove_file(&booted).with_context(|| format!("remove {booted:?}"))?;
    }
    let mut init = command("/bin/sh", ["-c", INIT]);
    init.env("NAME", name).env("DIR", dir);
    let flags = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    let log = dir.join("init.log");
    let init = Background::start_by(init, &dir.join("init.pid"), &log, |command| {
        on_thread(move || {
            unshare(flags).context("unshare namespaces")?;
            Ok(command.spawn()?)
        })
    })?;
    wait::until(&format!("host {name} to boot (log: {log:?})"), BOOT_LIMIT, || Ok(booted.exists().then_some(())))?;
    let pid = init.pid().with_context(|| format!("host {name} ended at boot; see {log:?}"))?;
    Ok((init, Inside::open(pid)?))
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.power_off() {
            eprintln!("host {} not ended: {error:#}", self.name);
        }
    }
}

impl Inside {
    fn open(pid: u32) -> Result<Self> {
        // Mounts last: the paths of the others are of this host's `/proc`.
        let kinds = [
            ("net", CloneFlags::CLONE_NEWNET),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("pid", CloneFlags::CLONE_NEWPID),
            ("mnt", CloneFlags::CLONE_NEWNS),
        ];
        let open = |(name, flag): (&str, CloneFlags)| {
            let path = format!("/proc/{pid}/ns/{name}");
            Ok((flag, File::open(&path).with_context(|| format!("open {path}"))?))
        };
        Ok(Self { files: kinds.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// For the calling thread, which cannot go back.
    fn enter(&self) -> Result<()> {
        // A thread that shares its working directory with others cannot change its mounts.
        unshare(CloneFlags::CLONE_FS).context("unshare the working directory")?;
        for (flag, file) in &self.files {
            setns(file, *flag).with_context(|| format!("enter {flag:?}"))?;
        }
        Ok(())
    }

    fn spawn(&self, command: &mut Command) -> Result<Child> {
        on_thread(|| {
            self.enter()?;
            Ok(command.spawn()?)
        })
    }

    pub fn run(&self, command: &mut Command) -> Result<String> {
        on_thread(|| {
            self.enter()?;
            process::run(command)
        })
    }

    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            let (flag, file) = &self.files[0];
            setns(file, *flag).context("enter the host's network")?;
            work()
        })
    }
}

/// Namespaces belong to a thread: one of its own enters them and ends with them.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join().map_err(|_| anyhow!("the thread inside a host panicked"))?)
}

/// A link between hosts: a host of its own that holds a switch and, as a router, the ends of links that are routed.
pub struct Lan {
    pub switch: Host,
}

/// The router's address on the switch; also an address outside of every cluster.
pub const OUTSIDE: &str = "192.0.2.254";

impl Lan {
    pub fn start(dir: &Path) -> Result<Self> {
        let switch = Host::boot(dir, "switch")?;
        switch.sh(&format!(
            "echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables\n\
             echo 1 > /proc/sys/net/ipv4/ip_forward\n\
             ip link add lan type bridge\n\
             ip link set lan up\n\
             ip address add {OUTSIDE}/24 dev lan"
        ))?;
        Ok(Self { switch })
    }

    /// Plugs the host's `eth0` into the switch, with an address of its own in 192.0.2.0/24.
    pub fn plug(&self, host: &Host, address: &str) -> Result<()> {
        let port = self.cable(host)?;
        self.switch.sh(&format!("ip link set {port} master lan up"))?;
        host.sh(&format!(
            "ip address add {address}/24 dev eth0\nip link set eth0 up\nip route add default via {OUTSIDE}"
        ))
        .map(drop)
    }

    /// Gives the host's `eth0` a link of its own to the router: 198.51.100.0/30 and the like, the first address the
    /// router's, the second the host's.
    pub fn route(&self, host: &Host, router: &str, address: &str) -> Result<()> {
        let port = self.cable(host)?;
        self.switch.sh(&format!("ip address add {router}/30 dev {port}\nip link set {port} up"))?;
        host.sh(&format!(
            "ip address add {address}/30 dev eth0\nip link set eth0 up\nip route add default via {router}"
        ))
        .map(drop)
    }

    /// A new pair of interfaces; an earlier one is unplugged.
    fn cable(&self, host: &Host) -> Result<String> {
        let port = format!("to-{}", host.name);
        self.unplug(host)?;
        let (switch, host) = (self.switch.pid()?.to_string(), host.pid()?.to_string());
        let pair = ["link", "add", &port, "netns", &switch, "type", "veth", "peer", "name", "eth0", "netns", &host];
        process::run(&mut command("ip", pair))?;
        Ok(port)
    }

    pub fn unplug(&self, host: &Host) -> Result<()> {
        let port = format!("to-{}", host.name);
        self.switch.sh(&format!("if [ -e /sys/class/net/{port} ]; then ip link delete {port}; fi")).map(drop)
    }
}
