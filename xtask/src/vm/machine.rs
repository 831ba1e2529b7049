//! One virtual machine: its disk, its seed for cloud-init, its QEMU process, its logs.
//!
//! All machines are on one Ethernet. It lies in the QEMU process of the server: a hub with a port for the server, one
//! for QEMU's own gateway (addresses, names, the way out, and the forwarded port of the API server), and one for each
//! other machine, over a connection on the loopback interface. So nothing of the host's network is touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::tests::process::{Background, command, run};
use ::tests::wait;
use anyhow::{Context, Result, bail};

use super::disk::Base;
use super::guest::Guest;

const MEMORY: &str = "1024";
const CPUS: &str = "2";
/// Translated code is kept up to this size; with QEMU's default large programs are translated again and again.
const TRANSLATED_MIB: u32 = 512;
/// From power on to a guest agent that answers; 60 s when this host has nothing else to do.
const BOOT_LIMIT: Duration = Duration::from_secs(600);
const POWER_DOWN_LIMIT: Duration = Duration::from_secs(120);
const LOG_LIMIT: Duration = Duration::from_secs(120);
const SERIAL_CONSOLE: &str = "console=ttyS0 quiet systemd.show_status=true";

/// The network the machines share, as the first three numbers of an address, and the hub's number in it.
const LAN: &str = "192.168.77";
const HUB_NUMBER: u8 = 1;
/// What the card's address is made from that leads to this host.
const HOST_CARD: &str = "host";

/// How a machine is attached to the Ethernet that all share. QEMU's user network must not be part of it: it answers for
/// every address it sees, that of the neighbour included.
pub enum Link {
    /// The hub, which listens on a port for each other machine; and by a second card the way from `api_port` of this
    /// host to the API server.
    Hub { api_port: u16, ports: Vec<u16> },
    /// A cable to a port of the hub, for the machine of this number; the hub's has none.
    Cable { port: u16, number: u8 },
}

pub struct Machine {
    pub name: String,
    dir: PathBuf,
    process: Background,
    pub guest: Guest,
}

impl Machine {
    /// The machine of that name below `dir`, running or not.
    pub fn at(dir: &Path, name: &str) -> Self {
        let dir = dir.join(name);
        let process = Background::at(&dir.join("qemu.pid"));
        Self { name: name.to_owned(), process, guest: Guest::at(&dir.join("guest.sock")), dir }
    }

    /// Starts a new machine with an empty past. `files` go onto its seed, next to the user data.
    pub fn start(dir: &Path, name: &str, base: &Base, link: &Link, user_data: &str, files: &[&Path]) -> Result<Self> {
        let machine = Self::at(dir, name);
        if machine.is_running() {
            bail!("the machine {name} runs already: `cargo xtask vm stop` first");
        }
        if machine.dir.exists() {
            fs::remove_dir_all(&machine.dir).with_context(|| format!("remove {:?}", machine.dir))?;
        }
        let seed = machine.dir.join("seed");
        fs::create_dir_all(&seed).with_context(|| format!("create {seed:?}"))?;
        fs::write(seed.join("user-data"), user_data)?;
        fs::write(seed.join("meta-data"), format!("instance-id: {name}\nlocal-hostname: {name}\n"))?;
        fs::write(seed.join("network-config"), network_config(name, link))?;
        for file in files {
            let target = seed.join(file.file_name().context("a file has a name")?);
            fs::copy(file, &target).with_context(|| format!("copy {file:?} to {target:?}"))?;
        }
        // Holes stay holes, so that this takes a second.
        let disk = machine.dir.join("disk.raw");
        run(command("cp", ["--sparse=always", "--reflink=auto"]).arg(base.disk()).arg(&disk))?;
        let qemu = machine.qemu(base, link, &disk, &seed);
        Background::start(qemu, &machine.dir.join("qemu.pid"), &machine.dir.join("qemu.log"))?;
        Ok(machine)
    }

    fn qemu(&self, base: &Base, link: &Link, disk: &Path, seed: &Path) -> std::process::Command {
        let mut qemu = command("qemu-system-x86_64", ["-nodefaults", "-no-reboot", "-display", "none"]);
        qemu.args(["-name", &self.name, "-m", MEMORY, "-smp", CPUS]);
        if has_kvm() {
            qemu.args(["-accel", "kvm", "-cpu", "host"]);
        } else {
            qemu.args(["-accel", &format!("tcg,thread=multi,tb-size={TRANSLATED_MIB}"), "-cpu", "max"]);
        }
        qemu.arg("-kernel").arg(base.kernel()).arg("-initrd").arg(base.ramdisk());
        qemu.args(["-append", &format!("root=/dev/vda rw {SERIAL_CONSOLE} mitigations=off ds=nocloud")]);
        // A disk that is thrown away needs no flush.
        qemu.args(["-drive", &format!("file={},format=raw,if=virtio,cache=unsafe", disk.display())]);
        // A directory of this host, shown as a read-only FAT disk with the label cloud-init looks for.
        let seed = format!("file.driver=vvfat,file.dir={},file.label=CIDATA", seed.display());
        qemu.args(["-drive", &format!("{seed},format=raw,if=virtio,readonly=on")]);
        qemu.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        qemu.arg("-chardev").arg(format!("socket,id=guest,path={}/guest.sock,server=on,wait=off", self.dir.display()));
        qemu.args(["-device", "virtserialport,chardev=guest,name=org.qemu.guest_agent.0"]);
        qemu.arg("-serial").arg(format!("file:{}", self.dir.join("console.log").display()));
        qemu.args(network(&self.name, link));
        qemu
    }

