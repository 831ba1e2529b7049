//! Settings of a node's DNS server about names outside the cluster, the same for every process that runs a node.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

const PORT: u16 = 53;

#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Name servers for everything outside the cluster, as ADDR or ADDR:PORT [default: those of the host]
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "KEELSON_DNS_SERVERS")]
    pub dns_servers: Option<Vec<String>>,

    /// Domains with name servers of their own, as DOMAIN=ADDR or DOMAIN=ADDR:PORT; a domain given again has several
    #[arg(long, value_name = "DOMAIN=ADDR", value_delimiter = ',', env = "KEELSON_DNS_STUB_DOMAINS")]
    pub dns_stub_domains: Option<Vec<String>>,
}

/// A domain and its servers.
pub type Stub = (String, Vec<SocketAddr>);

impl Dns {
    /// Each setting of `self` where it is given, of `under` otherwise.
    pub fn over(self, under: Self) -> Self {
        Self {
            dns_servers: self.dns_servers.or(under.dns_servers),
            dns_stub_domains: self.dns_stub_domains.or(under.dns_stub_domains),
        }
    }

    pub fn servers(&self) -> Result<Vec<SocketAddr>> {
        let given = self.dns_servers.iter().flatten();
        given.map(|text| server(text).with_context(|| format!("--dns-servers {text:?}"))).collect()
    }

    pub fn stub_domains(&self) -> Result<Vec<Stub>> {
        let mut stubs: Vec<Stub> = Vec::new();
        for text in self.dns_stub_domains.iter().flatten() {
            let wrong = || format!("--dns-stub-domains {text:?}");
            let (domain, address) =
                text.split_once('=').context("a domain is written DOMAIN=ADDR").with_context(wrong)?;
            let domain = domain.trim_end_matches('.').to_lowercase();
            crate::config::node_name(&domain)
                .map_err(|_| anyhow::anyhow!("{domain:?} is not a DNS name"))
                .with_context(wrong)?;
            let address = server(address).with_context(wrong)?;
            match stubs.iter_mut().find(|(name, _)| *name == domain) {
                Some((_, servers)) => servers.push(address),
                None => stubs.push((domain, vec![address])),
            }
        }
        Ok(stubs)
    }
}

fn server(text: &str) -> Result<SocketAddr> {
    let alone = text.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| SocketAddr::new(address, PORT));
    alone.or_else(|_| text.parse()).with_context(|| format!("{text:?} is neither an address nor ADDR:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stubs(texts: &[&str]) -> Result<Vec<Stub>> {
        let given = texts.iter().map(|text| (*text).to_owned()).collect();
        Dns { dns_stub_domains: Some(given), ..Dns::default() }.stub_domains()
    }

    #[test]
    fn a_domain_given_again_has_several_servers() {
        let read = stubs(&["Corp.example.=10.0.0.1", "lab=10.0.0.3:5353", "corp.example=[fd00::1]:54"]).unwrap();
        let read = read.iter().map(|(name, servers)| format!("{name} {servers:?}")).collect::<Vec<_>>();
        assert_eq!(read, ["corp.example [10.0.0.1:53, [fd00::1]:54]", "lab [10.0.0.3:5353]"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let problem = |text: &str| format!("{:#}", stubs(&[text]).unwrap_err());
        assert_eq!(problem("corp"), "--dns-stub-domains \"corp\": a domain is written DOMAIN=ADDR");
        assert!(problem("a b=10.0.0.1").contains("not a DNS name"));
        assert!(problem("corp=ns1").contains("neither an address nor ADDR:PORT"));
        let servers = Dns { dns_servers: Some(vec!["fd00::1".to_owned()]), ..Dns::default() }.servers().unwrap();
        assert_eq!(servers, ["[fd00::1]:53".parse::<SocketAddr>().unwrap()]);
    }
}
