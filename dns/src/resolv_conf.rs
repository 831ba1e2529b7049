//! The host's `resolv.conf`: which servers to ask about names outside the cluster, and which domains the host
//! searches. Pure.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::rr::Name;

const DNS_PORT: u16 = 53;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvConf {
    pub servers: Vec<SocketAddr>,
    pub searches: Vec<Name>,
}

impl ResolvConf {
    /// Lines that cannot be read are skipped, as resolvers do. `own` is where this server listens: asking itself
    /// would never end.
    pub fn parse(text: &str, own: IpAddr) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    found.servers.extend(address.filter(|a| *a != own).map(|a| SocketAddr::new(a, DNS_PORT)));
                }
                // The last line counts, as in resolv.conf(5).
                Some("search" | "domain") => found.searches = words.filter_map(absolute).collect(),
                _ => {}
            }
        }
        found
    }
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_searches_are_read_and_the_own_address_is_left_out() {
        let text = "# note\nsearch one.example\nnameserver 10.0.0.1\nnameserver 169.254.20.10\nnameserver fe80::1%eth0\n\
                    nameserver ::1\nsearch a.example b.example.\noptions ndots:2\n";
        let parsed = ResolvConf::parse(text, "169.254.20.10".parse().expect("an address"));
        let servers: Vec<String> = parsed.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53"]);
        let searches: Vec<String> = parsed.searches.iter().map(Name::to_ascii).collect();
        assert_eq!(searches, ["a.example.", "b.example."]);
    }
}
