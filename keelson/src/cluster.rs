//! What a node must know of the cluster as a whole. Its servers tell those that join, in a ConfigMap; a node keeps what
//! it was told on disk, so that it starts again while no server can be reached.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api_client::{Backoff, Client, ObjectKey};
use k8s_openapi::api::core::v1::ConfigMap;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{self, Settings};
use crate::dns::Dns;
use crate::proxy::Proxy;

/// Written by the API server (`apiserver::Options::told_to_nodes`).
const TOLD: (&str, &str) = ("kube-system", "keelson-cluster");
const POD_CIDR: &str = "podCIDR";
const SERVICE_CIDR: &str = "serviceCIDR";
const DOMAIN: &str = "clusterDomain";
const DNS: &str = "clusterDNS";
/// Of `clusterDNS`: the cluster brings its own.
const NO_DNS: &str = "none";

/// How long one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// A server of Keelson has the ConfigMap before it answers; so often without it, the servers are somebody else's.
const ABSENT_MAX: u32 = 3;
/// A handful of short settings.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Of both families, where pods have two.
    pub pod_cidrs: Vec<String>,
    pub domain: String,
    /// `None`: no DNS server is part of the nodes.
    pub dns: Option<Ipv4Addr>,
    /// Where this node's DNS server asks for other names; a setting of the node.
    pub names: Dns,
    /// Addresses of nodes that answer on node ports; all when there are none. A setting of the node.
    pub node_ports: Vec<api::cidr::Cidr>,
    /// Where this node's service proxy tells about itself.
    pub proxy: Proxy,
}

/// What the operator says instead of the servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    pub pod_cidrs: Option<Vec<String>>,
    pub domain: Option<String>,
    pub dns: Option<Option<Ipv4Addr>>,
}

