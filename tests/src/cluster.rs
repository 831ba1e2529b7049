//! One `keelson server` with what it needs, below one directory: the shape that `cargo xtask up` and the end-to-end
//! tests share.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::containerd::{self, Containerd};
use crate::kubectl::Kubectl;
use crate::process::{Background, command, run};
use crate::wait;

const READY_LIMIT: Duration = Duration::from_secs(30);
/// Nodes that run on a disk which a build has nearly filled. What a node keeps free is tested where it is decided.
pub const FULL_DISK: [&str; 4] =
    ["--eviction-hard", "nodefs.available<256Mi", "--image-gc-high-threshold-percent", "100"];

/// How a cluster is started.
#[derive(Clone)]
pub struct Options {
    /// The `keelson` binary.
    pub binary: PathBuf,
    /// Everything the cluster writes goes below it.
    pub dir: PathBuf,
    /// Port of the API server on 127.0.0.1.
    pub port: u16,
    /// Flags on top of those that follow from the fields above.
    pub flags: Vec<String>,
    /// Without an agent there is no containerd either.
    pub agent: bool,
    /// Use the host's own containerd when it answers.
    pub host_containerd: bool,
}

/// The build under test.
pub fn binary() -> Result<PathBuf> {
    std::env::var_os("KEELSON_BINARY").map(PathBuf::from).context("KEELSON_BINARY is not set: run `cargo xtask test`")
}

impl Options {
    /// A cluster of one node for a test, which gives the node its name.
    pub fn single(node: &str, dir: &Path) -> Result<Self> {
        let port = free_port()?;
        // Ranges of its own, so that neither another cluster on this host nor what a failed run left is in the way.
        let own = port % 60;
        let flags = [
            "--node-name".to_owned(),
            node.to_owned(),
            "--node-port=0".to_owned(),
            format!("--pod-cidr=10.{}.0.0/16", 130 + own),
            format!("--service-cidr=10.{}.0.0/16", 190 + own),
        ];
        let (binary, dir) = (binary()?, dir.to_owned());
        Ok(Self { binary, dir, port, flags: flags.into(), agent: true, host_containerd: false })
    }
}

/// A cluster on this host. Left running when the value is dropped.
pub struct Cluster {
    pub options: Options,
    pub server: Background,
    pub containerd: Option<Containerd>,
}

impl Cluster {
    /// The cluster that an earlier [`Cluster::start`] with these options left running, if any.
    pub fn at(options: Options) -> Self {
        let server = Background::at(&options.dir.join("server.pid"));
        let private = options.dir.join("containerd");
        let containerd = (options.agent && private.join("config.toml").exists()).then(|| Containerd::at(&private));
        Self { options, server, containerd }
    }

    /// Starts containerd and the server unless they run already, and waits until the API server is ready.
    pub fn start(options: Options) -> Result<Self> {
        fs::create_dir_all(&options.dir).with_context(|| format!("create {:?}", options.dir))?;
        let containerd = if options.agent && !(options.host_containerd && containerd::host_is_running()) {
            Some(Containerd::start(&options.dir.join("containerd"))?)
        } else {
            None
        };
        let mut cluster = Self::at(options);
        cluster.containerd = containerd;
        if cluster.server.pid().is_none() {
            cluster.start_server()?;
        }
        Ok(cluster)
    }

    /// Starts the server process alone and waits until it is ready.
    pub fn start_server(&mut self) -> Result<()> {
        let dir = &self.options.dir;
        let mut start = command(&self.options.binary, ["server"]);
        start.arg("--data-dir").arg(self.data_dir());
        start.arg("--bind").arg(format!("127.0.0.1:{}", self.options.port));
        start.arg("--write-kubeconfig").arg(self.kubeconfig());
        if self.options.agent {
            start.arg("--containerd-address").arg(self.containerd_socket());
        } else {
            start.arg("--no-agent");
        }
        start.args(FULL_DISK);
        start.args(&self.options.flags);
        self.server = Background::start(start, &dir.join("server.pid"), &self.log())?;
        self.wait_ready()
    }

    /// Waits until `/readyz` answers ok; fails at once with the end of the log when the server has ended.
    pub fn wait_ready(&self) -> Result<()> {
        let kubectl = self.kubectl()?;
        let mut ended = false;
        let ready = wait::until(&format!("the API server (log: {:?})", self.log()), READY_LIMIT, || {
            if self.server.pid().is_none() {
                ended = true;
                return Ok(Some(()));
            }
            Ok((kubectl.run(&["get", "--raw", "/readyz"])?.trim() == "ok").then_some(()))
        });
        if ended {
            anyhow::bail!("the server ended; the end of its log:\n{}", tail(&self.log(), 20));
        }
        ready
    }

    pub fn data_dir(&self) -> PathBuf {
        self.options.dir.join("keelson")
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.options.dir.join("kubeconfig")
    }
    pub fn log(&self) -> PathBuf {
        self.options.dir.join("server.log")
    }
    pub fn kubectl(&self) -> Result<Kubectl> {
        Kubectl::new(&self.kubeconfig())
    }
    pub fn containerd_socket(&self) -> PathBuf {
        self.containerd.as_ref().map_or_else(|| PathBuf::from(containerd::HOST_SOCKET), Containerd::socket)
    }

    /// What somebody who looks at a failed test needs: the cluster's own account, and the end of the server's log.
    pub fn diagnosis(&self) -> String {
        let look = |args: &[&str]| match self.kubectl().and_then(|k| k.run(args)) {
            Ok(text) => text,
            Err(error) => format!("{error:#}\n"),
        };
        format!(
            "{}{}{}the end of {:?}:\n{}",
            look(&["get", "nodes,deployments,pods,endpointslices", "-A", "-o", "wide"]),
            look(&["get", "events", "-A"]),
            look(&["describe", "nodes"]),
            self.log(),
            tail(&self.log(), 60)
        )
    }

    /// `keelson image import` of an archive.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let mut import = command(&self.options.binary, ["image", "import"]);
        import.arg("--data-dir").arg(self.data_dir());
        import.arg("--containerd-address").arg(self.containerd_socket()).arg(archive);
        run(&mut import).map(drop)
    }

    /// Stops the server, removes every trace of its pods, stops the private containerd. Files stay.
    pub fn stop(&self) -> Result<()> {
        self.server.stop()?;
        if self.options.agent && self.data_dir().exists() {
            let mut cleanup = command(&self.options.binary, ["cleanup"]);
            cleanup.arg("--data-dir").arg(self.data_dir());
            cleanup.arg("--containerd-address").arg(self.containerd_socket());
            run(&mut cleanup)?;
        }
        if let Some(containerd) = &self.containerd {
            containerd.stop()?;
        }
        Ok(())
    }
}

/// The last `lines` lines of a file, for error messages.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A TCP port of 127.0.0.1 that was free a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
