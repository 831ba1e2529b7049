//! A cluster of two hosts: `a` runs a server with a node, `b` an agent. Each has its own containerd, its own copy of
//! the binary (so that it can be replaced in place) and default ports and ranges: nothing is shared but the link.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::cluster::{FULL_DISK, tail};
use crate::containerd::Containerd;
use crate::host::{Host, Lan};
use crate::http;
use crate::kubectl::Kubectl;
use crate::process::{Background, command};
use crate::wait;

pub const READY_LIMIT: Duration = Duration::from_secs(60);
/// Between two requests of [`Requests`].
const REQUEST_PAUSE: Duration = Duration::from_millis(5);
const API_PORT: u16 = 6443;

/// One host of the cluster, which is one node.
pub struct Member {
    pub host: Host,
    pub address: String,
    pub containerd: Containerd,
    pub keelson: Background,
}

pub struct Hosts {
    pub lan: Lan,
    pub a: Member,
    pub b: Member,
    /// Flags of the server on top of those that every cluster here has.
    pub server_flags: Vec<String>,
}

impl Member {
    fn boot(lan: &Lan, dir: &Path, name: &str, address: &str, binary: &Path) -> Result<Self> {
        let host = Host::boot(&dir.join(name), name)?;
        lan.plug(&host, address)?;
        let containerd = Containerd::start_on(&host, &host.dir.join("containerd"))?;
        let keelson = Background::at(&host.dir.join("keelson.pid"));
        let member = Self { host, address: address.to_owned(), containerd, keelson };
        member.install(binary)?;
        Ok(member)
    }

    pub fn name(&self) -> &str {
        &self.host.name
    }
    pub fn binary(&self) -> PathBuf {
        self.host.dir.join("bin/keelson")
    }
    pub fn data_dir(&self) -> PathBuf {
        self.host.dir.join("keelson")
    }
    pub fn log(&self) -> PathBuf {
        self.host.dir.join("keelson.log")
    }

    /// Puts the binary in place of the one there, as an upgrade does: a running process keeps the file it has.
    pub fn install(&self, binary: &Path) -> Result<()> {
        let path = self.binary();
        let draft = path.with_extension("new");
        fs::create_dir_all(self.host.dir.join("bin"))?;
        // A link costs nothing, where both are on one file system.
        if fs::hard_link(binary, &draft).is_err() {
            fs::copy(binary, &draft).with_context(|| format!("copy {binary:?}"))?;
        }
        fs::rename(&draft, &path).with_context(|| format!("replace {path:?}"))?;
        // Two names of one file are not renamed onto each other.
        if draft.exists() { fs::remove_file(&draft).context("remove the draft") } else { Ok(()) }
    }

    fn start(&mut self, arguments: &[&str]) -> Result<()> {
        let mut start = command(self.binary(), arguments);
        start.arg("--data-dir").arg(self.data_dir());
        start.arg("--containerd-address").arg(self.containerd.socket());
        start.args(["--node-name", self.name(), "--node-ip", &self.address]);
        start.args(FULL_DISK);
        self.keelson = self.host.spawn(start, &self.host.dir.join("keelson.pid"), &self.log())?;
        Ok(())
    }

    fn keelson(&self, words: &[&str]) -> Command {
        let mut command = command(self.binary(), words);
        command.arg("--data-dir").arg(self.data_dir());
        command.arg("--containerd-address").arg(self.containerd.socket());
        command
    }

    pub fn import_image(&self, archive: &Path) -> Result<()> {
        self.host.run(self.keelson(&["image", "import"]).arg(archive)).map(drop)
    }

    /// `keelson cleanup`; the agent must not run.
    pub fn cleanup(&self) -> Result<()> {
        self.host.run(&mut self.keelson(&["cleanup"])).map(drop)
    }

    pub fn restart_containerd(&mut self) -> Result<()> {
        self.containerd.kill()?;
        self.containerd = Containerd::start_on(&self.host, &self.host.dir.join("containerd"))?;
        Ok(())
    }

    /// The file that the running process is made of, by its number on its disk.
    pub fn running_file(&self) -> Result<u64> {
        let pid = self.keelson.pid().with_context(|| format!("keelson on {} has ended", self.name()))?;
        let path = format!("/proc/{pid}/exe");
        Ok(fs::metadata(&path).with_context(|| format!("look at {path}"))?.ino())
    }

    /// Running containers of this host and their pids, as containerd tells.
    pub fn tasks(&self) -> Result<std::collections::BTreeMap<String, String>> {
        let socket = self.containerd.socket().display().to_string();
        let ctr = |words: &[&str]| {
            let mut all = vec!["--address", &socket];
            all.extend(words);
            self.host.run(&mut command("ctr", all))
        };
        let mut found = std::collections::BTreeMap::new();
        for namespace in ctr(&["namespaces", "list", "-q"])?.lines() {
            for line in ctr(&["--namespace", namespace, "tasks", "list"])?.lines().skip(1) {
                if let [id, pid, "RUNNING"] = line.split_whitespace().collect::<Vec<_>>()[..] {
                    found.insert(id.to_owned(), pid.to_owned());
                }
            }
        }
        Ok(found)
    }

