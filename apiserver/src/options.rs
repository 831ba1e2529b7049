//! What an API server is started with.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::bootstrap::host_address;
use crate::metrics::Sources;
use crate::pki;
use crate::service::Range;

#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the TLS listener.
    pub bind: SocketAddr,
    /// Holds `pki/` (certificate authorities, service account keys; made on first start).
    pub data_dir: PathBuf,
    /// Cluster IPs of Services, such as `10.96.0.0/16`.
    pub service_cidr: String,
    /// The address under which others reach this server (the `kubernetes` Service's endpoint); the host's first
    /// non-loopback address when unset.
    pub advertise_address: Option<IpAddr>,
    /// Requests without credentials become `system:anonymous` instead of 401.
    pub allow_anonymous: bool,
    /// Further names and addresses for the serving certificate.
    pub serving_names: Vec<String>,
    /// How long certificates last; a year when unset.
    pub certificate_lifetime: Option<Duration>,
    /// DNS domain of the cluster; part of the token issuer's name.
    pub cluster_domain: String,
    /// Keys and certificates; see [`Options::load_identity`]. Without, the server makes keys that end with the process.
    pub identity: Option<Arc<pki::Cluster>>,
    /// What nodes that join must know of the cluster as a whole, told to them in the ConfigMap
    /// `kube-system/keelson-cluster`. Nothing is told when empty.
    pub told_to_nodes: BTreeMap<String, String>,
    /// Create namespaces, default roles and the like at start.
    pub bootstrap: bool,
    /// Serve `metrics.k8s.io` from what nodes tell.
    pub resource_metrics: bool,
    /// Figures of other parts of the process, served with the server's own.
    pub metrics: Sources,
}

impl Options {
    /// Reads `data_dir/pki`, or makes it, for the names and addresses these options bring up.
    pub fn load_identity(&mut self) -> Result<Arc<pki::Cluster>, pki::Error> {
        let cluster = pki::Cluster::load_or_create(&self.data_dir.join("pki"), &self.names(), Timestamp::now())?;
        let cluster = Arc::new(cluster);
        self.identity = Some(Arc::clone(&cluster));
        Ok(cluster)
    }

    /// Names and addresses of the serving certificate.
    pub fn names(&self) -> pki::Names {
        let advertised = self.advertise_address.unwrap_or_else(host_address);
        let mut extra = self.serving_names.clone();
        extra.push(advertised.to_string());
        if !self.bind.ip().is_unspecified() {
            extra.push(self.bind.ip().to_string());
        }
        extra.extend(hostname());
        let service_address = Range::parse(&self.service_cidr).ok().and_then(|range| range.address(1));
        pki::Names {
            cluster_domain: self.cluster_domain.clone(),
            service_address,
            extra,
            lifetime: self.certificate_lifetime,
        }
    }

    /// The `iss` of service account tokens, and their default audience.
    pub fn token_issuer(&self) -> String {
        format!("https://kubernetes.default.svc.{}", self.cluster_domain)
    }
}

/// The host's name as the kernel has it; none when it cannot be read or is no DNS name.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_ascii_lowercase();
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    fits.then_some(name)
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 6443)),
            data_dir: PathBuf::from("/var/lib/keelson"),
            service_cidr: "10.96.0.0/16".to_owned(),
            advertise_address: None,
            allow_anonymous: true,
            serving_names: Vec::new(),
            certificate_lifetime: None,
            cluster_domain: "cluster.local".to_owned(),
            identity: None,
            told_to_nodes: BTreeMap::new(),
            bootstrap: true,
            resource_metrics: true,
            metrics: Sources::default(),
        }
    }
}
