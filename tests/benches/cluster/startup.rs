//! Size of the binary; from process start to a ready API server, to the first running pod, and to the end.

use std::time::Instant;

use anyhow::Result;
use tests::containerd::Containerd;
use tests::image;
use tests::process::{Background, command};

use super::nodes::{self, pod};
use super::rig::{self, Running, block_on, millis, row};

const ROUNDS: usize = 5;

pub fn binary() -> Result<()> {
    let bytes = std::fs::metadata(rig::binary()?)?.len();
    row("binary", format!("{:.1} MB", bytes as f64 / 1e6), "< 30 MB");
    Ok(())
}

/// The whole control plane on an empty disk, without an agent.
pub fn control_plane() -> Result<()> {
    let (mut ready, mut exit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir()?;
        let options = rig::options(dir.path(), false, &[])?;
        let kubeconfig = dir.path().join("kubeconfig");
        let mut start = command(&options.binary, ["server", "--no-agent"]);
        start.arg("--data-dir").arg(dir.path().join("keelson"));
        start.arg("--bind").arg(format!("127.0.0.1:{}", options.port)).arg("--write-kubeconfig").arg(&kubeconfig);
        let started = Instant::now();
        let server = Background::start(start, &dir.path().join("pid"), &dir.path().join("log"))?;
        ready.push(block_on(async { Ok(rig::ready_after(started, &kubeconfig).await) })?);
        let asked = Instant::now();
        server.stop()?;
        exit.push(asked.elapsed());
    }
    ready.sort();
    exit.sort();
    row("cold start to /readyz, empty disk, p50", millis(rig::percentile(&ready, 0.5)), "< 150 ms");
    // Looked at every 10 ms.
    row("SIGTERM to exit, p50", millis(rig::percentile(&exit, 0.5)), "< 1 s");
    Ok(())
}

/// From process start to a Running pod, with containerd up and the image there; and to the end of the process while
/// three pods run.
pub fn first_pod() -> Result<()> {
    let (mut taken, mut exit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir()?;
        Containerd::start(&dir.path().join("containerd"))?;
        let mut options = rig::options(dir.path(), true, &[])?;
        options.agent = true;
        let cluster = tests::cluster::Cluster::at(options.clone());
        let hello = image::hello("1");
        hello.write(&dir.path().join("hello.tar"))?;
        cluster.import_image(&dir.path().join("hello.tar"))?;
        let started = Instant::now();
        let running = Running::start(options)?;
        block_on(async {
            let client = running.client()?;
            nodes::create_when_allowed(&client, &pod("first", &hello.reference)).await?;
            nodes::until_running(&client, 1).await?;
            taken.push(started.elapsed());
            for name in ["second", "third"] {
                nodes::create_when_allowed(&client, &pod(name, &hello.reference)).await?;
            }
            nodes::until_running(&client, 3).await
        })?;
        let asked = Instant::now();
        running.0.server.stop()?;
        exit.push(asked.elapsed());
    }
    taken.sort();
    exit.sort();
    row("cold start to first pod Running, p50", millis(rig::percentile(&taken, 0.5)), "< 2 s");
    row("SIGTERM to exit with a node and 3 pods, p50", millis(rig::percentile(&exit, 0.5)), "< 1 s");
    row("  slowest", millis(rig::percentile(&exit, 1.0)), "");
    Ok(())
}
