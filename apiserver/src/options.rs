//! What an API server is started with.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

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
        }
    }
}
