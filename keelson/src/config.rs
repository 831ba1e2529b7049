//! Settings of a run: flags over environment over configuration file over defaults, checked as a whole before
//! anything is started. Flags and environment arrive merged in one [`Server`] value, as clap reads both.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use k8s_openapi::api::core::v1::Taint;
use serde::de::DeserializeOwned;

use crate::args::{Agent, Component, Server, StoreKind};
use crate::cluster::Given;
use crate::dns::Dns;
use crate::eviction::Eviction;
use crate::images::Images;
use crate::proxy::Proxy;

pub const DEFAULT_DATA_DIR: &str = "/var/lib/keelson";
pub const DEFAULT_CONTAINERD_ADDRESS: &str = "/run/containerd/containerd.sock";
const DEFAULT_FILE: &str = "/etc/keelson/config.yaml";
/// The tenth address of the default Service range, as everywhere.
pub const DEFAULT_CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const DEFAULT_POD_CIDR: &str = "10.244.0.0/16";
pub const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";
const DEFAULT_API_PORT: u16 = 6443;
/// The kubelet's port, which everything that talks to nodes expects.
/// Upstream's port of the controller-manager.
const DEFAULT_METRICS_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10257);
const DEFAULT_NODE_PORT: u16 = 10250;
/// Cluster DNS has the tenth address of the Service range, as kubeadm's default.
const DNS_OFFSET: u32 = 10;
/// For tests; nobody else should go below days.
const CERTIFICATE_LIFETIME_MIN: Duration = Duration::from_secs(10);
/// A configuration file larger than this is a mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the cluster's state is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Store {
    Embedded,
    Memory,
    Etcd(Etcd),
}

/// How etcd is reached; all files are PEM.
#[derive(Clone, Debug, PartialEq)]
pub struct Etcd {
    pub endpoints: Vec<String>,
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// What `keelson server` runs with; nothing is left to be decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub bind: SocketAddr,
    pub tls_san: Vec<String>,
    pub certificate_lifetime: Duration,
    pub write_kubeconfig: PathBuf,
    pub components: Vec<Component>,
    pub kubeconfig: Option<PathBuf>,
    pub scheduler_config: Option<PathBuf>,
    pub store: Store,
    pub containerd_address: PathBuf,
    pub node_name: Option<String>,
    pub node_ip: Option<IpAddr>,
    /// Of a process that runs controllers without the API server.
    pub metrics_bind: SocketAddr,
    pub node_port: u16,
    pub images: Images,
    pub eviction: Eviction,
    pub service_cidr: String,
    pub pod_cidr: String,
    /// Of pods' IPv6 addresses, where they have any.
    pub second_pod_cidr: Option<String>,
    pub node_port_addresses: Vec<api::cidr::Cidr>,
    pub load_balancer_addresses: reconciler::controllers::loadbalancer::Pool,
    pub cluster_domain: String,
    /// `None`: no DNS server is part of the nodes.
    pub cluster_dns: Option<Ipv4Addr>,
    pub dns: Dns,
    pub proxy: Proxy,
    pub log: String,
}

/// What `keelson agent` runs with; nothing is left to be decided.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSettings {
    pub servers: Vec<String>,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    pub data_dir: PathBuf,
    pub containerd_address: PathBuf,
    pub node_name: Option<String>,
    pub node_ip: Option<IpAddr>,
    pub node_port: u16,
    pub images: Images,
    pub eviction: Eviction,
    pub node_labels: Vec<(String, String)>,
    pub taints: Vec<Taint>,
    pub cluster: Given,
    pub node_port_addresses: Vec<api::cidr::Cidr>,
    pub dns: Dns,
    pub proxy: Proxy,
    pub log: String,
}

impl Settings {
    pub fn runs(&self, component: Component) -> bool {
        self.components.contains(&component)
    }

    /// The embedded store admits one server, so nobody competes with its controllers, and no lease is written.
    pub fn elects_leaders(&self) -> bool {
        !self.runs(Component::Apiserver) || matches!(self.store, Store::Etcd { .. })
    }

    /// This process among those that compete for a lease.
    pub fn identity(&self) -> String {
        let host = self.node_name.clone().unwrap_or_else(|| "keelson".to_owned());
        format!("{host}_{}", std::process::id())
    }
}

