//! What a host must have before Keelson is installed on it. Each complaint says what is wrong and what to do; all are
//! told at once, so that a host is put right in one go.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use super::layout::MODULES;

/// What of the host the settings need.
pub struct Needs {
    /// Runs pods, so that containerd, cgroups and the network have to be there.
    pub node: bool,
    pub containerd: PathBuf,
    /// The setting that names each port, and the port.
    pub ports: Vec<(&'static str, SocketAddr)>,
    /// The unit will be started.
    pub start: bool,
}

/// Something wrong with a host.
#[derive(Debug, PartialEq)]
pub enum Complaint {
    /// Nothing would work.
    Fault(String),
    /// Something will not.
    Warning(String),
}

const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const PROGRAM_DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Looks at everything, prints what is not fatal, and fails with all that is.
pub fn host(needs: &Needs) -> Result<()> {
    let mut complaints = Vec::new();
    if needs.start && !Path::new("/run/systemd/system").is_dir() {
        complaints.push(Complaint::Fault(
            "systemd does not run this host: add --no-start, and have your supervisor run `keelson server` or \
             `keelson agent`"
                .into(),
        ));
    }
    if needs.node {
        complaints.extend(cgroups(Path::new("/sys/fs/cgroup")));
        complaints.extend(programs());
        complaints.extend(containerd(&needs.containerd));
        complaints.extend(MODULES.iter().filter_map(|module| kernel_module(module)));
    }
    complaints.extend(needs.ports.iter().filter_map(|(setting, address)| port(setting, *address)));
    let mut faults = Vec::new();
    for complaint in complaints {
        match complaint {
            Complaint::Fault(text) => faults.push(text),
            Complaint::Warning(text) => println!("warning: {text}"),
        }
    }
    match faults.len() {
        0 => Ok(()),
        1 => bail!("this host is not ready: {}", faults[0]),
        count => bail!("this host is not ready, for {count} reasons:\n  - {}", faults.join("\n  - ")),
    }
}

fn cgroups(mount: &Path) -> Option<Complaint> {
    let (available, remedy) = match fs::read_to_string(mount.join("cgroup.controllers")) {
        Ok(list) => (
            list.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            "boot the kernel with cgroup_enable=memory, or without cgroup_disable=",
        ),
        Err(_) => (
            CONTROLLERS.iter().filter(|name| mount.join(name).is_dir()).map(|name| (*name).to_owned()).collect(),
            "mount the cgroup filesystem, as systemd does",
        ),
    };
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !available.iter().any(|a| a == name)).collect();
    (!missing.is_empty()).then(|| {
        Complaint::Fault(format!(
            "the cgroup controllers {} are not available in {}, so pods could not be limited: {remedy}",
            missing.join(", "),
            mount.display()
        ))
    })
}

fn programs() -> Vec<Complaint> {
    let mut complaints = Vec::new();
    if find("nft").is_none() {
        complaints
            .push(Complaint::Fault("the program nft, which sets up Services, is missing: install nftables".into()));
    }
    if find("runc").is_none() && find("crun").is_none() {
        complaints.push(Complaint::Fault(
            "no OCI runtime is here for containerd to start containers with: install runc or crun".into(),
        ));
    }
    complaints
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(PROGRAM_DIRECTORIES);
    directories.map(|directory| Path::new(directory).join(program)).find(|file| file.is_file())
}

fn containerd(socket: &Path) -> Option<Complaint> {
    if UnixStream::connect(socket).is_ok() {
        return None;
    }
    let shown = socket.display();
    if find("containerd").is_none() {
        return Some(Complaint::Fault(format!(
            "containerd is not installed (nothing answers at {shown}): install the package containerd"
        )));
    }
    // The unit pulls Debian's in; pods wait for it.
    Some(Complaint::Warning(format!(
        "containerd does not answer at {shown}: pods wait until it does (`systemctl status containerd`), or name its \
         socket with --containerd-address"
    )))
}

