//! The command line. Every setting of `server` can also stand in the configuration file and in the environment;
//! [`crate::config`] merges the three.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::dns::Dns;
use crate::eviction::Eviction;
use crate::images::Images;
use crate::proxy::Proxy;

/// Kubernetes for Linux hosts, as one binary.
#[derive(Parser)]
#[command(name = "keelson", version, disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run a control plane and, unless --no-agent is given, a node on this host.
    ///
    /// Settings come from the configuration file, overridden by KEELSON_* environment variables, overridden by flags.
    Server(Box<Server>),
    /// Run a node on this host for a cluster whose servers are elsewhere.
    ///
    /// Settings come from the configuration file, overridden by KEELSON_* environment variables, overridden by flags.
    Agent(Box<Agent>),
    /// Make, show and delete the tokens that nodes join with.
    Token(TokenArguments),
    /// Print a kubeconfig with administrator rights for the server of a data directory.
    Kubeconfig(Kubeconfig),
    /// Work with the images of this node.
    Image(Image),
    /// Look at the controllers of this version.
    Controllers(Controllers),
    /// Fill a cluster with simulated nodes: real API objects, leases and pod status, no containers.
    ///
    /// Every pod that is bound to such a node becomes Running and Ready, and ends when it is deleted. Annotations of a
    /// pod say otherwise: simulate.keelson.dev/start, ready, run, stop (durations or `never`) and exit (codes).
    Simulate(Simulate),
    /// Say why an object is not what it should be: the chain of causes, with the command that would help.
    ///
    /// Reads the API server alone, with the rights of the kubeconfig, and changes nothing. Examples:
    /// `keelson why pod/web-0`, `keelson why -n shop deploy web`, `keelson why node/n1 -o json`.
    Why(Why),
    /// Stop and remove every pod, namespace, mount, interface and rule that a stopped server's agent left on this host.
    ///
    /// The cluster's data stays. Pods outlive a stopped server on purpose; this is how to end them.
    Cleanup(Cleanup),
    /// Write everything that the cluster is made of into one file: its objects and its keys.
    ///
    /// Works beside a running server and without one: what the store held at one moment is read from the data directory
    /// or from etcd. The file holds private keys and Secrets, and is readable for its owner only.
    Backup(Backup),
    /// Make a cluster from a backup, on an empty machine or in the place of a stopped server's.
    ///
    /// The whole backup is checked before anything is touched. Clients that hold on to what they saw before are told to
    /// list again. What is replaced with --force is kept beside the new (store.db.replaced, pki.replaced) until the next
    /// restore.
    Restore(Restore),
    /// Install Keelson on this host as a service that starts at every boot; again, to upgrade or change settings.
    Install(Install),
    /// Remove Keelson from this host with everything it made, and tell what was removed.
    Uninstall(Uninstall),
    /// Print the version.
    Version,
    /// Hold the PID namespace of a pod whose containers share one; started by the agent.
    #[command(hide = true)]
    Pause,
}

/// Parts of Keelson that `server` can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Component {
    Apiserver,
    Controllers,
    Scheduler,
    Agent,
}

/// Where the API server keeps the cluster's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In the data directory; for a single server.
    Embedded,
    /// In an etcd cluster; for several servers.
    Etcd,
    /// In memory only: everything is lost at exit.
    Memory,
}

