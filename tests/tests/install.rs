//! Installing, running as a supervisor would, and uninstalling: what a host had before is what it has after.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::cluster::{self, free_port};
use tests::containerd::Containerd;
use tests::kubectl::Kubectl;
use tests::process::{Background, command, run};
use tests::{image, leftovers, packages, wait};

const LIMIT: Duration = Duration::from_secs(60);
/// Short, so that several signs of life fit into a test.
const WATCHDOG: Duration = Duration::from_secs(3);

/// What systemd would hear, collected as lines.
struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Supervisor {
    fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        Ok(Self { socket, path, heard: Vec::new() })
    }

    fn command(&self, program: &Path, args: &[&str]) -> std::process::Command {
        let mut command = command(program, args);
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        command
    }

    /// Waits until a line that is not older than this call passes the test.
    fn hear(&mut self, what: &str, limit: Duration, test: impl Fn(&str) -> bool) -> Result<()> {
        let start = Instant::now();
        let mut buffer = [0; 4096];
        while start.elapsed() < limit {
            self.socket.set_read_timeout(Some(limit))?;
            let Ok(size) = self.socket.recv(&mut buffer) else { break };
            let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
            let found = text.lines().any(&test);
            self.heard.extend(text.lines().map(str::to_owned));
            if found {
                return Ok(());
            }
        }
        anyhow::bail!("{what} was not heard within {limit:?}; heard: {:?}", self.heard)
    }

    /// Takes what was said but not read yet.
    fn forget(&mut self) -> Result<()> {
        self.socket.set_nonblocking(true)?;
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        Ok(self.socket.set_nonblocking(false)?)
    }
}

/// The units' own words. `cargo xtask test` installs the judge where it is missing.
#[test]
fn systemd_finds_no_fault_with_the_units() -> Result<()> {
    let analyze = packages::find_program("systemd-analyze").context("systemd-analyze is not here")?;
    let dir = tempfile::tempdir()?;
    let root = dir.path().join("root");
    run(&mut command(cluster::binary()?, ["install", "server", "--root"]).arg(&root))?;
    // Under a root of its own systemd-analyze would miss all units of the distribution.
    let program = root.join("usr/local/bin/keelson").to_string_lossy().into_owned();
    for (name, text) in [
        ("keelson-server.service", include_str!("../../systemd/keelson-server.service")),
        ("keelson-agent.service", include_str!("../../systemd/keelson-agent.service")),
    ] {
        let unit = dir.path().join(name);
        std::fs::write(&unit, text.replace("/usr/local/bin/keelson", &program))?;
        let output = command(&analyze, ["verify", "--man=no"]).arg(&unit).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Also warnings, such as of settings this systemd does not know, if they are about our unit.
        ensure!(output.status.success() && !said.contains("keelson-"), "{name}: {said}");
    }
    Ok(())
}

#[test]
fn a_stuck_process_falls_silent() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut supervisor = Supervisor::new(dir.path())?;
    let data = dir.path().join("data");
    let bind = format!("127.0.0.1:{}", free_port()?);
    let args = ["server", "--no-agent", "--store=memory", "--bind", &bind, "--data-dir", &data.to_string_lossy()];
    let start = supervisor.command(&cluster::binary()?, &args);
    let server = Background::start(start, &dir.path().join("pid"), &dir.path().join("log"))?;
    let pid = server.pid().context("it runs")?.to_string();
    let mut walk = || -> Result<()> {
        supervisor.hear("readiness", LIMIT, |line| line == "READY=1")?;
        for _ in 0..3 {
            supervisor.hear("a sign of life", WATCHDOG, |line| line == "WATCHDOG=1")?;
        }
        run(&mut command("kill", ["-STOP", &pid]))?;
        supervisor.forget()?;
        let silent = supervisor.hear("nothing", WATCHDOG, |_| true).is_err();
        run(&mut command("kill", ["-CONT", &pid]))?;
        ensure!(silent, "a stopped process gave a sign of life: {:?}", supervisor.heard);
        supervisor.hear("a sign of life", WATCHDOG * 2, |line| line == "WATCHDOG=1")?;
        run(&mut command("kill", ["-TERM", &pid]))?;
        supervisor.hear("the end", WATCHDOG, |line| line == "STOPPING=1")
    };
    let result = walk();
    server.stop()?;
    result
}