/// Reads the configuration file that applies and merges it under the given arguments.
pub fn load(arguments: Server) -> Result<Settings> {
    let file = file(arguments.config.as_deref(), DEFAULT_FILE)?;
    resolve(merge(arguments, file))
}

/// The same for an agent.
pub fn load_agent(arguments: Agent) -> Result<AgentSettings> {
    let file = file(arguments.config.as_deref(), DEFAULT_FILE)?;
    resolve_agent(merge_agent(arguments, file))
}

/// The settings in the file given, or in the default file where there is one.
fn file<T: Default + DeserializeOwned>(given: Option<&Path>, default: &str) -> Result<T> {
    match given {
        Some(path) => read(path),
        None => read_or_default(Path::new(default)),
    }
}

/// The settings of a file, none if there is no such file.
pub fn read_or_default<T: Default + DeserializeOwned>(path: &Path) -> Result<T> {
    if path.exists() { read(path) } else { Ok(T::default()) }
}

/// Settings as a configuration file that [`load`] reads back: those that are given, no others.
pub fn show(settings: &impl serde::Serialize) -> Result<String> {
    let mut value = serde_json::to_value(settings).context("write settings")?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && *value != serde_json::Value::Bool(false));
        if fields.is_empty() {
            return Ok("# No setting differs from its default; `keelson server --help` lists them all.\n".to_owned());
        }
    }
    serde_yaml::to_string(&value).context("write settings")
}

pub fn read<T: Default + DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_small(path, FILE_BYTES_MAX).context("configuration")?;
    parse(&text).with_context(|| format!("configuration {}", path.display()))
}

/// The text of a file that is small when it is the right one.
pub fn read_small(path: &Path, bytes_max: u64) -> Result<String> {
    let size = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    if size > bytes_max {
        bail!("{} has {size} bytes, the limit is {bytes_max}", path.display());
    }
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn parse<T: Default + DeserializeOwned>(text: &str) -> Result<T> {
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(T::default());
    }
    Ok(serde_yaml::from_str(text)?)
}

/// Each setting of `over` where it is given, of `under` otherwise.
pub fn merge(over: Server, under: Server) -> Server {
    Server {
        config: over.config,
        data_dir: over.data_dir.or(under.data_dir),
        bind: over.bind.or(under.bind),
        tls_san: over.tls_san.or(under.tls_san),
        certificate_lifetime: over.certificate_lifetime.or(under.certificate_lifetime),
        write_kubeconfig: over.write_kubeconfig.or(under.write_kubeconfig),
        no_agent: over.no_agent || under.no_agent,
        components: over.components.or(under.components),
        kubeconfig: over.kubeconfig.or(under.kubeconfig),
        scheduler_config: over.scheduler_config.or(under.scheduler_config),
        store: over.store.or(under.store),
        etcd_endpoints: over.etcd_endpoints.or(under.etcd_endpoints),
        etcd_ca_file: over.etcd_ca_file.or(under.etcd_ca_file),
        etcd_cert_file: over.etcd_cert_file.or(under.etcd_cert_file),
        etcd_key_file: over.etcd_key_file.or(under.etcd_key_file),
        metrics_bind: over.metrics_bind.or(under.metrics_bind),
        containerd_address: over.containerd_address.or(under.containerd_address),
        node_name: over.node_name.or(under.node_name),
        node_ip: over.node_ip.or(under.node_ip),
        node_port: over.node_port.or(under.node_port),
        images: over.images.over(under.images),
        eviction: over.eviction.over(under.eviction),
        service_cidr: over.service_cidr.or(under.service_cidr),
        pod_cidr: over.pod_cidr.or(under.pod_cidr),
        node_port_addresses: over.node_port_addresses.or(under.node_port_addresses),
        load_balancer_addresses: over.load_balancer_addresses.or(under.load_balancer_addresses),
        cluster_domain: over.cluster_domain.or(under.cluster_domain),
        cluster_dns: over.cluster_dns.or(under.cluster_dns),
        dns: over.dns.over(under.dns),
        proxy: over.proxy.over(under.proxy),
        log: over.log.or(under.log),
    }
}

