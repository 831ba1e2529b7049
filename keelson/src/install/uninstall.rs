//! `keelson uninstall`: ends what runs, removes what is there, looks again, and tells both. Nothing left is the only
//! success; what is left is named with the error.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::runtime::Contents;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::layout::{Layout, ROLES, Role};
use super::systemd;
use super::traces::{self, Place};
use crate::state::{self, Instance};
use crate::{args, config, node};

/// How long a process may take to end by itself; it drains for less than a second.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const STOP_PAUSE: Duration = Duration::from_millis(50);
/// How long the kernel may take to let go of interfaces and processes after the last step.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

pub async fn uninstall(arguments: args::Uninstall) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("uninstalling changes the whole host: run this as root");
    }
    let layout = Layout::new(arguments.root.as_deref())?;
    let settings = Settings::read(&layout)?;
    let place = settings.place(&layout, &arguments.node)?;
    may_remove(&place.data_dir)?;
    let role = layout.role();
    let files = files(&layout, &place, &settings, arguments.keep_data);
    let mut before = traces::find(&place);
    before.extend(present(&files));

    stop(&layout, &place).await?;
    let options =
        || args::Node { data_dir: Some(place.data_dir.clone()), containerd_address: Some(place.containerd.clone()) };
    node::cleanup(options()).await?;
    let mut contents = Contents::default();
    if place.containerd.exists() && !arguments.keep_data {
        contents = node::remove_images(options()).await?;
    }
    for path in &files {
        remove(path)?;
    }
    if layout.is_host() && systemd::is_here() {
        systemd::reload()?;
        ROLES.into_iter().try_for_each(systemd::forget)?;
    }

    let after = settled(&place, &files).await;
    for gone in before.difference(&after) {
        println!("removed {gone}");
    }
    report_containerd(&place, contents);
    if !after.is_empty() {
        bail!("this is still here:\n  {}", after.iter().cloned().collect::<Vec<_>>().join("\n  "));
    }
    match arguments.keep_data {
        true => println!("kept {} and {}", place.data_dir.display(), layout.config().display()),
        false => println!("nothing of Keelson is left on this host"),
    }
    if role == Some(Role::Agent) {
        println!("the cluster still lists this node: `kubectl delete node NAME` there");
    }
    Ok(())
}

fn report_containerd(place: &Place, contents: Contents) {
    if contents.exists {
        println!(
            "left containerd's namespace {} with {} containers of somebody else in it, and so with its images",
            place.instance.containerd_namespace(),
            contents.containers
        );
    }
}

/// The few settings that say where things are, of either role's configuration file.
#[derive(Default)]
struct Settings {
    data_dir: Option<PathBuf>,
    containerd: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
}

impl Settings {
    fn read(layout: &Layout) -> Result<Self> {
        let path = layout.config();
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        // A file of comments alone is no YAML value.
        let value: Value = serde_yaml::from_str(&text).unwrap_or_default();
        let setting = |name: &str| value[name].as_str().map(PathBuf::from);
        Ok(Self {
            data_dir: setting("dataDir"),
            containerd: setting("containerdAddress"),
            kubeconfig: setting("writeKubeconfig"),
        })
    }

    fn place(&self, layout: &Layout, node: &args::Node) -> Result<Place> {
        let data_dir = node.data_dir.clone().or_else(|| self.data_dir.clone());
        let data_dir = data_dir.unwrap_or_else(|| config::DEFAULT_DATA_DIR.into());
        let data_dir = std::path::absolute(&data_dir).context("data directory")?;
        let containerd = node.containerd_address.clone().or_else(|| self.containerd.clone());
        Ok(Place {
            instance: Instance::of(&data_dir),
            data_dir,
            containerd: containerd.unwrap_or_else(|| config::DEFAULT_CONTAINERD_ADDRESS.into()),
            binary: layout.binary(),
        })
    }
}

