//! A network configuration of the host takes over from the built-in network: the pod gets its address from there, and
//! the plugins are asked to take back what they gave, also by an agent that knows the pod from its record alone.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use support::{Board, Containerd, Node, busybox_archive};

/// Networks of this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A bridge network as an operator writes it, with plugins of the distribution.
struct HostNetwork {
    name: String,
    bridge: String,
    /// The first three parts of its addresses.
    prefix: String,
    /// Where `host-local` keeps what it gave out.
    leases: PathBuf,
    host_port: u16,
}

impl HostNetwork {
    fn write(containerd: &Containerd, configuration: &Path) -> Self {
        // Apart from those of other tests on this host.
        let own = (std::process::id() * 8 + MADE.fetch_add(1, Ordering::Relaxed)) % 15_000;
        let network = Self {
            name: format!("lan{own}"),
            bridge: format!("kc{own}"),
            prefix: format!("10.{}.{}", 2 + own / 250 % 60, own % 250),
            leases: containerd.directory.path().join("leases"),
            host_port: std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
        };
        let list = json!({
            "cniVersion": "0.4.0", "name": network.name,
            "plugins": [
                {"type": "bridge", "bridge": network.bridge, "isGateway": true, "ipMasq": false,
                 "ipam": {"type": "host-local", "dataDir": network.leases, "routes": [{"dst": "0.0.0.0/0"}],
                          "ranges": [[{"subnet": format!("{}.0/24", network.prefix)}]]}},
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        std::fs::create_dir_all(configuration).unwrap();
        std::fs::write(configuration.join("10-lan.conflist"), list.to_string()).unwrap();
        network
    }

    /// Addresses given out and not taken back.
    fn leased(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.leases.join(&self.name)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&self.prefix)).collect()
    }
}

impl Drop for HostNetwork {
    fn drop(&mut self) {
        // The bridge belongs to the plugin, which leaves it for the next pod.
        let gone = std::process::Command::new("ip").args(["link", "delete", &self.bridge]).status();
        eprintln!("bridge {} removed: {gone:?}", self.bridge);
    }
}

async fn node(containerd: &Containerd) -> (Node, HostNetwork) {
    let archive = busybox_archive(containerd.directory.path());
    agent::image::import(&containerd.socket(), &containerd.namespace(), &archive).await.unwrap();
    let mut options = Node::options(containerd, "n1");
    options.cni_config_dir = containerd.directory.path().join("net.d");
    let network = HostNetwork::write(containerd, &options.cni_config_dir);
    (Node::start(options, Board::default()).await, network)
}

fn server(network: &HostNetwork) -> Value {
    json!({"containers": [{
        "name": "main", "command": ["sh", "-c", "mkdir -p /tmp/www; echo from the pod > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www"],
        "ports": [{"containerPort": 80, "hostPort": network.host_port}],
        "readinessProbe": {"tcpSocket": {"port": 80}},
    }]})
}

fn is_ready(object: &Value) -> bool {
    object["status"]["containerStatuses"][0]["ready"] == true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_the_host_takes_over() {
    let containerd = Containerd::start();
    let (mut node, network) = node(&containerd).await;
    assert!(node.shared.sandboxes.network_ready().is_ok());
    let pod = node.put("web", server(&network));
    let object = node.board.wait("web", "ready", is_ready).await;

    let address = object["status"]["podIP"].as_str().unwrap().to_owned();
    assert!(address.starts_with(&network.prefix), "{address} is of {}.0/24", network.prefix);
    assert_eq!(network.leased(), [address.clone()]);
    assert!(node.exec("web", &["ip", "addr"]).await.contains(&address));
    assert!(Path::new("/sys/class/net").join(&network.bridge).exists(), "made by the plugin");
    assert!(!Path::new("/sys/class/net").join(&node.options.bridge).exists(), "no built-in network beside it");
    // The way of the host port, and of a request from the host.
    let fetched = node.exec("web", &["wget", "-q", "-O", "-", &format!("http://{address}/")]).await;
    assert_eq!(fetched, "from the pod\n");
    assert!(rules().contains(&network.host_port.to_string()), "portmap was given the host port:\n{}", rules());

    node.delete_and_wait(&pod, 0).await;
    assert_eq!(network.leased(), Vec::<String>::new(), "DEL gave the address back");
    assert!(!rules().contains(&network.host_port.to_string()), "DEL took the host port back:\n{}", rules());
    node.end(&containerd).await;
}

/// While no agent ran the configuration went away: what it gave is taken back all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_detached_by_its_record_when_the_configuration_is_gone() {
    let containerd = Containerd::start();
    let (mut node, network) = node(&containerd).await;
    node.put("web", server(&network));
    node.board.wait("web", "ready", is_ready).await;
    assert_eq!(network.leased().len(), 1);
    let board = node.board.clone();
    let options = node.stop().await;
    std::fs::remove_dir_all(&options.cni_config_dir).unwrap();

    let mut node = Node::start(options, board).await;
    // No pod is wanted here any more: what is found is ended.
    node.pods.complete();
    node.pods.reap().await;
    assert!(node.pods.is_empty());
    assert_eq!(network.leased(), Vec::<String>::new());
    node.end(&containerd).await;
}

/// The plugin writes its rules with whichever iptables the host has.
fn rules() -> String {
    let list = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    list("iptables-save", &["-t", "nat"]) + &list("nft", &["list", "ruleset"])
}
