//! `cargo xtask up`: from a bare host to a running Deployment, with progress shown. Safe to run again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tests::cluster::{Cluster, Options};
use tests::{image, packages, wait};

use crate::cargo;
use crate::step::step;

/// Port of the developer's cluster: Kubernetes' usual one.
const API_PORT: u16 = 6443;
const NODE_READY_LIMIT: Duration = Duration::from_secs(60);

/// The cluster below `dir`, started or not.
pub fn cluster_options(dir: &Path) -> Options {
    Options {
        binary: cargo::binary("release", "keelson"),
        dir: dir.to_owned(),
        port: API_PORT,
        flags: Vec::new(),
        agent: true,
        host_containerd: true,
    }
}

pub fn run(dir: &Path) -> Result<()> {
    if std::fs::metadata("/proc/self").map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap_or(1) != 0 {
        bail!("containers need root: run this as root (or `sudo -E env PATH=$PATH cargo xtask up`)");
    }
    step("operating system packages", || {
        let installed = packages::install(&[packages::RUN])?;
        Ok(if installed.is_empty() { "all present".to_owned() } else { format!("installed {}", installed.join(" ")) })
    })?;
    println!("- keelson, release build");
    cargo::run(&["build", "--release", "--package", "keelson"], &[])?;

    let mut started = None;
    step("containerd and keelson server", || {
        let cluster = Cluster::start(cluster_options(dir))?;
        let address = format!("https://127.0.0.1:{}", cluster.options.port);
        started = Some(cluster);
        Ok(format!("ready at {address}"))
    })?;
    let cluster = started.context("the cluster was started above")?;
    let kubectl = cluster.kubectl()?;
    step("demo image", || {
        let hello = image::hello("1");
        let archive = dir.join("hello.tar");
        hello.write(&archive)?;
        cluster.import_image(&archive)?;
        Ok(format!("{} imported", hello.reference))
    })?;
    step("node", || {
        wait::until("a Ready node", NODE_READY_LIMIT, || {
            let nodes = kubectl.run(&["get", "nodes", "--no-headers"])?;
            Ok(nodes.lines().any(|l| l.split_whitespace().nth(1) == Some("Ready")).then_some(()))
        })?;
        Ok("Ready".to_owned())
    })?;
    step("examples/hello.yaml", || {
        let manifest = cargo::root().join("examples/hello.yaml");
        kubectl.run(&["apply", "-f", &manifest.to_string_lossy()])?;
        kubectl.run(&["rollout", "status", "deployment/hello", "--timeout=60s"])?;
        Ok("3 replicas Running".to_owned())
    })?;
    println!("\n{}", kubectl.run(&["get", "nodes,pods,svc", "-o", "wide"])?);
    print_next_steps(&cluster);
    Ok(())
}

fn print_next_steps(cluster: &Cluster) {
    println!("Go on with:");
    println!("  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("  kubectl get pods -w");
    println!("  curl http://$(kubectl get service hello -o jsonpath='{{.spec.clusterIP}}')");
    println!("  kubectl scale deployment hello --replicas=5");
    println!("  kubectl logs -f deployment/hello");
    println!("The server's log is {}. Stop and remove everything: cargo xtask down", cluster.log().display());
}
