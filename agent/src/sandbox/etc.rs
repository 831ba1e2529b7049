//! The files under `/etc` that all containers of a pod see: hosts, hostname and resolv.conf, as the kubelet writes them.
//! The texts are pure functions; `write` puts them in place.

use std::{fmt::Write, io, net::IpAddr};

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig, PodSpec};

use super::{Record, replace_file};
use crate::paths::Paths;

/// Longest host name the kernel and DNS labels allow.
const HOSTNAME_LENGTH_MAX: usize = 63;
/// What resolvers read: more name servers and search domains than these are ignored by them (kubelet's
/// `MaxDNSNameservers`, `MaxDNSSearchPaths`, `MaxDNSSearchListChars`).
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LENGTH_MAX: usize = 2048;

/// What pods are told about their node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub name: String,
    pub addresses: Vec<IpAddr>,
    pub cluster_domain: String,
    pub cluster_dns: Vec<IpAddr>,
}

/// The host's own name, which host-network pods keep.
fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The pod's host name: `spec.hostname` or its name, cut to what the kernel allows.
pub fn hostname(pod: &Pod, node: &Node) -> String {
    let Some(spec) = &pod.spec else { return String::new() };
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    if spec.host_network.unwrap_or(false) {
        return host_name();
    }
    let short = short_hostname(pod, spec);
    match domain(pod, spec, node) {
        Some(domain) if spec.set_hostname_as_fqdn.unwrap_or(false) => format!("{short}.{domain}"),
        _ => short,
    }
}

fn short_hostname(pod: &Pod, spec: &PodSpec) -> String {
    match spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => {
            let name: String =
                pod.metadata.name.as_deref().unwrap_or_default().chars().take(HOSTNAME_LENGTH_MAX).collect();
            name.trim_end_matches(['-', '.']).to_owned()
        }
    }
}

/// `SUBDOMAIN.NAMESPACE.svc.DOMAIN` of pods with a subdomain.
fn domain(pod: &Pod, spec: &PodSpec, node: &Node) -> Option<String> {
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Some(format!("{subdomain}.{namespace}.svc.{}", node.cluster_domain))
}

/// Writes the files of a sandbox. Its addresses must be known.
pub fn write(pod: &Pod, record: &Record, node: &Node, paths: &Paths) -> io::Result<()> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    let hosts = if spec.host_network.unwrap_or(false) {
        host_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
    } else {
        pod_hosts(&record.addresses, &short_hostname(pod, spec), domain(pod, spec, node).as_deref(), aliases)
    };
    let host_resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    replace_file(&paths.hosts(&record.uid), hosts.as_bytes())?;
    replace_file(&paths.hostname(&record.uid), format!("{}\n", record.hostname).as_bytes())?;
    replace_file(&paths.resolv_conf(&record.uid), resolver(spec, namespace, node, &host_resolver).as_bytes())
}

fn pod_hosts(addresses: &[IpAddr], hostname: &str, domain: Option<&str>, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        let names = match domain {
            Some(domain) => format!("{hostname}.{domain}\t{hostname}"),
            None => hostname.to_owned(),
        };
        writeln!(text, "{address}\t{names}").expect("writing to a string cannot fail");
    }
    text + &alias_lines(aliases)
}

fn host_hosts(host: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases.iter().map(|alias| {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        format!("{}\t{names}\n", alias.ip)
    });
    "\n# Entries added by HostAliases.\n".to_owned() + &lines.collect::<String>()
}