/// Settings of `keelson server`, as given on one of the three levels: absent means "as the level below says".
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Server {
    /// Configuration file (YAML; the same settings in camelCase) [default: /etc/keelson/config.yaml if it exists]
    #[arg(long, value_name = "FILE", env = "KEELSON_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Directory for state, keys and pods [default: /var/lib/keelson]
    #[arg(long, value_name = "DIR", env = "KEELSON_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// Address and port the API server listens on [default: 0.0.0.0:6443]
    #[arg(long, value_name = "ADDR:PORT", env = "KEELSON_BIND")]
    pub bind: Option<SocketAddr>,

    /// Further names and addresses that clients and nodes reach this server by
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "KEELSON_TLS_SAN")]
    pub tls_san: Option<Vec<String>>,

    /// How long the certificates of servers and nodes last; they are renewed while running [default: 365d]
    #[arg(long, value_name = "DURATION", env = "KEELSON_CERTIFICATE_LIFETIME")]
    pub certificate_lifetime: Option<String>,

    /// Write the administrator's kubeconfig here [default: DATA_DIR/admin.kubeconfig]
    #[arg(long, value_name = "FILE", env = "KEELSON_WRITE_KUBECONFIG")]
    pub write_kubeconfig: Option<PathBuf>,

    /// Do not run pods on this host
    #[arg(long)]
    pub no_agent: bool,

    /// Run only these parts; without apiserver among them, --kubeconfig says where it is
    #[arg(long, value_name = "PART", value_delimiter = ',', env = "KEELSON_COMPONENTS")]
    pub components: Option<Vec<Component>>,

    /// How to reach and identify to an API server that is not part of this process
    #[arg(long, value_name = "FILE", env = "KEELSON_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// The scheduler's profiles: a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1)
    #[arg(long, value_name = "FILE", env = "KEELSON_SCHEDULER_CONFIG")]
    pub scheduler_config: Option<PathBuf>,

    /// Where the cluster's state is kept [default: embedded]
    #[arg(long, value_name = "KIND", env = "KEELSON_STORE")]
    pub store: Option<StoreKind>,

    /// etcd's client URLs
    #[arg(long, value_name = "URL", value_delimiter = ',', env = "KEELSON_ETCD_ENDPOINTS")]
    pub etcd_endpoints: Option<Vec<String>>,

    /// CA bundle that etcd's certificates are verified with
    #[arg(long, value_name = "FILE", env = "KEELSON_ETCD_CA_FILE")]
    pub etcd_ca_file: Option<PathBuf>,

    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", env = "KEELSON_ETCD_CERT_FILE")]
    pub etcd_cert_file: Option<PathBuf>,

    /// Key of the client certificate for etcd
    #[arg(long, value_name = "FILE", env = "KEELSON_ETCD_KEY_FILE")]
    pub etcd_key_file: Option<PathBuf>,

    /// Where a process that runs controllers without the API server shows its metrics, over plain HTTP
    /// [default: 127.0.0.1:10257]
    #[arg(long, value_name = "ADDR:PORT", env = "KEELSON_METRICS_BIND")]
    pub metrics_bind: Option<SocketAddr>,

    /// containerd's socket [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET", env = "KEELSON_CONTAINERD_ADDRESS")]
    pub containerd_address: Option<PathBuf>,

    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", env = "KEELSON_NODE_NAME")]
    pub node_name: Option<String>,

    /// Address other nodes and the API server reach this node at [default: that of the default route]
    #[arg(long, value_name = "ADDR", env = "KEELSON_NODE_IP")]
    pub node_ip: Option<std::net::IpAddr>,

    /// Port of the node's own API (logs, exec); 0 picks a free one [default: 10250]
    #[arg(long, value_name = "PORT", env = "KEELSON_NODE_PORT")]
    pub node_port: Option<u16>,

    #[command(flatten)]
    #[serde(flatten)]
    pub images: Images,

    #[command(flatten)]
    #[serde(flatten)]
    pub eviction: Eviction,

    /// Range of Service addresses [default: 10.96.0.0/16]
    #[arg(long, value_name = "CIDR", env = "KEELSON_SERVICE_CIDR")]
    pub service_cidr: Option<String>,

    /// Range of pod addresses; each node gets a /24 of it. With an IPv6 range after a comma pods have an address of
    /// each, and nodes a /64 [default: 10.244.0.0/16]
    #[arg(long, value_name = "CIDR[,CIDR]", env = "KEELSON_POD_CIDR")]
    pub pod_cidr: Option<String>,

    /// Addresses of this node that answer on node ports, as ranges [default: all of its addresses]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "KEELSON_NODE_PORT_ADDRESSES")]
    pub node_port_addresses: Option<Vec<String>>,

    /// Addresses that Services of type LoadBalancer get, as ranges or `FIRST-LAST`; routing them to the nodes is the
    /// network's part. `none` leaves such Services to another controller [default: the addresses of the nodes]
    #[arg(long, value_name = "RANGE", value_delimiter = ',', env = "KEELSON_LOAD_BALANCER_ADDRESSES")]
    pub load_balancer_addresses: Option<Vec<String>>,

    /// Domain that names of Services and pods end with [default: cluster.local]
    #[arg(long, value_name = "DOMAIN", env = "KEELSON_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,

    /// Address of cluster DNS, or `none` to leave name resolution to the host's servers or to a DNS of your own
    /// [default: the tenth address of the Service range]
    #[arg(long, value_name = "ADDR", env = "KEELSON_CLUSTER_DNS")]
    pub cluster_dns: Option<String>,

    #[command(flatten)]
    #[serde(flatten)]
    pub dns: Dns,

    #[command(flatten)]
    #[serde(flatten)]
    pub proxy: Proxy,

    /// What to log, as in `info` or `info,agent=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "KEELSON_LOG")]
    pub log: Option<String>,
}