pub fn merge_agent(over: Agent, under: Agent) -> Agent {
    // A token on the command line must not meet a token file of the configuration, nor the other way round.
    let (token, token_file) = match (over.token, over.token_file) {
        (None, None) => (under.token, under.token_file),
        given => given,
    };
    Agent {
        config: over.config,
        server: over.server.or(under.server),
        token,
        token_file,
        data_dir: over.data_dir.or(under.data_dir),
        containerd_address: over.containerd_address.or(under.containerd_address),
        node_name: over.node_name.or(under.node_name),
        node_ip: over.node_ip.or(under.node_ip),
        node_port: over.node_port.or(under.node_port),
        images: over.images.over(under.images),
        eviction: over.eviction.over(under.eviction),
        node_labels: over.node_labels.or(under.node_labels),
        register_with_taints: over.register_with_taints.or(under.register_with_taints),
        pod_cidr: over.pod_cidr.or(under.pod_cidr),
        node_port_addresses: over.node_port_addresses.or(under.node_port_addresses),
        cluster_domain: over.cluster_domain.or(under.cluster_domain),
        cluster_dns: over.cluster_dns.or(under.cluster_dns),
        dns: over.dns.over(under.dns),
        proxy: over.proxy.over(under.proxy),
        log: over.log.or(under.log),
    }
}

pub fn resolve_agent(given: Agent) -> Result<AgentSettings> {
    let data_dir = given.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let data_dir = std::path::absolute(&data_dir).with_context(|| format!("data directory {}", data_dir.display()))?;
    let servers = given.server.unwrap_or_default();
    if servers.is_empty() {
        bail!("no server is given: --server https://ADDRESS:6443 says where the cluster is");
    }
    if given.token.is_some() && given.token_file.is_some() {
        bail!("--token and --token-file are both given: one is enough");
    }
    let labels = given.node_labels.unwrap_or_default();
    let taints = given.register_with_taints.unwrap_or_default();
    let pod_cidrs_given = given.pod_cidr.as_deref().map(|cidrs| pod_cidrs(Some(cidrs))).transpose()?;
    Ok(AgentSettings {
        servers,
        token: given.token,
        token_file: given.token_file,
        data_dir,
        containerd_address: given.containerd_address.unwrap_or_else(|| DEFAULT_CONTAINERD_ADDRESS.into()),
        node_name: given.node_name.map(|n| node_name(&n)).transpose()?,
        node_ip: given.node_ip,
        node_port: given.node_port.unwrap_or(DEFAULT_NODE_PORT),
        images: given.images,
        eviction: given.eviction,
        node_labels: labels.iter().map(|text| label(text)).collect::<Result<_>>()?,
        taints: taints.iter().map(|text| taint(text)).collect::<Result<_>>()?,
        node_port_addresses: node_port_addresses(&given.node_port_addresses.unwrap_or_default())?,
        cluster: Given {
            pod_cidrs: pod_cidrs_given
                .map(|(first, second)| std::iter::once(first.to_string()).chain(second).collect()),
            domain: given.cluster_domain.map(|domain| cluster_domain(&domain)).transpose()?,
            dns: match given.cluster_dns.as_deref() {
                None => None,
                Some("none") => Some(None),
                Some(text) => {
                    let address = text.parse();
                    Some(Some(
                        address.with_context(|| {
                            format!("--cluster-dns {text:?} is neither an IPv4 address nor \"none\"")
                        })?,
                    ))
                }
            },
        },
        dns: given.dns,
        proxy: given.proxy,
        log: given.log.unwrap_or_else(|| "info".to_owned()),
    })
}

fn lifetime(text: &str) -> Result<Duration> {
    let lifetime = crate::token::duration(text);
    let lifetime = lifetime.map_err(|problem| anyhow::anyhow!("--certificate-lifetime: {problem}"))?;
    if lifetime < CERTIFICATE_LIFETIME_MIN {
        bail!(
            "--certificate-lifetime {text}: at least {} s are needed to renew in time",
            CERTIFICATE_LIFETIME_MIN.as_secs()
        );
    }
    Ok(lifetime)
}

