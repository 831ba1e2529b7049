//! What a host holds that a cluster could have left behind: taken before and after, the two must be equal.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::process::{command, run};

/// Everything countable, one line each, such as `interface cni0` or `mount /run/…`.
pub fn inventory() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for line in std::fs::read_to_string("/proc/self/mounts")?.lines() {
        if let Some(target) = line.split(' ').nth(1) {
            found.insert(format!("mount {target}"));
        }
    }
    for (kind, dir) in [("interface", "/sys/class/net"), ("netns", "/run/netns"), ("cni", "/var/lib/cni/networks")] {
        found.extend(names(Path::new(dir)).into_iter().map(|name| format!("{kind} {name}")));
    }
    for line in run(&mut command("nft", ["list", "tables"]))?.lines() {
        found.insert(format!("nftables {line}"));
    }
    for process in names(Path::new("/proc")) {
        let Ok(line) = std::fs::read(format!("/proc/{process}/cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("containerd-shim") {
            found.insert(format!("process {process} {line}"));
        }
    }
    found.extend(cgroups(Path::new("/sys/fs/cgroup")));
    Ok(found)
}

/// The pod cgroups on either cgroup version.
fn cgroups(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in names(root).into_iter().map(|n| root.join(n)).chain([root.to_owned()]) {
        for name in names(&hierarchy).into_iter().filter(|n| n.starts_with("kubepods")) {
            let pods = hierarchy.join(&name);
            found.extend(names(&pods).into_iter().filter(|n| n.contains("pod")).map(|n| format!("cgroup {name}/{n}")));
        }
    }
    found
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}