/// Settings of `keelson agent`, as given on one of the three levels: absent means "as the level below says".
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agent {
    /// Configuration file (YAML; the same settings in camelCase) [default: /etc/keelson/config.yaml if it exists]
    #[arg(long, value_name = "FILE", env = "KEELSON_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// The cluster's servers, such as https://10.0.0.1:6443; several are tried in turn
    #[arg(long, value_name = "URL", value_delimiter = ',', env = "KEELSON_SERVER")]
    pub server: Option<Vec<String>>,

    /// Token to join with, as `keelson token create` prints it; needed once
    #[arg(long, value_name = "TOKEN", env = "KEELSON_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// File that holds the token
    #[arg(long, value_name = "FILE", env = "KEELSON_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// Directory for state, keys and pods [default: /var/lib/keelson]
    #[arg(long, value_name = "DIR", env = "KEELSON_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// containerd's socket [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET", env = "KEELSON_CONTAINERD_ADDRESS")]
    pub containerd_address: Option<PathBuf>,

    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", env = "KEELSON_NODE_NAME")]
    pub node_name: Option<String>,

    /// Address other nodes and the API server reach this node at [default: that of the default route]
    #[arg(long, value_name = "ADDR", env = "KEELSON_NODE_IP")]
    pub node_ip: Option<std::net::IpAddr>,

    /// Port of the node's own API (logs, exec); 0 picks a free one [default: 10250]
    #[arg(long, value_name = "PORT", env = "KEELSON_NODE_PORT")]
    pub node_port: Option<u16>,

    #[command(flatten)]
    #[serde(flatten)]
    pub images: Images,

    #[command(flatten)]
    #[serde(flatten)]
    pub eviction: Eviction,

    /// Labels of the Node, such as disk=ssd; not of kubernetes.io, which are the cluster's to set
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', env = "KEELSON_NODE_LABELS")]
    pub node_labels: Option<Vec<String>>,

    /// Taints of the Node when it first registers, such as dedicated=db:NoSchedule
    #[arg(long, value_name = "KEY[=VALUE]:EFFECT", value_delimiter = ',', env = "KEELSON_REGISTER_WITH_TAINTS")]
    pub register_with_taints: Option<Vec<String>>,

    /// Range of pod addresses of the cluster, if not the one that its servers tell
    #[arg(long, value_name = "CIDR", env = "KEELSON_POD_CIDR")]
    pub pod_cidr: Option<String>,

    /// Addresses of this node that answer on node ports, as ranges [default: all of its addresses]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "KEELSON_NODE_PORT_ADDRESSES")]
    pub node_port_addresses: Option<Vec<String>>,

    /// DNS domain of the cluster, if not the one that its servers tell
    #[arg(long, value_name = "DOMAIN", env = "KEELSON_CLUSTER_DOMAIN")]
    pub cluster_domain: Option<String>,

    /// Address of the cluster's DNS Service, if not the one that its servers tell; "none" where the cluster brings its
    /// own
    #[arg(long, value_name = "ADDR", env = "KEELSON_CLUSTER_DNS")]
    pub cluster_dns: Option<String>,

    #[command(flatten)]
    #[serde(flatten)]
    pub dns: Dns,

    #[command(flatten)]
    #[serde(flatten)]
    pub proxy: Proxy,

    /// What to log, as in `info` or `info,agent=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "KEELSON_LOG")]
    pub log: Option<String>,
}