fn label(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let mut problems = api::name::qualified_name(key);
    problems.extend(api::name::label_value(value));
    if !problems.is_empty() {
        bail!("--node-labels {text:?}: {}", problems.join("; "));
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let parsed = text.rsplit_once(':').filter(|(_, effect)| EFFECTS.contains(effect));
    let Some((key_value, effect)) = parsed else {
        bail!(
            "--register-with-taints {text:?}: a taint is written KEY[=VALUE]:EFFECT with one of {}",
            EFFECTS.join(", ")
        );
    };
    let (key, value) = key_value.split_once('=').unwrap_or((key_value, ""));
    let mut problems = api::name::qualified_name(key);
    problems.extend(api::name::label_value(value));
    if !problems.is_empty() {
        bail!("--register-with-taints {text:?}: {}", problems.join("; "));
    }
    let value = Some(value.to_owned()).filter(|value| !value.is_empty());
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

pub fn resolve(given: Server) -> Result<Settings> {
    let data_dir = given.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let data_dir = std::path::absolute(&data_dir).with_context(|| format!("data directory {}", data_dir.display()))?;
    let mut components = given
        .components
        .unwrap_or_else(|| vec![Component::Apiserver, Component::Controllers, Component::Scheduler, Component::Agent]);
    if given.no_agent {
        components.retain(|c| *c != Component::Agent);
    }
    if components.is_empty() {
        bail!("no component is left to run: --components is empty or names only the agent, and --no-agent is given");
    }
    let has_api = components.contains(&Component::Apiserver);
    if !has_api && given.kubeconfig.is_none() {
        bail!("without apiserver among --components, --kubeconfig must say how to reach an API server");
    }
    if has_api && given.kubeconfig.is_some() {
        bail!("--kubeconfig is for runs without apiserver among --components; this run has its own API server");
    }
    let store = resolve_store(
        given.store,
        given.etcd_endpoints.unwrap_or_default(),
        given.etcd_ca_file,
        given.etcd_cert_file,
        given.etcd_key_file,
    )?;
    let service_cidr = range("--service-cidr", given.service_cidr.as_deref().unwrap_or("10.96.0.0/16"), 12..=28)?;
    let (pod_cidr, second_pod_cidr) = pod_cidrs(given.pod_cidr.as_deref())?;
    if service_cidr.overlaps(pod_cidr) {
        bail!("--service-cidr {service_cidr} and --pod-cidr {pod_cidr} overlap: an address must mean one thing");
    }
    Ok(Settings {
        write_kubeconfig: given.write_kubeconfig.unwrap_or_else(|| data_dir.join("admin.kubeconfig")),
        bind: given.bind.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, DEFAULT_API_PORT).into()),
        tls_san: given.tls_san.unwrap_or_default(),
        certificate_lifetime: lifetime(given.certificate_lifetime.as_deref().unwrap_or("365d"))?,
        components,
        kubeconfig: given.kubeconfig,
        scheduler_config: given.scheduler_config,
        store,
        containerd_address: given.containerd_address.unwrap_or_else(|| DEFAULT_CONTAINERD_ADDRESS.into()),
        node_name: given.node_name.map(|n| node_name(&n)).transpose()?,
        node_ip: given.node_ip,
        metrics_bind: given.metrics_bind.unwrap_or(DEFAULT_METRICS_BIND),
        node_port: given.node_port.unwrap_or(DEFAULT_NODE_PORT),
        images: given.images,
        eviction: given.eviction,
        cluster_domain: cluster_domain(given.cluster_domain.as_deref().unwrap_or(DEFAULT_CLUSTER_DOMAIN))?,
        cluster_dns: cluster_dns(given.cluster_dns.as_deref(), service_cidr)?,
        service_cidr: service_cidr.to_string(),
        pod_cidr: pod_cidr.to_string(),
        second_pod_cidr,
        dns: given.dns,
        proxy: given.proxy,
        node_port_addresses: node_port_addresses(&given.node_port_addresses.unwrap_or_default())?,
        load_balancer_addresses: given.load_balancer_addresses.as_deref().unwrap_or_default().try_into()?,
        log: given.log.unwrap_or_else(|| "info".to_owned()),
        data_dir,
    })
}