    pub fn is_running(&self) -> bool {
        self.process.pid().is_some()
    }

    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Waits until the machine takes commands.
    pub fn wait_until_up(&self) -> Result<()> {
        let mut ended = false;
        let up = wait::until(&format!("{} (console: {:?})", self.name, self.console()), BOOT_LIMIT, || {
            if !self.is_running() {
                ended = true;
                return Ok(Some(()));
            }
            self.guest.is_up().map(Some)
        });
        if ended {
            bail!("QEMU ended:\n{}", ::tests::cluster::tail(&self.dir.join("qemu.log"), 20));
        }
        up
    }

    /// Writes the machine's journal to this host, and returns where.
    pub fn collect_logs(&self) -> Result<PathBuf> {
        let path = self.dir.join("journal.log");
        // The guest agent returns at most 16 MB.
        let journal = self.guest.run("journalctl --no-pager -o short-precise | tail -c 8000000", LOG_LIMIT)?;
        fs::write(&path, journal).with_context(|| format!("write {path:?}"))?;
        Ok(path)
    }

    /// As the power button does; what does not go down by itself is cut off.
    pub fn stop(&self) -> Result<bool> {
        if !self.is_running() {
            return Ok(true);
        }
        let gone = || Ok((!self.is_running()).then_some(()));
        let went = self.guest.power_down().and_then(|()| wait::until("the machine to go down", POWER_DOWN_LIMIT, gone));
        self.process.stop()?;
        Ok(went.is_ok())
    }
}

/// A device that opens is not enough: inside a virtual machine without nested virtualization it opens as well.
fn has_kvm() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = flags.lines().any(|line| line.starts_with("flags") && line.split(' ').any(|f| f == "vmx" || f == "svm"));
    able && fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

fn network(name: &str, link: &Link) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
    match link {
        Link::Hub { api_port, ports } => {
            add("-netdev", format!("user,id=host,ipv6=off,restrict=on,hostfwd=tcp:127.0.0.1:{api_port}-:6443"));
            add("-device", format!("virtio-net-pci,netdev=host,mac={},romfile=", mac(HOST_CARD)));
            for port in ports {
                add("-netdev", format!("socket,id=cable{port},listen=127.0.0.1:{port}"));
                add("-netdev", format!("hubport,id=hub{port},hubid=1,netdev=cable{port}"));
            }
            add("-netdev", "hubport,id=net,hubid=1".to_owned());
        }
        Link::Cable { port, .. } => add("-netdev", format!("socket,id=net,connect=127.0.0.1:{port}")),
    }
    // Without its boot program, which is a package of its own; these machines boot from a kernel we hand them.
    add("-device", format!("virtio-net-pci,netdev=net,mac={},romfile=", mac(name)));
    args
}

/// cloud-init's network configuration (version 2). Only the shared Ethernet has a default route, though nobody is at its
/// end: a node takes its address from there.
fn network_config(name: &str, link: &Link) -> String {
    let (number, host_card) = match link {
        Link::Hub { .. } => (
            HUB_NUMBER,
            format!(
                "  host:\n    match: {{macaddress: '{}'}}\n    dhcp4: true\n    dhcp4-overrides: {{use-routes: false}}\n",
                mac(HOST_CARD)
            ),
        ),
        Link::Cable { number, .. } => (HUB_NUMBER + number, String::new()),
    };
    format!(
        "version: 2\nethernets:\n  lan:\n    match: {{macaddress: '{}'}}\n    addresses: [{LAN}.{number}/24]\n    \
         gateway4: {LAN}.254\n{host_card}",
        mac(name)
    )
}

/// An address of one's own by name, in the range QEMU uses.
fn mac(name: &str) -> String {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, _] = hash.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_have_addresses_of_their_own() {
        assert_ne!(mac("agent-1"), mac("agent-2"));
        assert_eq!(mac("server"), mac("server"));
    }

    #[test]
    fn every_cable_has_its_port_of_the_hub() {
        let hub = network("server", &Link::Hub { api_port: 1, ports: vec![2, 3] }).join(" ");
        for port in [2, 3] {
            assert!(hub.contains(&format!("listen=127.0.0.1:{port}")) && hub.contains(&format!("netdev=cable{port}")));
        }
        assert!(network("agent-1", &Link::Cable { port: 2, number: 1 }).join(" ").contains("connect=127.0.0.1:2"));
    }

    #[test]
    fn machines_meet_on_a_network_without_the_host() {
        let hub = network_config("server", &Link::Hub { api_port: 1, ports: vec![2] });
        assert!(hub.contains("192.168.77.1/24") && hub.contains("use-routes: false"), "{hub}");
        let agent = network_config("agent-1", &Link::Cable { port: 2, number: 1 });
        assert!(agent.contains("192.168.77.2/24") && !agent.contains("dhcp4"), "{agent}");
    }
}