/// What will be removed with all that is below it: only a directory that a server or an agent has made its own.
fn may_remove(data_dir: &Path) -> Result<()> {
    const MARKS: [&str; 3] = ["agent", "pki", "store"];
    const DEPTH_MIN: usize = 3;
    let shown = data_dir.display();
    let is_empty = fs::read_dir(data_dir).map_or(true, |mut entries| entries.next().is_none());
    if data_dir.components().count() < DEPTH_MIN {
        bail!("the data directory {shown} is too close to the root to be removed; remove by hand what is ours in it");
    }
    if !is_empty && !MARKS.iter().any(|mark| data_dir.join(mark).is_dir()) {
        bail!("{shown} does not look like a data directory of Keelson: give the right one with --data-dir");
    }
    Ok(())
}

fn files(layout: &Layout, place: &Place, settings: &Settings, keep_data: bool) -> Vec<PathBuf> {
    let mut files = layout.files();
    if keep_data {
        files.retain(|path| *path != layout.config());
        return files;
    }
    // A copy that nobody has changed is ours.
    let admin = fs::read(state::kubeconfig(&place.data_dir)).ok();
    files.extend(settings.kubeconfig.clone().filter(|copy| admin.is_some() && fs::read(copy).ok() == admin));
    files.extend([layout.config_dir(), place.data_dir.clone()]);
    files
}

fn present(files: &[PathBuf]) -> impl Iterator<Item = String> {
    files.iter().filter(|path| path.symlink_metadata().is_ok()).map(|path| format!("file {}", path.display()))
}

async fn stop(layout: &Layout, place: &Place) -> Result<()> {
    if layout.is_host() && systemd::is_here() {
        for role in ROLES.into_iter().filter(|role| layout.unit(*role).exists()) {
            systemd::stop(role)?;
        }
    }
    let running = || -> Vec<u32> {
        let ours = traces::processes(place).into_iter();
        let serves = |line: &str| line.split(' ').nth(1).is_some_and(|word| word == "server" || word == "agent");
        ours.filter(|(_, line)| !line.contains("containerd-shim") && serves(line)).map(|(id, _)| id).collect()
    };
    for (signal, limit) in [(Signal::SIGTERM, STOP_LIMIT), (Signal::SIGKILL, STOP_LIMIT)] {
        for id in running() {
            // It may have ended meanwhile.
            kill(Pid::from_raw(id.cast_signed()), signal).or_else(|errno| match errno {
                nix::errno::Errno::ESRCH => Ok(()),
                errno => Err(errno).with_context(|| format!("stop process {id}")),
            })?;
        }
        let start = Instant::now();
        while !running().is_empty() && start.elapsed() < limit {
            tokio::time::sleep(STOP_PAUSE).await;
        }
    }
    Ok(())
}

/// Files, or a directory with all that is in it, but never across a mount: what is mounted there is not ours to remove.
fn remove(path: &Path) -> Result<()> {
    let Ok(kind) = path.symlink_metadata() else { return Ok(()) };
    if !kind.is_dir() {
        return fs::remove_file(path).with_context(|| format!("remove {}", path.display()));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").context("read the mount table")?;
    if let Some(mount) = traces::mounts_below(&mounts, path).first() {
        bail!("{mount} is mounted; unmount it and run this again: {} is not removed before", path.display());
    }
    fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))
}

/// What is there now, once the kernel has caught up.
async fn settled(place: &Place, files: &[PathBuf]) -> BTreeSet<String> {
    let start = Instant::now();
    loop {
        let mut found = traces::find(place);
        found.extend(present(files));
        if found.is_empty() || start.elapsed() > SETTLE_LIMIT {
            return found;
        }
        tokio::time::sleep(STOP_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_data_directory_is_removed() {
        may_remove(Path::new("/")).expect_err("the root");
        may_remove(Path::new("/home")).expect_err("close to the root");
        let directory = tempfile::tempdir().expect("a directory");
        may_remove(directory.path()).expect("an empty directory is nobody's");
        fs::write(directory.path().join("thesis"), "").expect("written");
        may_remove(directory.path()).expect_err("a directory of somebody else");
        fs::create_dir(directory.path().join("store")).expect("made");
        may_remove(directory.path()).expect("a data directory");
        may_remove(&directory.path().join("absent")).expect("nothing to remove");
    }
}
