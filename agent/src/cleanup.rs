//! Removing a node for good: everything an agent with these options ever made on this host.

use std::{collections::BTreeSet, io, path::Path};

use crate::{
    Options, cgroup,
    paths::Paths,
    pod::observed::label,
    runtime::{self, Runtime},
    sandbox::{self, Sandboxes},
    volume,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
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
/// are containerd's. The agent must not run. Safe to repeat, and with containerd gone what is left of files is removed.
pub async fn cleanup(options: &Options) -> Result<(), Error> {
    let paths = Paths::new(options);
    let sandboxes = Sandboxes::new(options, paths.clone());
    let mut uids = BTreeSet::new();
    if options.containerd_address.exists() {
        let runtime = Runtime::new(
            &options.containerd_address,
            &options.containerd_namespace,
            &options.snapshotter,
            options.oci_runtime.as_deref(),
        )?;
        for record in runtime.list_containers(&[(label::NODE, &options.node_name)]).await? {
            runtime.remove_container(&record.id).await?;
            uids.extend(record.labels.get(label::POD_UID).cloned());
            let (name, namespace) = (record.labels.get(label::POD_NAME), record.labels.get(label::POD_NAMESPACE));
            if let (Some(uid), Some(name), Some(namespace), Some(container)) =
                (record.labels.get(label::POD_UID), name, namespace, record.labels.get(label::CONTAINER))
            {
                let pod = crate::pod::PodId { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() };
                remove_file(&paths.log_link(&pod, container, &record.id))?;
                remove_tree(&paths.pod_logs(&pod))?;
            }
        }
    }
    for entry in std::fs::read_dir(paths.pods()).into_iter().flatten().flatten() {
        uids.insert(entry.file_name().to_string_lossy().into_owned());
    }
    let tree = cgroup::Tree::new(&options.cgroup_parent);
    for uid in &uids {
        if let Some(record) = sandboxes.record(uid)? {
            remove_tree(&paths.pod_logs(&record.pod_id()))?;
        }
        sandboxes.tear_down(uid).await?;
        volume::remove(uid, &paths).await?;
        tree.remove_pod(uid)?;
        sandboxes.remove_files(uid)?;
    }
    tree.remove_all()?;
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