/// Loads a module unless it is there already, built in or loaded.
fn kernel_module(name: &str) -> Option<Complaint> {
    let present = Path::new("/sys/module").join(name).exists()
        || (name == "overlay"
            && fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\toverlay\n")))
        || (name == "br_netfilter" && Path::new("/proc/sys/net/bridge").exists());
    if present {
        return None;
    }
    let problem = match Command::new("modprobe").arg(name).output() {
        Ok(output) if output.status.success() => return None,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("modprobe: {error}"),
    };
    if works_without(name) {
        return None;
    }
    let text = format!(
        "the kernel module {name} cannot be loaded ({problem}): install your kernel's full set of modules (on Ubuntu \
         linux-modules-extra), or boot a kernel that has it"
    );
    // Nodes on one link need no tunnel.
    Some(if name == "vxlan" { Complaint::Warning(text) } else { Complaint::Fault(text) })
}

/// Whether the kernel has what a module brings built in, where that leaves no trace in `/sys/module`.
fn works_without(name: &str) -> bool {
    name == "nf_tables" && Command::new("nft").args(["list", "tables"]).output().is_ok_and(|o| o.status.success())
}

fn port(setting: &str, address: SocketAddr) -> Option<Complaint> {
    if address.port() == 0 {
        return None;
    }
    let error = TcpListener::bind(address).err()?;
    let holder = match error.kind() {
        std::io::ErrorKind::AddrInUse => match holder(address.port()) {
            Some(holder) => format!("is in use by {holder}: stop that"),
            None => "is in use: stop what holds it (`ss -ltnp` tells)".to_owned(),
        },
        std::io::ErrorKind::AddrNotAvailable => "is no address of this host: correct that".to_owned(),
        _ => format!("cannot be listened on ({error}): correct that"),
    };
    Some(Complaint::Fault(format!("{address} {holder}, or choose another with {setting}")))
}

/// The process that listens on a TCP port, by name and id.
fn holder(port: u16) -> Option<String> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| listening(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let is_process = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
    for entry in fs::read_dir("/proc").ok()?.flatten().filter(is_process) {
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = |link: PathBuf| sockets.iter().any(|socket| link.as_os_str() == socket.as_str());
        if descriptors.flatten().filter_map(|d| fs::read_link(d.path()).ok()).any(holds) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {})", name.trim(), entry.file_name().to_string_lossy()));
        }
    }
    None
}

/// Inodes of the sockets in a table of `/proc/net/tcp`'s form that listen on `port`.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|f| f.len() > 9 && f[1].ends_with(&wanted) && f[3] == LISTEN).map(|f| f[9].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_controller_is_named() {
        let mount = tempfile::tempdir().expect("a directory");
        fs::write(mount.path().join("cgroup.controllers"), "cpuset cpu io pids\n").expect("written");
        let Some(Complaint::Fault(text)) = cgroups(mount.path()) else { panic!("no complaint") };
        assert!(text.contains("controllers memory are") && text.contains("cgroup_enable=memory"), "{text}");
        fs::write(mount.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("written");
        assert_eq!(cgroups(mount.path()), None);
    }

    #[test]
    fn a_taken_port_names_who_has_it_and_which_setting_changes_it() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = taken.local_addr().expect("an address");
        let Some(Complaint::Fault(text)) = port("--bind", address) else { panic!("no complaint") };
        let own = format!("(process {})", std::process::id());
        assert!(text.contains(&own) && text.ends_with("choose another with --bind"), "{text}");
    }

    #[test]
    fn a_free_port_is_fine() {
        // One below those the kernel gives away, which another test of this process may have by now.
        let free = (20_000..21_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port");
        assert_eq!(port("--bind", ([127, 0, 0, 1], free).into()), None);
    }

    #[test]
    fn only_listening_sockets_hold_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 111 1 0 1\n\
                     1: 0100007F:192B 0100007F:C350 01 00000000:00000000 00:00000000 00000000  0  0 222 1 0 1\n";
        assert_eq!(listening(table, 6443), ["111"]);
        assert!(listening(table, 6444).is_empty());
    }

    #[test]
    fn an_absent_containerd_is_told_with_its_socket() {
        let complaint = containerd(Path::new("/nonexistent/containerd.sock")).expect("a complaint");
        let (Complaint::Fault(text) | Complaint::Warning(text)) = complaint;
        assert!(text.contains("/nonexistent/containerd.sock"), "{text}");
    }
}