fn node_port_addresses(given: &[String]) -> Result<Vec<api::cidr::Cidr>> {
    let range = |text: &String| {
        api::cidr::Cidr::parse(text)
            .with_context(|| format!("--node-port-addresses {text:?} is no range such as 192.0.2.0/24"))
    };
    given.iter().map(range).collect()
}

fn resolve_store(
    kind: Option<StoreKind>,
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Store> {
    let has_etcd_settings = !endpoints.is_empty() || ca.is_some() || certificate.is_some() || key.is_some();
    match kind {
        Some(StoreKind::Etcd) if endpoints.is_empty() => bail!("--store etcd needs --etcd-endpoints"),
        Some(StoreKind::Etcd) if certificate.is_some() != key.is_some() => {
            bail!("--etcd-cert-file and --etcd-key-file go together")
        }
        Some(StoreKind::Etcd) => Ok(Store::Etcd(Etcd { endpoints, ca, certificate, key })),
        Some(StoreKind::Embedded | StoreKind::Memory) | None if has_etcd_settings => {
            bail!("--etcd-* settings are given, but the store is not etcd: add --store etcd")
        }
        Some(StoreKind::Memory) => Ok(Store::Memory),
        Some(StoreKind::Embedded) | None => Ok(Store::Embedded),
    }
}

/// A node's name is a DNS-1123 subdomain; host names are lowered as the kubelet does (`nodeutil.GetHostname`).
pub fn node_name(name: &str) -> Result<String> {
    let name = name.trim().to_lowercase();
    let good = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    if !good {
        bail!("node name {name:?} is not a DNS name (lower case letters, digits, '-' and '.'): give --node-name");
    }
    Ok(name)
}

/// One range, or one of each address family with a comma between; the one of version 6 is the second.
fn pod_cidrs(given: Option<&str>) -> Result<(Range, Option<String>)> {
    /// Each node gets a /64 of it (upstream's `--node-cidr-mask-size-ipv6`).
    const V6_PREFIXES: std::ops::RangeInclusive<u8> = 48..=64;
    let given = given.unwrap_or(DEFAULT_POD_CIDR);
    let Some((first, second)) = given.split_once(',') else { return Ok((range("--pod-cidr", given, 8..=24)?, None)) };
    let wrong = || format!("--pod-cidr {second:?} is no IPv6 range: the second one is for pods' IPv6 addresses");
    let (address, prefix) = second.split_once('/').with_context(wrong)?;
    let address: std::net::Ipv6Addr = address.parse().with_context(wrong)?;
    let prefix: u8 = prefix.parse().with_context(wrong)?;
    if !V6_PREFIXES.contains(&prefix) || address.to_bits() << prefix != 0 {
        bail!("--pod-cidr {second}: an IPv6 range for pods has a prefix of 48 to 64 bits and zeros behind it");
    }
    Ok((range("--pod-cidr", first, 8..=24)?, Some(format!("{address}/{prefix}"))))
}

fn cluster_domain(domain: &str) -> Result<String> {
    let domain = domain.trim_end_matches('.').to_lowercase();
    node_name(&domain).map_err(|_| anyhow::anyhow!("--cluster-domain {domain:?} is not a DNS name"))
}

fn cluster_dns(given: Option<&str>, services: Range) -> Result<Option<Ipv4Addr>> {
    let Some(given) = given else { return Ok(Some(Ipv4Addr::from(u32::from(services.network) + DNS_OFFSET))) };
    if given == "none" {
        return Ok(None);
    }
    match given.parse() {
        Ok(address) if mask(address, services.prefix) == services.network => Ok(Some(address)),
        Ok(address) => bail!("--cluster-dns {address} is not in the Service range {services}"),
        Err(_) => bail!("--cluster-dns {given:?} is neither an IPv4 address nor \"none\""),
    }
}

/// An IPv4 range in its canonical form.
#[derive(Clone, Copy)]
struct Range {
    network: Ipv4Addr,
    prefix: u32,
}

impl Range {
    fn overlaps(self, other: Range) -> bool {
        let wider = self.prefix.min(other.prefix);
        mask(self.network, wider) == mask(other.network, wider)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn mask(address: Ipv4Addr, prefix: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & (u32::MAX << (32 - prefix)))
}

/// A range with a prefix length that leaves room for what it is for.
fn range(flag: &str, text: &str, prefixes: std::ops::RangeInclusive<u32>) -> Result<Range> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, prefix)| Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u32>().ok()?)));
    let Some((address, prefix)) = parsed else {
        bail!("{flag} {text:?} is not an IPv4 range such as 10.96.0.0/16");
    };
    if !prefixes.contains(&prefix) {
        bail!("{flag} {text}: the prefix length must be between {} and {}", prefixes.start(), prefixes.end());
    }
    let network = mask(address, prefix);
    if network != address {
        bail!("{flag} {text} has bits set after the prefix: did you mean {network}/{prefix}?");
    }
    Ok(Range { network, prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Server {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            server: Server,
        }
        let all = ["keelson"].iter().chain(args);
        <Only as clap::Parser>::try_parse_from(all).expect("flags parse").server
    }

    fn error(args: &[&str]) -> String {
        format!("{:#}", resolve(flags(args)).expect_err("settings are refused"))
    }

    #[test]
    fn defaults_run_everything_on_the_embedded_store() {
        let settings = resolve(Server::default()).expect("defaults are good");
        assert_eq!(settings.components.len(), 4);
        assert_eq!(settings.store, Store::Embedded);
        assert_eq!(settings.bind.to_string(), "0.0.0.0:6443");
        assert_eq!(settings.cluster_dns, Some(Ipv4Addr::new(10, 96, 0, 10)));
        assert_eq!(settings.write_kubeconfig, Path::new("/var/lib/keelson/admin.kubeconfig"));
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = parse("nodeName: from-file\npodCidr: 10.1.0.0/16\ncomponents: [apiserver]\n").expect("file parses");
        let settings = resolve(merge(flags(&["--node-name", "Flag"]), file)).expect("settings are good");
        assert_eq!(settings.node_name.as_deref(), Some("flag"));
        assert_eq!(settings.pod_cidr, "10.1.0.0/16");
        assert_eq!(settings.components, [Component::Apiserver]);
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = format!("{:#}", parse::<Server>("nodeNam: x\n").expect_err("unknown setting"));
        assert!(unknown.contains("nodeNam"), "{unknown}");
        assert!(error(&["--store", "etcd"]).contains("--etcd-endpoints"));
        assert!(error(&["--etcd-endpoints", "http://a:2379"]).contains("--store etcd"));
        assert!(error(&["--components", "scheduler"]).contains("--kubeconfig"));
        assert!(error(&["--components", "agent", "--no-agent"]).contains("no component"));
        assert!(error(&["--pod-cidr", "10.0.0.1/16"]).contains("did you mean 10.0.0.0/16"));
        assert!(error(&["--pod-cidr", "10.0.0.0/30"]).contains("between 8 and 24"));
        assert!(error(&["--service-cidr", "ten"]).contains("not an IPv4 range"));
        assert!(error(&["--node-name", "a_b"]).contains("DNS name"));
        assert!(error(&["--cluster-dns", "10.97.0.10"]).contains("not in the Service range 10.96.0.0/16"));
        assert!(error(&["--cluster-dns", "ten"]).contains("neither"));
        assert!(error(&["--cluster-domain", "a_b"]).contains("not a DNS name"));
        let overlap = error(&["--pod-cidr", "10.96.0.0/12"]);
        assert!(overlap.contains("--service-cidr 10.96.0.0/16 and --pod-cidr 10.96.0.0/12 overlap"), "{overlap}");
        assert!(error(&["--service-cidr", "10.244.3.0/24"]).contains("overlap"));
    }

    #[test]
    fn a_written_file_is_read_back() {
        let given = flags(&["--bind", "[::1]:7443", "--components", "apiserver,agent", "--store", "embedded"]);
        let text = show(&given).expect("shown");
        assert_eq!(parse::<Server>(&text).expect("parses"), given, "{text}");
        let nothing = show(&Server::default()).expect("shown");
        assert_eq!(parse::<Server>(&nothing).expect("parses"), Server::default(), "{nothing}");
    }

    #[test]
    fn an_empty_file_is_no_settings() {
        assert_eq!(parse::<Server>("# nothing yet\n\n").expect("parses"), Server::default());
    }
}
