//! OS packages the project needs, found by what they bring rather than by name, so that a machine which has the tool
//! from elsewhere is left alone.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::{command, run};

/// What must be there, and the Debian/Ubuntu package that brings it.
pub struct Package {
    pub name: &'static str,
    /// Any of these: a path, or a program name looked up in PATH and the system directories.
    pub brings: &'static [&'static str],
}

/// To build and to run a cluster.
pub const RUN: &[Package] = &[
    Package { name: "gcc", brings: &["cc"] },
    Package { name: "libc6-dev", brings: &["/usr/include/stdlib.h"] },
    Package { name: "protobuf-compiler", brings: &["protoc"] },
    Package { name: "libprotobuf-dev", brings: &["/usr/include/google/protobuf/descriptor.proto"] },
    Package { name: "containerd", brings: &["containerd"] },
    Package { name: "runc", brings: &["runc", "crun"] },
    Package { name: "containernetworking-plugins", brings: &["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"] },
    Package { name: "kubernetes-client", brings: &["kubectl"] },
    Package { name: "busybox-static", brings: &["/bin/busybox", "/usr/bin/busybox"] },
    Package { name: "nftables", brings: &["nft"] },
    Package { name: "iproute2", brings: &["ip"] },
    Package { name: "iptables", brings: &["iptables"] },
    Package { name: "procps", brings: &["kill"] },
];

/// What the tests need on top of [`RUN`].
pub const TEST: &[Package] = &[
    Package { name: "etcd-server", brings: &["etcd"] },
    Package { name: "openssl", brings: &["openssl"] },
    Package { name: "curl", brings: &["curl"] },
    Package { name: "docker-registry", brings: &["docker-registry"] },
    Package { name: "zstd", brings: &["zstd"] },
    Package { name: "conntrack", brings: &["conntrack"] },
    Package { name: "systemd", brings: &["systemd-analyze"] },
];

/// What `cargo xtask vm` needs on top of [`RUN`].
pub const VM: &[Package] = &[
    Package { name: "qemu-system-x86", brings: &["qemu-system-x86_64"] },
    Package { name: "debootstrap", brings: &["debootstrap"] },
    Package { name: "debian-archive-keyring", brings: &["/usr/share/keyrings/debian-archive-keyring.gpg"] },
    Package { name: "e2fsprogs", brings: &["mkfs.ext4"] },
];

const SYSTEM_DIRECTORIES: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The path of a program in PATH or one of the system directories.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(SYSTEM_DIRECTORIES.iter().copied())
        .map(|dir| Path::new(dir).join(name))
        .find(|candidate| candidate.is_file())
}

fn is_present(package: &Package) -> bool {
    package.brings.iter().any(|b| if b.starts_with('/') { Path::new(b).exists() } else { find_program(b).is_some() })
}

/// Installs what is missing with apt-get. Returns the names of the packages installed.
pub fn install(packages: &[&[Package]]) -> Result<Vec<&'static str>> {
    let missing: Vec<_> = packages.iter().copied().flatten().filter(|p| !is_present(p)).map(|p| p.name).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    if find_program("apt-get").is_none() {
        bail!("these packages are missing and apt-get is not here to install them: {}", missing.join(" "));
    }
    let apt = |args: &[&str]| {
        run(command("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive"))
            .with_context(|| format!("install {} (are you root?)", missing.join(" ")))
    };
    apt(&["update", "-q"])?;
    let mut install = vec!["install", "-q", "-y", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)?;
    Ok(missing)
}
