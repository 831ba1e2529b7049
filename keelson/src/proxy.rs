//! Settings of a node's service proxy, the same for every process that runs a node.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Upstream's ports and addresses of kube-proxy.
const DEFAULT_HEALTHZ: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);
const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// Where load balancers ask whether this node takes traffic, `/healthz` and `/livez`; `none` for nowhere
    /// [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDR:PORT", env = "KEELSON_PROXY_HEALTHZ_BIND_ADDRESS")]
    pub proxy_healthz_bind_address: Option<String>,

    /// Where the service proxy's `/metrics` are; `none` for nowhere [default: 127.0.0.1:10249]
    #[arg(long, value_name = "ADDR:PORT", env = "KEELSON_PROXY_METRICS_BIND_ADDRESS")]
    pub proxy_metrics_bind_address: Option<String>,
}

impl Proxy {
    /// Each setting of `self` where it is given, of `under` otherwise.
    pub fn over(self, under: Self) -> Self {
        Self {
            proxy_healthz_bind_address: self.proxy_healthz_bind_address.or(under.proxy_healthz_bind_address),
            proxy_metrics_bind_address: self.proxy_metrics_bind_address.or(under.proxy_metrics_bind_address),
        }
    }

    pub fn healthz(&self) -> Result<Option<SocketAddr>> {
        address("--proxy-healthz-bind-address", self.proxy_healthz_bind_address.as_deref(), DEFAULT_HEALTHZ)
    }

    pub fn metrics(&self) -> Result<Option<SocketAddr>> {
        address("--proxy-metrics-bind-address", self.proxy_metrics_bind_address.as_deref(), DEFAULT_METRICS)
    }
}

fn address(flag: &str, given: Option<&str>, default: SocketAddr) -> Result<Option<SocketAddr>> {
    match given {
        None => Ok(Some(default)),
        Some("none") => Ok(None),
        Some(text) => {
            let address = text.parse().with_context(|| format!("{flag} {text:?} is neither ADDR:PORT nor none"))?;
            Ok(Some(address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_upstreams_unless_told_otherwise() {
        let given = |text: &str| Proxy { proxy_healthz_bind_address: Some(text.to_owned()), ..Proxy::default() };
        assert_eq!(Proxy::default().healthz().unwrap(), Some("0.0.0.0:10256".parse().unwrap()));
        assert_eq!(Proxy::default().metrics().unwrap(), Some("127.0.0.1:10249".parse().unwrap()));
        assert_eq!(given("none").healthz().unwrap(), None);
        assert_eq!(given("[::]:1").over(given("none")).healthz().unwrap(), Some("[::]:1".parse().unwrap()));
        assert!(given("10256").healthz().unwrap_err().to_string().contains("--proxy-healthz-bind-address"));
    }
}
