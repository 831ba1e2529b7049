//! etcd processes for tests: Debian's `/usr/bin/etcd` on free loopback ports with data in a temporary directory.
//! A missing binary fails the test: the etcd engine is not tested without etcd. Processes end with their handle.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const BINARY: &str = "/usr/bin/etcd";

/// One cluster, members started one by one or all.
pub struct Cluster {
    directory: TempDir,
    members: Vec<Member>,
    /// Certificate files, if the cluster speaks TLS.
    tls: Option<TlsFiles>,
    extra: Vec<String>,
}

#[derive(Clone)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

struct Member {
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

impl Cluster {
    /// Chooses ports for `count` members and starts them.
    pub fn start(count: usize, tls: Option<TlsFiles>, extra: &[&str]) -> Self {
        let ports = free_ports(count * 2);
        let members = ports.chunks(2).map(|pair| Member { client_port: pair[0], peer_port: pair[1], process: None });
        let extra = extra.iter().map(|text| (*text).to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Self { directory, members: members.collect(), tls, extra };
        (0..count).for_each(|place| cluster.run(place));
        cluster
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| self.client_url(member)).collect()
    }

    /// Starts a member again on its ports and data.
    pub fn run(&mut self, place: usize) {
        let member = &self.members[place];
        let initial: Vec<String> =
            self.members.iter().enumerate().map(|(place, member)| format!("m{place}={}", peer_url(member))).collect();
        let (client, peer) = (self.client_url(member), peer_url(member));
        let mut command = Command::new(BINARY);
        command
            .args(["--name", &format!("m{place}")])
            .arg("--data-dir")
            .arg(self.data(place))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &initial.join(",")])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "error"])
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.ca);
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
        }
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot run {BINARY}: {error}; install Debian's etcd-server, the etcd engine is tested with it")
        });
        self.members[place].process = Some(child);
    }

    /// kill -9.
    pub fn kill(&mut self, place: usize) {
        if let Some(mut process) = self.members[place].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// What a restore from an older backup does, at its extreme.
    #[allow(dead_code, reason = "one of the two tests that share this module needs it")]
    pub fn erase(&self, place: usize) {
        std::fs::remove_dir_all(self.data(place)).unwrap();
    }

    fn data(&self, place: usize) -> PathBuf {
        self.directory.path().join(format!("m{place}"))
    }

    fn client_url(&self, member: &Member) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", member.client_port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|place| self.kill(place));
    }
}

fn peer_url(member: &Member) -> String {
    format!("http://127.0.0.1:{}", member.peer_port)
}

/// Ports that were free a moment ago; all held at once, so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