#[derive(Default)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let keyword = words.next();
            let words = words.map(str::to_owned).collect::<Vec<_>>();
            match keyword {
                Some("nameserver") => resolver.servers.extend(words.into_iter().next()),
                // The last search line counts, as in resolv.conf(5).
                Some("search" | "domain") => resolver.searches = words,
                Some("options") => resolver.options = words,
                _ => {}
            }
        }
        resolver
    }

    fn cluster(namespace: &str, node: &Node, host: Resolver) -> Self {
        let domain = &node.cluster_domain;
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        searches.extend(host.searches);
        Self {
            servers: node.cluster_dns.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    }

    fn add(&mut self, config: &PodDNSConfig) {
        let fresh = |list: &[String], more: &Option<Vec<String>>| {
            let mut all = list.to_vec();
            for item in more.iter().flatten() {
                if !all.contains(item) {
                    all.push(item.clone());
                }
            }
            all
        };
        self.servers = fresh(&self.servers, &config.nameservers);
        self.searches = fresh(&self.searches, &config.searches);
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let text = option.value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}"));
            // The pod's value replaces one of the same name.
            self.options.retain(|old| old.split(':').next() != Some(name));
            self.options.push(text);
        }
    }

    fn text(&self) -> String {
        let mut length = 0;
        let searches = self.searches.iter().take(SEARCHES_MAX).take_while(|search| {
            length += search.len() + 1;
            length <= SEARCH_LENGTH_MAX
        });
        let searches = searches.map(String::as_str).collect::<Vec<_>>();
        let mut text = String::new();
        if !searches.is_empty() {
            text += &format!("search {}\n", searches.join(" "));
        }
        text += &self
            .servers
            .iter()
            .take(NAMESERVERS_MAX)
            .map(|server| format!("nameserver {server}\n"))
            .collect::<String>();
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        text
    }
}

/// `resolv.conf` by `dnsPolicy` and `dnsConfig`. Without a cluster DNS the host's resolver serves cluster policies too.
fn resolver(spec: &PodSpec, namespace: &str, node: &Node, host: &str) -> String {
    let host = Resolver::parse(host);
    let cluster = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" => !spec.host_network.unwrap_or(false),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut resolver = match spec.dns_policy.as_deref() {
        Some("None") => Resolver::default(),
        _ if cluster && !node.cluster_dns.is_empty() => Resolver::cluster(namespace, node, host),
        _ => host,
    };
    if let Some(config) = &spec.dns_config {
        resolver.add(config);
    }
    resolver.text()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::{Node, hostname, pod_hosts, resolver};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec})).unwrap()
    }

    fn node() -> Node {
        Node {
            name: "n1".into(),
            addresses: vec!["192.168.1.2".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
        }
    }

    fn check_resolver(spec: Value, node: &Node, expected: Expect) {
        let pod = pod(spec);
        let host = "nameserver 1.1.1.1\nsearch example.com\noptions timeout:1\n";
        expected.assert_eq(&resolver(pod.spec.as_ref().unwrap(), "shop", node, host));
    }

    #[test]
    fn cluster_first_searches_the_namespace_and_then_the_hosts_domains() {
        check_resolver(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
            &node(),
            expect![[r"
                search shop.svc.cluster.local svc.cluster.local cluster.local example.com
                nameserver 10.96.0.10
                options ndots:2
            "]],
        );
    }

    #[test]
    fn without_cluster_dns_the_host_resolves() {
        let node = Node { cluster_dns: Vec::new(), ..node() };
        for spec in [json!({}), json!({"dnsPolicy": "Default"})] {
            check_resolver(
                spec,
                &node,
                expect![[r"
                    search example.com
                    nameserver 1.1.1.1
                    options timeout:1
                "]],
            );
        }
    }

    #[test]
    fn policy_none_takes_the_pods_own_only() {
        check_resolver(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["a.b"]}}),
            &node(),
            expect![[r"
                search a.b
                nameserver 9.9.9.9
            "]],
        );
    }

    #[test]
    fn hostnames_are_cut_and_carry_the_subdomain_when_asked() {
        assert_eq!(hostname(&pod(json!({})), &node()), "web-0");
        assert_eq!(hostname(&pod(json!({"hostname": "db"})), &node()), "db");
        assert_eq!(
            hostname(&pod(json!({"subdomain": "web", "setHostnameAsFQDN": true})), &node()),
            "web-0.web.shop.svc.cluster.local"
        );
        let mut long = pod(json!({}));
        long.metadata.name = Some(format!("{}-tail", "a".repeat(62)));
        assert_eq!(hostname(&long, &node()), "a".repeat(62));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let aliases = serde_json::from_value(json!([{"ip": "1.2.3.4", "hostnames": ["foo", "bar"]}])).unwrap();
        let aliases: Vec<_> = aliases;
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::0	ip6-localnet
            fe00::0	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.244.0.7	web-0.web.shop.svc.cluster.local	web-0

            # Entries added by HostAliases.
            1.2.3.4	foo	bar
        "#]]
        .assert_eq(&pod_hosts(&["10.244.0.7".parse().unwrap()], "web-0", Some("web.shop.svc.cluster.local"), &aliases));
    }
}