#[derive(Args)]
pub struct TokenArguments {
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it. It holds the hash of the cluster's authority, so a node that joins with it cannot be
    /// led to another cluster.
    Create {
        #[command(flatten)]
        server: TokenServer,
        /// How long it can be used, such as 90m, 24h or 7d; 0 is without end
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = crate::token::duration)]
        ttl: std::time::Duration,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Show the tokens there are, without their secrets.
    List {
        #[command(flatten)]
        server: TokenServer,
    },
    /// Delete tokens: nodes that joined stay, no others can join with them.
    Delete {
        #[command(flatten)]
        server: TokenServer,
        /// Ids, the part before the dot
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// Which cluster is meant.
#[derive(Args)]
pub struct TokenServer {
    /// Data directory of the server on this host [default: /var/lib/keelson]
    #[arg(long, value_name = "DIR", env = "KEELSON_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// An administrator's kubeconfig, instead of that server's own
    #[arg(long, value_name = "FILE", env = "KEELSON_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Args)]
pub struct Simulate {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub nodes: usize,
    /// Their names are this and a number
    #[arg(long, value_name = "TEXT", default_value = "simulated-")]
    pub prefix: String,
    /// Kubeconfig of the cluster, with administrator rights [default: /var/lib/keelson/admin.kubeconfig]
    #[arg(long, value_name = "FILE", env = "KEELSON_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// CPUs of each node
    #[arg(long, value_name = "QUANTITY", default_value = "8")]
    pub cpu: String,
    /// Memory of each node
    #[arg(long, value_name = "QUANTITY", default_value = "32Gi")]
    pub memory: String,
    /// Pods that fit on each node
    #[arg(long, value_name = "N", default_value = "110")]
    pub pods: String,
    /// From a binding to running containers
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub start_ms: u64,
    /// From running to ready
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub ready_ms: u64,
    /// From a deletion to the containers' end
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub stop_ms: u64,
    /// Between two renewals of a node's lease; the lease lasts four times as long
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub heartbeat_seconds: u64,
    /// What to log
    #[arg(long, value_name = "FILTER", env = "KEELSON_LOG", default_value = "info")]
    pub log: String,
}

#[derive(Args)]
pub struct Why {
    /// What to explain: KIND/NAME, or KIND NAME; kinds as kubectl knows them
    #[arg(value_name = "KIND/NAME", required = true, num_args = 1..=2)]
    pub object: Vec<String>,
    /// Namespace of the object [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Kubeconfig of the cluster [default: $KUBECONFIG, ~/.kube/config, or that of a server on this host]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: WhyForm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhyForm {
    Text,
    Json,
}

#[derive(Args)]
pub struct Kubeconfig {
    /// Data directory of the server [default: /var/lib/keelson]
    #[arg(long, value_name = "DIR", env = "KEELSON_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// URL to write into it [default: the address the server last listened on]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

#[derive(Args)]
pub struct Backup {
    /// File to write; replaced when all of the new backup has been written and read back
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub storage: Storage,
}

#[derive(Args)]
pub struct Restore {
    /// A backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub storage: Storage,
    /// Replace the store and the keys that are there; etcd must be empty all the same
    #[arg(long)]
    pub force: bool,
    /// Check the backup and the place it would go to, and tell; change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Where a cluster's state is; the same settings as those of `server`, also from its configuration file.
#[derive(Args)]
pub struct Storage {
    /// Configuration file of the server [default: /etc/keelson/config.yaml if it exists]
    #[arg(long, value_name = "FILE", env = "KEELSON_CONFIG")]
    pub config: Option<PathBuf>,
    /// Data directory of the server [default: /var/lib/keelson]
    #[arg(long, value_name = "DIR", env = "KEELSON_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the cluster's state is kept [default: embedded]
    #[arg(long, value_name = "KIND", env = "KEELSON_STORE")]
    pub store: Option<StoreKind>,
    /// etcd's client URLs
    #[arg(long, value_name = "URL", value_delimiter = ',', env = "KEELSON_ETCD_ENDPOINTS")]
    pub etcd_endpoints: Option<Vec<String>>,
    /// CA bundle that etcd's certificates are verified with
    #[arg(long, value_name = "FILE", env = "KEELSON_ETCD_CA_FILE")]
    pub etcd_ca_file: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long, value_name = "FILE", env = "KEELSON_ETCD_CERT_FILE")]
    pub etcd_cert_file: Option<PathBuf>,
    /// Key of the client certificate for etcd
    #[arg(long, value_name = "FILE", env = "KEELSON_ETCD_KEY_FILE")]
    pub etcd_key_file: Option<PathBuf>,
}

impl From<Storage> for Server {
    fn from(storage: Storage) -> Self {
        Self {
            config: storage.config,
            data_dir: storage.data_dir,
            store: storage.store,
            etcd_endpoints: storage.etcd_endpoints,
            etcd_ca_file: storage.etcd_ca_file,
            etcd_cert_file: storage.etcd_cert_file,
            etcd_key_file: storage.etcd_key_file,
            ..Self::default()
        }
    }
}

#[derive(Args)]
pub struct Image {
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Subcommand)]
pub enum ImageCommand {
    /// Import the images of archives (OCI layout or `docker save`, plain or gzip) into containerd.
    Import {
        #[command(flatten)]
        node: Node,
        /// Archive files
        #[arg(required = true, value_name = "FILE")]
        archives: Vec<PathBuf>,
    },
}

#[derive(Args)]
pub struct Controllers {
    #[command(subcommand)]
    pub command: ControllersCommand,
}

#[derive(Subcommand)]
pub enum ControllersCommand {
    /// Print which resources each controller reads (* marks those its keys name) and writes.
    Graph {
        /// How to print it
        #[arg(long, short, value_name = "FORM", default_value = "text")]
        output: GraphForm,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GraphForm {
    Text,
    /// For Graphviz, as in `keelson controllers graph -o dot | dot -Tsvg`.
    Dot,
}

#[derive(Args)]
pub struct Cleanup {
    #[command(flatten)]
    pub node: Node,
}

#[derive(Args)]
pub struct Install {
    #[command(subcommand)]
    pub role: InstallRole,
}

#[derive(Subcommand)]
pub enum InstallRole {
    /// A control plane and, unless --no-agent is given, a node.
    ///
    /// Copies this program to /usr/local/bin, writes the given settings to /etc/keelson/config.yaml (settings of an
    /// earlier installation stay unless given again), and enables and starts keelson-server.service.
    Server(Box<InstallServer>),
    /// A node of a cluster whose servers are elsewhere.
    ///
    /// The same with the settings of `keelson agent` and keelson-agent.service. The token is needed by the first
    /// installation only.
    Agent(Box<InstallAgent>),
}

#[derive(Args)]
pub struct InstallServer {
    #[command(flatten)]
    pub settings: Server,
    #[command(flatten)]
    pub installation: Installation,
}

#[derive(Args)]
pub struct InstallAgent {
    #[command(flatten)]
    pub settings: Agent,
    #[command(flatten)]
    pub installation: Installation,
}

#[derive(Args)]
pub struct Installation {
    /// Write and enable everything, start nothing
    #[arg(long)]
    pub no_start: bool,
    /// Install below DIR instead of /, to prepare the disk of another host; implies --no-start and checks nothing
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

#[derive(Args)]
pub struct Uninstall {
    /// Keep the cluster's state, keys and settings; a later `keelson install` goes on with them
    #[arg(long)]
    pub keep_data: bool,
    /// The installation is below DIR instead of /
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    #[command(flatten)]
    pub node: Node,
}

/// Which node of this host is meant.
#[derive(Args)]
pub struct Node {
    /// Data directory of the node [default: /var/lib/keelson]
    #[arg(long, value_name = "DIR", env = "KEELSON_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// containerd's socket [default: /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET", env = "KEELSON_CONTAINERD_ADDRESS")]
    pub containerd_address: Option<PathBuf>,
}

pub fn parse() -> Arguments {
    Arguments::parse()
}