    /// The body of `GET /path` of an address, asked from this host.
    pub fn get(&self, address: SocketAddr, path: &str) -> Result<String> {
        self.host.within(|| http::get_path(address, path))
    }
}

impl Hosts {
    /// Both hosts up, with a server on `a` and its agent on `b`.
    pub fn start(dir: &Path, binary: &Path) -> Result<Self> {
        Self::start_with(dir, binary, &[])
    }

    /// The same with further flags of the server.
    pub fn start_with(dir: &Path, binary: &Path, server_flags: &[&str]) -> Result<Self> {
        let lan = Lan::start(&dir.join("switch"))?;
        let a = Member::boot(&lan, dir, "a", "192.0.2.1", binary)?;
        let b = Member::boot(&lan, dir, "b", "192.0.2.2", binary)?;
        let server_flags = server_flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut hosts = Self { lan, a, b, server_flags };
        hosts.start_server()?;
        hosts.start_agent()?;
        Ok(hosts)
    }

    /// Starts the server on `a` and waits until it is ready.
    pub fn start_server(&mut self) -> Result<()> {
        let bind = format!("0.0.0.0:{API_PORT}");
        let mut arguments = vec!["server", "--bind", &bind];
        arguments.extend(self.server_flags.iter().map(String::as_str));
        self.a.start(&arguments)?;
        wait::until(&format!("the API server (log: {:?})", self.a.log()), READY_LIMIT, || {
            Ok((self.kubectl(&["get", "--raw", "/readyz"])?.trim() == "ok").then_some(()))
        })
    }

    /// Starts the agent on `b`, which joins with a token the first time and is its certificate from then on.
    pub fn start_agent(&mut self) -> Result<()> {
        let url = format!("https://{}:{API_PORT}", self.a.address);
        if self.b.data_dir().join("pki").exists() {
            return self.b.start(&["agent", "--server", &url]);
        }
        let mut create = command(self.a.binary(), ["token", "create", "--data-dir"]);
        let token = self.a.host.run(create.arg(self.a.data_dir()))?;
        self.b.start(&["agent", "--server", &url, "--token", token.trim()])
    }

    pub fn members(&self) -> [&Member; 2] {
        [&self.a, &self.b]
    }

    /// kubectl on the server's host.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.a.host.run(&mut self.kubectl_command(args)?)
    }

    /// The same as a command, to be run on that host.
    pub fn kubectl_command(&self, args: &[&str]) -> Result<Command> {
        Ok(Kubectl::new(&self.a.data_dir().join("admin.kubeconfig"))?.command(args))
    }

    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(args);
        serde_json::from_str(&self.kubectl(&all)?).context("kubectl printed no JSON")
    }

    pub fn apply(&self, manifest: &Value) -> Result<()> {
        let path = self.a.host.dir.join("manifest.json");
        fs::write(&path, manifest.to_string())?;
        self.kubectl(&["apply", "-f", &path.to_string_lossy()]).map(drop)
    }

    /// Waits until both nodes say they are ready.
    pub fn wait_nodes_ready(&self) -> Result<()> {
        wait::until("both nodes to be ready", READY_LIMIT, || {
            let nodes = self.get(&["nodes"])?;
            let ready = nodes["items"].as_array().into_iter().flatten().filter(|node| condition(node, "Ready"));
            Ok((ready.count() == 2).then_some(()))
        })
    }

    /// What somebody who looks at a failed test needs.
    pub fn diagnosis(&self) -> String {
        let look = |args: &[&str]| self.kubectl(args).unwrap_or_else(|error| format!("{error:#}\n"));
        let mut text = look(&["get", "nodes,pods,services,endpointslices", "-A", "-o", "wide"]);
        text += &look(&["get", "events", "-A"]);
        for member in self.members() {
            let network = member.host.sh("ip -br address; ip route; bridge fdb show; nft list ruleset | head -60");
            let network = network.unwrap_or_else(|error| format!("{error:#}"));
            text += &format!("\nhost {}:\n{network}\n{}\n", member.name(), tail(&member.log(), 40));
        }
        text
    }
}

/// Whether a condition of an object is True.
pub fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Requests one after the other from one host, each on a connection of its own, until stopped.
pub struct Requests {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Answers>>,
}

/// How requests went.
#[derive(Debug, Default)]
pub struct Answers {
    pub answered: u64,
    pub failed: Vec<String>,
}

impl Requests {
    pub fn start(from: &Member, address: SocketAddr) -> Result<Self> {
        let inside = from.host.inside()?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            inside.within(|| {
                let mut answers = Answers::default();
                while !asked.load(Ordering::Relaxed) {
                    match http::get(address) {
                        Ok(_) => answers.answered += 1,
                        Err(error) => answers.failed.push(format!("{error:#}")),
                    }
                    std::thread::sleep(REQUEST_PAUSE);
                }
                Ok(answers)
            })
        });
        Ok(Self { stop, thread })
    }

    pub fn stop(self) -> Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the thread of requests panicked"))?
    }
}

impl Answers {
    /// How many were made.
    pub fn all_answered(&self) -> Result<u64> {
        ensure!(
            self.failed.is_empty(),
            "{} requests failed, {} did not: {:#?}",
            self.failed.len(),
            self.answered,
            self.failed
        );
        ensure!(self.answered > 0, "no request was made");
        Ok(self.answered)
    }
}
