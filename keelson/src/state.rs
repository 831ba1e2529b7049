//! What a server leaves in its data directory for other commands, and the names that keep several of them on one host
//! apart.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::args;
use crate::config::DEFAULT_DATA_DIR;

/// The administrator's kubeconfig; always written, wherever else a copy was asked for.
pub fn kubeconfig(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.kubeconfig")
}

/// `keelson kubeconfig`.
pub fn print_kubeconfig(arguments: args::Kubeconfig) -> Result<()> {
    let data_dir = arguments.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let path = kubeconfig(&data_dir);
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("read {} (has a server run with --data-dir {} yet?)", path.display(), data_dir.display())
    })?;
    let Some(server) = arguments.server else {
        println!("{}", text.trim_end());
        return Ok(());
    };
    // The file is ours and has one cluster, whose `server` stands on a line of its own.
    let mut found = false;
    for line in text.lines() {
        match line.find("server: ") {
            Some(indent) if line[..indent].trim().is_empty() => {
                found = true;
                println!("{}server: {server}", &line[..indent]);
            }
            _ => println!("{line}"),
        }
    }
    if !found {
        bail!("{} names no server", path.display());
    }
    Ok(())
}

/// Names of what the node part makes outside its data directory. The one in the default directory has plain names;
/// any other is told apart by its directory.
pub struct Instance {
    suffix: String,
}

impl Instance {
    pub fn of(data_dir: &Path) -> Self {
        if data_dir == Path::new(DEFAULT_DATA_DIR) {
            return Self { suffix: String::new() };
        }
        // FNV-1a: short, and the same on every start. It keeps apart; it protects nothing.
        let hash = data_dir
            .as_os_str()
            .as_encoded_bytes()
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        Self { suffix: format!("{hash:08x}") }
    }

    fn named(&self, plain: &str, separator: &str) -> String {
        if self.suffix.is_empty() { plain.to_owned() } else { format!("{plain}{separator}{}", self.suffix) }
    }

    /// At most 15 bytes, the kernel's limit.
    pub fn bridge(&self) -> String {
        if self.suffix.is_empty() { "keelson0".to_owned() } else { format!("kl-{}", self.suffix) }
    }
    /// All interfaces of the host's side that are named by us; those of pods hang on the bridge.
    pub fn interfaces(&self) -> Vec<String> {
        let bridge = self.bridge();
        let tunnels = agent::network::act::tunnel_names(&bridge);
        std::iter::once(bridge).chain(tunnels).collect()
    }
    pub fn nftables_table(&self) -> String {
        self.named("keelson", "_")
    }
    /// Tables that are known as ours by how their names begin.
    pub fn policy_table(&self) -> String {
        format!("{}-policies", self.nftables_table())
    }
    pub fn host_port_table(&self) -> String {
        format!("{}-host-ports", self.nftables_table())
    }
    /// Where the node's DNS server listens: link-local, so it is the node's own whatever networks it is in.
    pub fn dns_address(&self) -> Ipv4Addr {
        match u32::from_str_radix(&self.suffix, 16) {
            // 169.254.0.0/24 and 169.254.255.0/24 are reserved, and clouds have services in 169.254.169.0/24.
            Ok(hash) => Ipv4Addr::new(169, 254, 32 + (hash % 64) as u8, 1 + (hash / 64 % 250) as u8),
            Err(_) => Ipv4Addr::new(169, 254, 20, 53),
        }
    }
    pub fn containerd_namespace(&self) -> String {
        self.named("k8s.io", "-")
    }
    /// Below the cgroup root; empty for the root itself, where tools look for `kubepods`.
    pub fn cgroup_parent(&self) -> String {
        if self.suffix.is_empty() { String::new() } else { format!("keelson-{}", self.suffix) }
    }
    /// Logs of the one node of a host lie where log collectors look; those of others in their data directory.
    pub fn log_dirs(&self, data_dir: &Path) -> (PathBuf, PathBuf) {
        if self.suffix.is_empty() {
            return ("/var/log/pods".into(), "/var/log/containers".into());
        }
        (data_dir.join("log/pods"), data_dir.join("log/containers"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_keep_nodes_apart() {
        let plain = Instance::of(Path::new(DEFAULT_DATA_DIR));
        assert_eq!((plain.bridge().as_str(), plain.containerd_namespace().as_str()), ("keelson0", "k8s.io"));
        let (a, b) = (Instance::of(Path::new("/a")), Instance::of(Path::new("/b")));
        assert_ne!(a.bridge(), b.bridge());
        assert!(a.bridge().len() <= 15);
        assert_eq!(a.bridge(), Instance::of(Path::new("/a")).bridge());
    }
}
