//! Where an installation's files lie, and how they are written: whole or not at all, and only when they differ.
//!
//! All of them are listed here, so that `uninstall` removes exactly what `install` wrote.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What a host is installed as. A host has one role: both read the same configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Server,
    Agent,
}

pub const ROLES: [Role; 2] = [Role::Server, Role::Agent];

impl Role {
    pub fn unit_name(self) -> &'static str {
        match self {
            Self::Server => "keelson-server.service",
            Self::Agent => "keelson-agent.service",
        }
    }

    fn unit_text(self) -> &'static str {
        match self {
            Self::Server => include_str!("../../../systemd/keelson-server.service"),
            Self::Agent => include_str!("../../../systemd/keelson-agent.service"),
        }
    }
}

/// Loaded at every boot. What the pod network and Services need and the kernel does not load by itself.
pub const MODULES: [&str; 4] = ["overlay", "br_netfilter", "nf_tables", "vxlan"];

/// The files of an installation below `root`, which is `/` for the host itself.
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: Option<&Path>) -> Result<Self> {
        let root = std::path::absolute(root.unwrap_or(Path::new("/"))).context("--root")?;
        Ok(Self { root })
    }

    /// Whether it is the host that runs now, and not a tree that will be a host later.
    pub fn is_host(&self) -> bool {
        self.root == Path::new("/")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub fn binary(&self) -> PathBuf {
        self.at("usr/local/bin/keelson")
    }
    pub fn config_dir(&self) -> PathBuf {
        self.at("etc/keelson")
    }
    pub fn config(&self) -> PathBuf {
        self.at("etc/keelson/config.yaml")
    }
    pub fn modules(&self) -> PathBuf {
        self.at("etc/modules-load.d/keelson.conf")
    }
    pub fn unit(&self, role: Role) -> PathBuf {
        self.at("etc/systemd/system").join(role.unit_name())
    }
    /// The link that `systemctl enable` would make.
    pub fn enabled(&self, role: Role) -> PathBuf {
        self.at("etc/systemd/system/multi-user.target.wants").join(role.unit_name())
    }

    /// The role installed here, if any.
    pub fn role(&self) -> Option<Role> {
        ROLES.into_iter().find(|role| self.unit(*role).exists())
    }

    /// Every file an installation of any role may have.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.modules(), self.config()];
        files.extend(ROLES.into_iter().flat_map(|role| [self.enabled(role), self.unit(role)]));
        // Last: it is what removes the others.
        files.push(self.binary());
        files
    }

    pub fn write_unit(&self, role: Role) -> Result<Vec<PathBuf>> {
        let unit = self.unit(role);
        let mut changed = Vec::new();
        if replace(&unit, role.unit_text().as_bytes(), 0o644)? {
            changed.push(unit);
        }
        let modules = format!("# Written by `keelson install`.\n{}\n", MODULES.join("\n"));
        if replace(&self.modules(), modules.as_bytes(), 0o644)? {
            changed.push(self.modules());
        }
        let link = self.enabled(role);
        if fs::symlink_metadata(&link).is_err() {
            make_parent(&link, 0o755)?;
            // As seen by the host that will run it, whatever root it is prepared under.
            let target = Path::new("/etc/systemd/system").join(role.unit_name());
            symlink(target, &link).with_context(|| format!("enable {}: link {}", role.unit_name(), link.display()))?;
            changed.push(link);
        }
        Ok(changed)
    }

    /// Settings may hold a token: for root only.
    pub fn write_config(&self, text: &str) -> Result<bool> {
        make_directory(&self.config_dir(), 0o700)?;
        replace(&self.config(), text.as_bytes(), 0o600)
    }

    /// Puts the running program in place, also under a running one: that one keeps its file until it is started again.
    pub fn write_binary(&self) -> Result<bool> {
        let target = self.binary();
        let program = fs::read("/proc/self/exe").context("read this program")?;
        replace(&target, &program, 0o755)
    }
}

/// Makes `path` hold `contents`, and tells whether it did not before. Readers see the old or the new file, also after a
/// power cut.
fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(false);
    }
    if path.is_dir() {
        bail!("{} is a directory; it has to be a file", path.display());
    }
    make_parent(path, 0o755)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&draft)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("write {}", path.display()))?;
    Ok(true)
}

fn make_parent(path: &Path, mode: u32) -> Result<()> {
    path.parent().map_or(Ok(()), |parent| make_directory(parent, mode))
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.with_context(|| format!("create directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_again_changes_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(Some(root.path())).expect("a layout");
        assert_eq!(layout.write_unit(Role::Agent).expect("written").len(), 3);
        assert!(layout.write_config("a: 1\n").expect("written"));
        assert_eq!(layout.role(), Some(Role::Agent));

        assert_eq!(layout.write_unit(Role::Agent).expect("written").len(), 0);
        assert!(!layout.write_config("a: 1\n").expect("written"));
        assert!(layout.write_config("a: 2\n").expect("written"));
        let mode = fs::metadata(layout.config()).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn uninstall_knows_every_file() {
        let root = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(Some(root.path())).expect("a layout");
        let mut written = layout.write_unit(Role::Server).expect("written");
        layout.write_config("").expect("written");
        layout.write_binary().expect("written");
        written.extend([layout.config(), layout.binary()]);
        let known = layout.files();
        assert!(written.iter().all(|file| known.contains(file)), "{written:?} in {known:?}");
    }

    #[test]
    fn units_start_what_is_installed() {
        for (role, name) in [(Role::Server, "server"), (Role::Agent, "agent")] {
            let start = format!("ExecStart=/usr/local/bin/keelson {name}\n");
            assert!(role.unit_text().contains(&start), "{start}");
            // Restarting containerd would restart the node with it.
            assert!(!role.unit_text().lines().any(|l| l.starts_with("Requires=") || l.starts_with("BindsTo=")));
        }
    }
}