/// What the servers of a cluster with these settings tell.
pub fn told(settings: &Settings) -> BTreeMap<String, String> {
    let cidrs: Vec<&str> =
        std::iter::once(&settings.pod_cidr).chain(&settings.second_pod_cidr).map(String::as_str).collect();
    let dns = settings.cluster_dns.map_or_else(|| NO_DNS.to_owned(), |address| address.to_string());
    [
        (POD_CIDR, cidrs.join(",")),
        (SERVICE_CIDR, settings.service_cidr.clone()),
        (DOMAIN, settings.cluster_domain.clone()),
        (DNS, dns),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Asks the servers; `None` when the process is to stop.
pub async fn learn(
    client: &Client,
    data_dir: &Path,
    given: &Given,
    asked: &CancellationToken,
) -> Result<Option<Cluster>> {
    if matches!(given, Given { pod_cidrs: Some(_), domain: Some(_), dns: Some(_) }) {
        return resolve(&BTreeMap::new(), given).map(Some);
    }
    match asked.run_until_cancelled(ask(client, &file(data_dir))).await {
        Some(told) => resolve(&told?, given).map(Some),
        None => Ok(None),
    }
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster.json")
}

/// What the servers tell, or what they told before if they don't answer.
async fn ask(client: &Client, file: &Path) -> Result<BTreeMap<String, String>> {
    let kept = kept(file)?;
    let (maps, key) = (client.api::<ConfigMap>(), ObjectKey::new(TOLD.0, TOLD.1));
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    let mut absent = 0;
    loop {
        let trouble = match tokio::time::timeout(ANSWER_WITHIN, maps.find(&key)).await {
            Ok(Ok(Some(map))) => {
                let told = map.data.unwrap_or_default();
                if kept.as_ref() != Some(&told) {
                    keep(file, &told)?;
                }
                return Ok(told);
            }
            Ok(Ok(None)) if absent == ABSENT_MAX => {
                warn!(
                    "the cluster's servers do not tell nodes its settings: the defaults and flags of this node count"
                );
                return Ok(BTreeMap::new());
            }
            Ok(Ok(None)) => {
                absent += 1;
                format!("ConfigMap {}/{} is not there", TOLD.0, TOLD.1)
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ANSWER_WITHIN:?}"),
        };
        if let Some(kept) = kept.as_ref().filter(|_| absent == 0) {
            warn!("the cluster's settings are those that its servers told before: {trouble}");
            return Ok(kept.clone());
        }
        warn!("the cluster's settings are not known yet, asking again: {trouble}");
        tokio::time::sleep(backoff.next(rand::random())).await;
    }
}

/// An unreadable file is as good as none: it is written again.
fn kept(file: &Path) -> Result<Option<BTreeMap<String, String>>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = config::read_small(file, FILE_BYTES_MAX)?;
    Ok(serde_json::from_str(&text).inspect_err(|error| warn!(file = %file.display(), %error, "ignored")).ok())
}

fn keep(file: &Path, told: &BTreeMap<String, String>) -> Result<()> {
    let fresh = file.with_extension("new");
    let text = serde_json::to_string(told).context("write the cluster's settings")?;
    std::fs::write(&fresh, text).with_context(|| format!("write {}", fresh.display()))?;
    std::fs::rename(&fresh, file).with_context(|| format!("replace {}", file.display()))
}

fn resolve(told: &BTreeMap<String, String>, given: &Given) -> Result<Cluster> {
    let text = |name: &str, default: &str| told.get(name).map_or_else(|| default.to_owned(), String::clone);
    let dns = match (given.dns, told.get(DNS).map(String::as_str)) {
        (Some(given), _) => given,
        (None, None) => Some(config::DEFAULT_CLUSTER_DNS),
        (None, Some(NO_DNS)) => None,
        (None, Some(text)) => match text.parse() {
            Ok(address) => Some(address),
            Err(_) => bail!("the cluster tells {text:?} as the address of its DNS; --cluster-dns says another"),
        },
    };
    let told_cidrs = || text(POD_CIDR, config::DEFAULT_POD_CIDR).split(',').map(str::to_owned).collect();
    let pod_cidrs = given.pod_cidrs.clone().unwrap_or_else(told_cidrs);
    let domain = given.domain.clone().unwrap_or_else(|| text(DOMAIN, config::DEFAULT_CLUSTER_DOMAIN));
    Ok(Cluster { pod_cidrs, domain, dns, names: Dns::default(), node_ports: Vec::new(), proxy: Proxy::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_says_counts_then_what_the_servers_told() {
        let told = [(POD_CIDR, "10.7.0.0/16"), (DOMAIN, "example.test"), (DNS, "10.8.0.10")];
        let told: BTreeMap<_, _> = told.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let cluster = resolve(&told, &Given::default()).expect("good");
        assert_eq!((&*cluster.pod_cidrs[0], &*cluster.domain), ("10.7.0.0/16", "example.test"));
        assert_eq!(cluster.dns, Some(Ipv4Addr::new(10, 8, 0, 10)));
        let given = Given { dns: Some(None), domain: Some("own.test".to_owned()), pod_cidrs: None };
        let cluster = resolve(&told, &given).expect("good");
        assert_eq!((&*cluster.pod_cidrs[0], &*cluster.domain, cluster.dns), ("10.7.0.0/16", "own.test", None));
        let defaults = resolve(&BTreeMap::new(), &Given::default()).expect("good");
        assert_eq!((&*defaults.domain, defaults.dns), ("cluster.local", Some(config::DEFAULT_CLUSTER_DNS)));
        resolve(&[(DNS.to_owned(), "x".to_owned())].into(), &Given::default()).expect_err("no address");
    }

    #[test]
    fn what_was_told_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = file(directory.path());
        assert_eq!(kept(&file).expect("readable"), None);
        let told = BTreeMap::from([(DNS.to_owned(), NO_DNS.to_owned())]);
        keep(&file, &told).expect("written");
        assert_eq!(kept(&file).expect("readable"), Some(told));
        std::fs::write(&file, "{").expect("written");
        assert_eq!(kept(&file).expect("readable"), None, "cut off by a full disk, perhaps");
    }
}
