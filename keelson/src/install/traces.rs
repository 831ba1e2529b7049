//! Everything a node leaves on its host, as the kernel and containerd show it. Taken before and after an uninstall: the
//! difference is what was removed, and the second must be empty.
//!
//! Only what is this installation's: told by its own names, its directories and its program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::state::Instance;

/// Where to look, and for which names.
pub struct Place {
    pub data_dir: PathBuf,
    pub containerd: PathBuf,
    pub binary: PathBuf,
    pub instance: Instance,
}

/// Traces of an installation, one line each, such as `interface keelson0`.
pub fn find(place: &Place) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(processes(place).into_iter().map(|(id, line)| format!("process {id} ({line})")));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    found.extend(mounts_below(&mounts, &place.data_dir).into_iter().map(|target| format!("mount {target}")));
    found.extend(interfaces(Path::new("/sys/class/net"), &place.instance));
    found.extend(addresses(&place.instance));
    let tables = Command::new("nft").args(["list", "tables"]).output();
    let tables = tables.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let own = place.instance.nftables_table();
    found.extend(tables.lines().filter(|line| is_own_table(line, &own)).map(|line| format!("nftables {line}")));
    found.extend(cgroups(Path::new("/sys/fs/cgroup"), &place.instance.cgroup_parent()));
    found
}

/// Processes of this installation other than this one: its program, whatever name the file has by now, and the shims
/// of its containers.
pub fn processes(place: &Place) -> Vec<(u32, String)> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command: Vec<String> =
            command.split(|b| *b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if id != own && (is_program(&program, &place.binary) || is_shim(&command, place)) {
            found.push((id, command.join(" ").trim_end().to_owned()));
        }
    }
    found
}

/// A program that was replaced or removed while it runs is shown with this after its path.
fn is_program(program: &Path, binary: &Path) -> bool {
    const REMOVED: &str = " (deleted)";
    let text = program.to_string_lossy();
    Path::new(text.strip_suffix(REMOVED).unwrap_or(&text)) == binary
}

fn is_shim(command: &[String], place: &Place) -> bool {
    let follows = |flag: &str, value: &str| command.windows(2).any(|pair| pair[0] == flag && pair[1] == value);
    command.first().is_some_and(|program| program.contains("containerd-shim"))
        && follows("-namespace", &place.instance.containerd_namespace())
        && follows("-address", &place.containerd.to_string_lossy())
}

/// Targets of a mount table of `/proc/self/mounts`' form that lie below `directory`.
pub fn mounts_below(table: &str, directory: &Path) -> Vec<String> {
    let targets = table.lines().filter_map(|line| line.split(' ').nth(1));
    targets.filter(|target| Path::new(target).starts_with(directory)).map(str::to_owned).collect()
}

/// Our own interfaces, and those of pods, which are ports of our bridge.
fn interfaces(class: &Path, instance: &Instance) -> Vec<String> {
    let own = instance.interfaces();
    let mut found = Vec::new();
    for entry in fs::read_dir(class).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let master = fs::read_link(entry.path().join("master")).unwrap_or_default();
        let is_port = master.file_name().is_some_and(|bridge| bridge.to_string_lossy() == instance.bridge());
        if is_port || own.contains(&name) {
            found.push(format!("interface {name}"));
        }
    }
    found
}

/// The address of the node's DNS server, which lies on an interface of the host.
fn addresses(instance: &Instance) -> Option<String> {
    let own = instance.dns_address();
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let mut own_ones = addresses.filter(|interface| {
        let address = interface.address.as_ref().and_then(|address| address.as_sockaddr_in());
        address.is_some_and(|address| address.ip() == own)
    });
    own_ones.next().map(|interface| format!("address {own} of {}", interface.interface_name))
}

/// A line such as `table ip keelson`; a table of ours has our name, alone or with more after it.
fn is_own_table(line: &str, own: &str) -> bool {
    let name = line.split_whitespace().nth(2).unwrap_or_default();
    name == own || name.strip_prefix(own).is_some_and(|more| more.starts_with('-'))
}

/// `kubepods` on either cgroup version, and the parent when that is ours alone.
fn cgroups(mount: &Path, parent: &str) -> Vec<String> {
    let tops = fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut roots = vec![mount.to_owned()];
    if !mount.join("cgroup.controllers").exists() {
        roots = tops.filter(|path| path.is_dir() && !path.is_symlink()).collect();
    }
    let below = if parent.is_empty() { "kubepods" } else { parent };
    let found = roots.into_iter().map(|root| root.join(below)).filter(|path| path.is_dir());
    found.map(|path| format!("cgroup {}", path.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_others_are_not_ours() {
        let table = "tmpfs /data/keelson/agent/pods/u1/shm tmpfs rw 0 0\n\
                     tmpfs /data/keelson-old/x tmpfs rw 0 0\n\
                     proc /proc proc rw 0 0\n";
        assert_eq!(mounts_below(table, Path::new("/data/keelson")), ["/data/keelson/agent/pods/u1/shm"]);
    }

    #[test]
    fn a_replaced_program_is_still_the_program() {
        let binary = Path::new("/usr/local/bin/keelson");
        assert!(is_program(Path::new("/usr/local/bin/keelson (deleted)"), binary));
        assert!(!is_program(Path::new("/usr/local/bin/keelson-other"), binary));
    }

    #[test]
    fn tables_of_other_instances_are_not_ours() {
        assert!(is_own_table("table ip keelson", "keelson"));
        assert!(is_own_table("table inet keelson-policy", "keelson"));
        assert!(!is_own_table("table ip keelson_0a1b2c3d", "keelson"));
    }

    #[test]
    fn shims_are_told_by_namespace_and_socket() {
        let place = Place {
            data_dir: "/var/lib/keelson".into(),
            containerd: "/run/c.sock".into(),
            binary: "/usr/local/bin/keelson".into(),
            instance: Instance::of(Path::new("/var/lib/keelson")),
        };
        let shim = |namespace: &str, address: &str| {
            let line = format!("/usr/bin/containerd-shim-runc-v2 -namespace {namespace} -id a -address {address}");
            is_shim(&line.split(' ').map(str::to_owned).collect::<Vec<_>>(), &place)
        };
        assert!(shim("k8s.io", "/run/c.sock"));
        assert!(!shim("moby", "/run/c.sock") && !shim("k8s.io", "/run/other.sock"));
    }
}
