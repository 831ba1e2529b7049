//! Removing a node for good: everything an agent with these options ever made on this host.

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use crate::{
    Options, cgroup, lock,
    paths::Paths,
    pod::observed::label,
    runtime::{self, Runtime},
    sandbox::{self, Sandboxes},
    volume,
};

const BUSY_RETRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
    #[error(transparent)]
    Volume(#[from] volume::Error),
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    #[error("{action} {path}")]
    Io { action: &'static str, path: String, source: io::Error },
}

/// Stops and removes all containers, namespaces, mounts, interfaces, cgroups and files of the agent. Images stay; they
/// are containerd's. Fails while the agent runs.
/// Without a node name only what this agent's own state directory tells of is found. Safe to repeat, and with
/// containerd gone what is left of files is removed.
pub async fn cleanup(options: &Options) -> Result<(), Error> {
    let _lock = options.state_dir.exists().then(|| lock::take(&options.state_dir)).transpose()?;
    let paths = Paths::new(options);
    let sandboxes = Sandboxes::new(options, paths.clone());
    // As long as a container exists, so does its pod's directory.
    let pods = std::fs::read_dir(paths.pods()).into_iter().flatten().flatten();
    let mut uids = pods.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect::<BTreeSet<_>>();
    if options.containerd_address.exists() {
        remove_containers(options, &paths, &mut uids).await?;
    }
    let tree = cgroup::Tree::new(&options.cgroup_parent);
    for uid in &uids {
        // An unreadable record is told of by `tear_down`; its logs were found by the labels of the containers.
        if let Ok(Some(record)) = sandboxes.record(uid) {
            remove_tree(&paths.pod_logs(&record.pod_id()))?;
        }
        sandboxes.tear_down(uid).await?;
        volume::remove(uid, &paths).await?;
        retry_busy(|| tree.remove_pod(uid)).await?;
        sandboxes.remove_files(uid)?;
    }
    retry_busy(|| tree.remove_all()).await?;
    sandboxes.remove_network()?;
    sandbox::mounts::remove_tree(&options.state_dir).map_err(sandbox::Error::from)?;
    for directory in [paths.logs(), paths.container_logs()] {
        // Shared with others on this host: only when nothing is left in it.
        match std::fs::remove_dir(directory) {
            Err(source) if !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                return Err(Error::Io { action: "remove", path: directory.display().to_string(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the images of the agent and all else in its containerd namespace, and the namespace. Does nothing while
/// somebody else has containers in it, and returns what the namespace holds then.
pub async fn remove_images(options: &Options) -> Result<runtime::Contents, Error> {
    let runtime = Runtime::new(
        &options.containerd_address,
        &options.containerd_namespace,
        &options.snapshotter,
        options.oci_runtime.as_deref(),
    )?;
    let contents = runtime.contents().await?;
    if contents.containers == 0 {
        runtime.remove_namespace().await?;
    }
    Ok(runtime.contents().await?)
}

/// A cgroup is busy until its killed processes are reaped, which takes the kernel a moment.
async fn retry_busy(remove: impl Fn() -> Result<(), cgroup::Error>) -> Result<(), cgroup::Error> {
    for _ in 0..BUSY_RETRIES {
        match remove() {
            Err(error) if error.is_busy() => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            other => return other,
        }
    }
    remove()
}

/// Containers of the pods known by their directories, and, with a node name, of all pods of that node.
async fn remove_containers(options: &Options, paths: &Paths, uids: &mut BTreeSet<String>) -> Result<(), Error> {
    let runtime = Runtime::new(
        &options.containerd_address,
        &options.containerd_namespace,
        &options.snapshotter,
        options.oci_runtime.as_deref(),
    )?;
    for record in runtime.list_containers(&[]).await? {
        let text = |key: &str| record.labels.get(key).cloned();
        let (Some(uid), Some(node)) = (text(label::POD_UID), text(label::NODE)) else { continue };
        if !uids.contains(&uid) && (options.node_name.is_empty() || node != options.node_name) {
            continue;
        }
        runtime.remove_container(&record.id).await?;
        uids.insert(uid.clone());
        if let (Some(namespace), Some(name), Some(container)) =
            (text(label::POD_NAMESPACE), text(label::POD_NAME), text(label::CONTAINER))
        {
            let pod = crate::pod::PodId { namespace, name, uid };
            remove_file(&paths.log_link(&pod, &container, &record.id))?;
            remove_tree(&paths.pod_logs(&pod))?;
        }
    }
    for uid in uids.iter() {
        runtime.end_lost_shim(uid);
    }
    Ok(())
}

fn remove_file(path: &Path) -> Result<(), Error> {
    gone(std::fs::remove_file(path), path)
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    gone(std::fs::remove_dir_all(path), path)
}

fn gone(result: io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.display().to_string(), source })
        }
        _ => Ok(()),
    }
}
