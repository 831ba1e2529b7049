//! Kernel settings that Services need.

use tracing::warn;

const IPV4: &[&str] = &["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/bridge/bridge-nf-call-iptables"];
const IPV6: &[&str] = &["/proc/sys/net/ipv6/conf/all/forwarding", "/proc/sys/net/bridge/bridge-nf-call-ip6tables"];
/// Lets packets from 127.0.0.1 leave the host, once they were translated.
const ROUTE_LOCALNET: &str = "/proc/sys/net/ipv4/conf/all/route_localnet";

/// Forwarding between interfaces, and netfilter's view of bridged packets: without the latter a pod's answer to a
/// neighbour on the same bridge would not be translated back to the Service's address.
pub fn prepare(ipv6: bool, localhost_node_ports: bool) {
    if !std::path::Path::new(IPV4[1]).exists()
        && let Err(error) = std::process::Command::new("modprobe").arg("br_netfilter").status()
    {
        warn!(%error, "loading the kernel module br_netfilter failed");
    }
    IPV4.iter().for_each(|path| turn_on(path));
    if ipv6 {
        IPV6.iter().for_each(|path| turn_on(path));
    }
    if localhost_node_ports {
        turn_on(ROUTE_LOCALNET);
    }
}

fn turn_on(path: &str) {
    if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
        return;
    }
    if let Err(error) = std::fs::write(path, "1") {
        warn!(path, %error, "setting a kernel parameter that Services need failed");
    }
}
