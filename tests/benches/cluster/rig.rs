//! Clusters to measure, and rows to print.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api_client::{Client, kubeconfig, transport};
use tests::cluster::{self, Cluster, Options};

/// One line of the result: what, how much, and what was promised.
pub fn row(what: &str, value: impl std::fmt::Display, promise: &str) {
    println!("{what:<52} {:>14}   {promise}", value.to_string());
}

pub fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

pub fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// The value below which `share` (0..=1) of the sorted durations lie.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted[index]
}

pub fn binary() -> Result<PathBuf> {
    std::env::var_os("KEELSON_BINARY").map(PathBuf::from).context("KEELSON_BINARY is not set: use `cargo xtask bench`")
}

/// Options of a cluster below `dir`; with an agent it gets address ranges of its own.
pub fn options(dir: &Path, agent: bool, flags: &[&str]) -> Result<Options> {
    let mut flags: Vec<String> = flags.iter().map(|&f| f.to_owned()).collect();
    if agent {
        let own = ["--node-name=bench", "--node-port=0", "--pod-cidr=10.120.0.0/16", "--service-cidr=10.121.0.0/16"];
        flags.extend(own.map(str::to_owned));
    }
    Ok(Options {
        binary: binary()?,
        dir: dir.to_owned(),
        port: cluster::free_port()?,
        flags,
        agent,
        host_containerd: false,
    })
}

/// A cluster that is stopped and cleaned up when dropped, whatever happened in between.
pub struct Running(pub Cluster);

impl Running {
    pub fn start(options: Options) -> Result<Self> {
        Ok(Self(Cluster::start(options)?))
    }

    pub fn pid(&self) -> Result<u32> {
        self.0.server.pid().context("the server has ended")
    }

    pub fn client(&self) -> Result<Client> {
        client(&self.0.kubeconfig())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.stop() {
            eprintln!("stopping a measured cluster failed: {error:#}");
        }
    }
}

pub fn client(path: &Path) -> Result<Client> {
    let transport = transport::Remote::new(&kubeconfig::load(path)?)?;
    Ok(Client::new(transport, "bench"))
}

/// Runs asynchronous measuring.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// From now until `/readyz` of the server with this kubeconfig answers ok.
pub async fn ready_after(start: Instant, path: &Path) -> Duration {
    let mut known: Option<Arc<Client>> = None;
    loop {
        if known.is_none() {
            known = client(path).ok().map(Arc::new);
        }
        if let Some(client) = &known {
            let request = http::Request::get("/readyz").body(bytes::Bytes::new()).expect("a request");
            if client.call(request).await.is_ok_and(|body| &body[..] == b"ok") {
                return start.elapsed();
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