#[test]
fn uninstall_leaves_nothing() -> Result<()> {
    let before = leftovers::inventory()?;
    let dir = tempfile::tempdir()?;
    let containerd = Containerd::start(&dir.path().join("containerd"))?;
    let before_with_containerd = leftovers::inventory()?;
    let result = live(dir.path(), &containerd, &before_with_containerd);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    containerd.stop()?;
    result.with_context(|| log)?;
    let after = leftovers::inventory()?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

fn live(dir: &Path, containerd: &Containerd, before: &BTreeSet<String>) -> Result<()> {
    let root = dir.join("root");
    let installed = root.join("usr/local/bin/keelson");
    let data = dir.join("data");
    let port = free_port()?;
    // Ranges of its own, so that neither another cluster on this host nor what a failed run left is in the way.
    let own = port % 30;
    let mut install = command(cluster::binary()?, ["install", "server", "--node-name=install-test", "--node-port=0"]);
    install.arg("--root").arg(&root).arg("--data-dir").arg(&data);
    install.arg("--containerd-address").arg(containerd.socket());
    install.arg(format!("--bind=127.0.0.1:{port}")).args(cluster::FULL_DISK);
    install.args([format!("--pod-cidr=10.{}.0.0/16", 64 + own), format!("--service-cidr=10.{}.0.0/16", 97 + own)]);
    let first = run(&mut install)?;
    ensure!(first.matches("wrote").count() == 5, "a first installation writes everything:\n{first}");
    let again = run(&mut command(&installed, ["install", "server", "--root"]).arg(&root))?;
    ensure!(again.matches("unchanged").count() == 5, "another changes nothing and keeps settings:\n{again}");
    let other = run(&mut command(&installed, ["uninstall", "--data-dir", "/usr/share", "--root"]).arg(&root));
    let refusal = format!("{:#}", other.err().context("a directory of somebody else is not removed")?);
    ensure!(refusal.contains("does not look like a data directory"), "{refusal}");

    let mut supervisor = Supervisor::new(dir)?;
    let config = root.join("etc/keelson/config.yaml");
    let start = supervisor.command(&installed, &["server", "--config", &config.to_string_lossy()]);
    let server = Background::start(start, &dir.join("pid"), &dir.join("log"))?;
    let mut run_and_remove = || -> Result<()> {
        supervisor.hear("readiness", LIMIT, |line| line == "READY=1")?;
        let kubectl = Kubectl::new(&data.join("admin.kubeconfig"))?;
        start_pods(dir, &installed, &data, containerd, &kubectl)?;
        supervisor.hear("the status", LIMIT, |line| line == "STATUS=Ready, 3 pods")?;
        supervisor.hear("a sign of life", WATCHDOG, |line| line == "WATCHDOG=1")?;
        let refusal = run(&mut node_command(&installed, "cleanup", &data, containerd));
        let refusal = format!("{:#}", refusal.err().context("cleanup beside a running agent is refused")?);
        ensure!(refusal.contains("another agent (process "), "{refusal}");

        let report = run(&mut command(&installed, ["uninstall", "--root"]).arg(&root))?;
        for kind in ["process", "mount", "interface", "address", "nftables", "cgroup", "file"] {
            ensure!(report.contains(&format!("removed {kind} ")), "no {kind} in what was removed:\n{report}");
        }
        ensure!(report.ends_with("nothing of Keelson is left on this host\n"), "{report}");
        Ok(())
    };
    let result = run_and_remove();
    if result.is_err() && data.exists() {
        server.stop()?;
        run(&mut node_command(&installed, "cleanup", &data, containerd))?;
    }
    result?;
    ensure!(server.pid().is_none(), "the server still runs");
    ensure!(!data.exists(), "the data directory is still there");
    let files = run(&mut command("find", [root.as_os_str(), "-not".as_ref(), "-type".as_ref(), "d".as_ref()]))?;
    ensure!(files.is_empty(), "files of the installation are left: {files}");
    nothing_in(containerd)?;
    let after = leftovers::inventory()?;
    let left: Vec<_> = after.difference(before).collect();
    ensure!(left.is_empty(), "left behind: {left:#?}");
    Ok(())
}

fn node_command(binary: &Path, name: &str, data: &Path, containerd: &Containerd) -> std::process::Command {
    let mut command = command(binary, [name, "--data-dir"]);
    command.arg(data).arg("--containerd-address").arg(containerd.socket());
    command
}

/// Three pods with mounts, addresses, rules and a shared PID namespace.
fn start_pods(dir: &Path, binary: &Path, data: &Path, containerd: &Containerd, kubectl: &Kubectl) -> Result<()> {
    let hello = image::hello("1");
    let archive = dir.join("hello.tar");
    hello.write(&archive)?;
    let mut import = command(binary, ["image", "import", "--data-dir"]);
    run(import.arg(data).arg("--containerd-address").arg(containerd.socket()).arg(&archive))?;
    let manifest = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "traces"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "traces"}},
            "template": {
                "metadata": {"labels": {"app": "traces"}},
                "spec": {
                    "shareProcessNamespace": true,
                    "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
                    "containers": [{
                        "name": "hello", "image": hello.reference, "imagePullPolicy": "Never",
                        "volumeMounts": [{"name": "memory", "mountPath": "/memory"}],
                    }],
                },
            },
        },
    });
    let file = dir.join("traces.json");
    std::fs::write(&file, manifest.to_string())?;
    kubectl.run(&["apply", "-f", &file.to_string_lossy()])?;
    kubectl.run(&["expose", "deployment/traces", "--port=80", "--target-port=8080"])?;
    kubectl.run(&["rollout", "status", "deployment/traces", "--timeout=60s"]).map(drop)
}

/// containerd has neither our namespace nor snapshots any more.
fn nothing_in(containerd: &Containerd) -> Result<()> {
    let socket = containerd.socket().to_string_lossy().into_owned();
    let Some(ctr) = packages::find_program("ctr") else { return Ok(()) };
    wait::until("containerd to have no namespace of ours", LIMIT, || {
        let namespaces = run(&mut command(&ctr, ["--address", &socket, "namespaces", "list", "--quiet"]))?;
        ensure!(!namespaces.contains("k8s.io"), "{namespaces}");
        Ok(Some(()))
    })
}
