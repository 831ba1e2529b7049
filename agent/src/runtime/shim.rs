//! Shims that containerd has lost sight of: one whose start was cut off, by an agent's kill or a call that took too
//! long, may run on without a task, and only a restart of containerd would find it.
//!
//! Containers of a group share one shim, which listens on a socket that containerd names after its own address, the
//! namespace and the group (`SocketAddress` of its shim package). A shim is told by holding that socket.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::{FDTarget, Process, all_processes};
use sha2::{Digest, Sha256};

use super::Runtime;

/// How programs are called that serve containerd's shim protocol.
const PROGRAM: &str = "containerd-shim";

impl Runtime {
    /// Ends the shim of a group none of whose containers exist any more; how many there were. What containerd keeps
    /// about it on disk goes at its next start.
    pub fn end_lost_shim(&self, group: &str) -> usize {
        let Ok(processes) = all_processes() else { return 0 };
        let shims: Vec<(Process, String)> = processes
            .flatten()
            .filter_map(|process| {
                let address = served(&process.cmdline().ok()?, self.namespace())?;
                Some((process, address))
            })
            .collect();
        let mut ended = 0;
        for (process, address) in shims {
            let name = socket_name(&address, self.namespace(), group);
            let Some((path, inodes)) = sockets(&name) else { continue };
            if !holds(&process, &inodes) {
                continue;
            }
            // Its containers are gone and nobody calls it: there is nothing that it could still put in order.
            match kill(Pid::from_raw(process.pid), Signal::SIGKILL) {
                Ok(()) => {
                    tracing::info!(group, pid = process.pid, "ended a shim that containerd had lost sight of");
                    ended += 1;
                }
                Err(error) => tracing::warn!(group, pid = process.pid, %error, "a lost shim was not ended"),
            }
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "socket of a lost shim not removed");
            }
        }
        ended
    }
}

/// containerd's address in the command line of a shim of this namespace.
fn served(words: &[String], namespace: &str) -> Option<String> {
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    let after = |flag: &str| Some(words.get(words.iter().position(|word| word == flag)? + 1)?.as_str());
    let ours = program.starts_with(PROGRAM) && after("-namespace") == Some(namespace);
    after("-address").filter(|_| ours).map(str::to_owned)
}

fn socket_name(address: &str, namespace: &str, group: &str) -> String {
    let named = Path::new(address).join(namespace).join(group);
    let digest = Sha256::digest(named.as_os_str().as_encoded_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The socket's path and its numbers; `None` when nobody listens there.
fn sockets(name: &str) -> Option<(PathBuf, HashSet<u64>)> {
    let all = procfs::net::unix().ok()?;
    let named = all.into_iter().filter(|entry| {
        entry
            .path
            .as_ref()
            .is_some_and(|path| path.file_name().is_some_and(|file| file.as_encoded_bytes() == name.as_bytes()))
    });
    let mut found: Option<(PathBuf, HashSet<u64>)> = None;
    for entry in named {
        let path = entry.path.unwrap_or_default();
        found.get_or_insert_with(|| (path, HashSet::new())).1.insert(entry.inode);
    }
    found
}

fn holds(process: &Process, inodes: &HashSet<u64>) -> bool {
    let Ok(files) = process.fd() else { return false };
    files.flatten().any(|file| matches!(file.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_told_by_its_command_line_and_its_socket() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let shim =
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id abc -address /run/containerd/containerd.sock";
        assert_eq!(served(&line(shim), "k8s.io").as_deref(), Some("/run/containerd/containerd.sock"));
        assert_eq!(served(&line(shim), "other"), None);
        assert_eq!(served(&line("/bin/cat -namespace k8s.io -address x"), "k8s.io"), None);
        assert_eq!(served(&[], "k8s.io"), None);
        // As `echo -n /run/containerd/containerd.sock/k8s.io/u1 | sha256sum` says.
        let name = socket_name("/run/containerd/containerd.sock", "k8s.io", "u1");
        assert_eq!(name, "0595301cbac708c77b373c18069d46217a75854c678dcd17421fca91f497611e");
    }
}
