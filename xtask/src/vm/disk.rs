//! The disk all machines start from: Debian from packages, with what a node needs and little else. Built once, kept
//! until the recipe changes.
//!
//! Machines run by emulation where there is no KVM, a tenth as fast as this host or less. So nothing is installed at
//! boot, the initial ramdisk holds four modules, and services that a test machine does not need are masked.

use std::fs;
use std::path::{Path, PathBuf};

use ::tests::process::{command, run};
use anyhow::{Context, Result, bail};

/// On top of Debian's minimal base. Several are dependencies by virtual name, which debootstrap does not resolve.
const PACKAGES: [&str; 16] = [
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "zstd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "nftables",
    "iptables",
    "containernetworking-plugins",
    "containerd",
    "runc",
    "qemu-guest-agent",
    "cloud-init",
    "python3-cffi-backend",
];

/// Would run in the first minutes of a machine, when every second counts.
const MASKED: [&str; 9] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "e2scrub_reap.service",
    "getty@.service",
    "serial-getty@.service",
    "systemd-networkd-wait-online.service",
];

/// cloud-init is a third of the boot. Of its modules only those run that our user data needs.
const CLOUD_CONFIG: &str = "\
datasource_list: [NoCloud, None]
cloud_init_modules: [bootcmd, write-files, set_hostname, update_etc_hosts]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user, final-message]
users: []
";

/// The network of the machines is QEMU's own, whose name server is always here.
const RESOLV_CONF: &str = "nameserver 10.0.2.3\n";
const SIZE: &str = "4G";

/// Where the parts of the base lie.
pub struct Base {
    dir: PathBuf,
}

impl Base {
    pub fn at(dir: &Path) -> Self {
        Self { dir: dir.join("base") }
    }
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.raw")
    }
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }
    pub fn ramdisk(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// What it was built from; written last, so that it also says that the build was finished.
    fn recipe(&self) -> PathBuf {
        self.dir.join("recipe")
    }

    /// Builds it unless it is there.
    pub fn ensure(&self) -> Result<String> {
        let (mirror, suite) = mirror()?;
        let recipe = format!("{suite} {SIZE} {PACKAGES:?} {MASKED:?} {CLOUD_CONFIG} {RESOLV_CONF}");
        if fs::read_to_string(self.recipe()).is_ok_and(|built| built == recipe) {
            return Ok("there already".to_owned());
        }
        if self.dir.exists() {
            fs::remove_dir_all(&self.dir).with_context(|| format!("remove {:?}", self.dir))?;
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("create {:?}", self.dir))?;
        let root = self.dir.join("root");
        let include = format!("--include={}", PACKAGES.join(","));
        let mut bootstrap = command("debootstrap", ["--variant=minbase", &include, &suite]);
        run(bootstrap.arg(&root).arg(&mirror)).with_context(|| debootstrap_log(&root))?;
        configure(&root)?;
        for (name, target) in [("vmlinuz-", self.kernel()), ("initrd.img-", self.ramdisk())] {
            fs::copy(newest(&root.join("boot"), name)?, target).context("copy the kernel")?;
        }
        let mut make = command("mkfs.ext4", ["-q", "-F", "-O", "^has_journal", "-d"]);
        run(make.arg(&root).arg(self.disk()).arg(SIZE))?;
        fs::remove_dir_all(&root).context("remove the unpacked packages")?;
        fs::write(self.recipe(), recipe)?;
        Ok(format!("Debian {suite} with {} packages on top of the minimum", PACKAGES.len()))
    }
}

fn configure(root: &Path) -> Result<()> {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        // Where a link leads out of the tree, the link is replaced.
        if path.is_symlink() {
            fs::remove_file(&path)?;
        }
        fs::write(&path, text).with_context(|| format!("write {path:?}"))
    };
    write("etc/fstab", "/dev/vda / ext4 defaults,noatime 0 1\n")?;
    write("etc/cloud/cloud.cfg.d/90-keelson.cfg", CLOUD_CONFIG)?;
    write("etc/resolv.conf", RESOLV_CONF)?;
    write("etc/machine-id", "")?;
    write("etc/initramfs-tools/conf.d/keelson", "MODULES=list\n")?;
    write("etc/initramfs-tools/modules", "virtio_pci\nvirtio_blk\nvirtio_net\nvirtio_console\n")?;
    let chroot = |args: &[&str]| run(command("chroot", [root.as_os_str()]).args(args)).map(drop);
    chroot(&["update-initramfs", "-u", "-k", "all"])?;
    chroot(&["systemctl", "enable", "systemd-networkd.service"])?;
    let mask: Vec<&str> = ["systemctl", "mask"].into_iter().chain(MASKED).collect();
    chroot(&mask)?;
    for cache in ["var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "usr/share/locale", "usr/share/man"] {
        let path = root.join(cache);
        fs::remove_dir_all(&path).with_context(|| format!("remove {path:?}"))?;
        fs::create_dir_all(&path).with_context(|| format!("create {path:?}"))?;
    }
    Ok(())
}

/// The file of `dir` whose name begins with `prefix` and sorts last.
fn newest(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let names = fs::read_dir(dir).with_context(|| format!("list {dir:?}"))?.flatten().map(|entry| entry.path());
    let fits = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    names.filter(fits).max().with_context(|| format!("no {prefix}* in {dir:?}"))
}

fn debootstrap_log(root: &Path) -> String {
    let log = ::tests::cluster::tail(&root.join("debootstrap/debootstrap.log"), 20);
    format!("install Debian's packages; the end of debootstrap's log:\n{log}")
}

/// The mirror and release that this host's own apt uses.
fn mirror() -> Result<(String, String)> {
    let format = "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)";
    let targets = run(&mut command("apt-get", ["indextargets", "--format", format, "Created-By: Packages"]))?;
    match debian(&targets) {
        Some(found) => Ok(found),
        None => bail!("apt on this host has no Debian release among its sources; add one, so that its mirror is known"),
    }
}

fn debian(targets: &str) -> Option<(String, String)> {
    targets.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        // Updates and security are releases of their own, with a suffix, and cannot stand alone.
        ["Debian", "main", suite, mirror] if !suite.contains('-') => Some(((*mirror).to_owned(), (*suite).to_owned())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_release_itself() {
        let targets = "Docker stable bookworm https://a.example/\n\
                       Debian main bookworm-security http://b.example/security/\n\
                       Debian main bookworm http://b.example/debian/\n";
        assert_eq!(debian(targets), Some(("http://b.example/debian/".to_owned(), "bookworm".to_owned())));
        assert_eq!(debian("Ubuntu main noble http://c.example/\n"), None);
    }
}
