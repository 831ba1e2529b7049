//! Pods and Services across hosts.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use tests::host::OUTSIDE;
use tests::hosts::{Hosts, Member};
use tests::wait;

use crate::LIMIT;
use crate::faults::undisturbed;
use crate::workload::{self, LARGE_BYTES, NODE_PORT, Server, asked, ready, service_address, sleeper};

const PORT: u16 = 8080;

fn address_of(hosts: &Hosts, pod: &str) -> Result<IpAddr> {
    let pod = hosts.get(&["pod", pod])?;
    Ok(pod["status"]["podIP"].as_str().context("an address")?.parse()?)
}

/// A pod of each node asks a web server of the other, which sees the pod's own address.
pub fn pods_reach_pods(hosts: &mut Hosts) -> Result<()> {
    for (here, there) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
        let server = server_of(hosts, there)?;
        let pod = format!("once-{}", here.name());
        let url = format!("http://{}:{PORT}/cgi-bin/who", server.address);
        hosts.apply(&sleeper(
            &pod,
            here.name(),
            &["/bin/sh", "-c", &format!("timeout 5 wget -q -O - {url}; sleep 1000")],
        ))?;
        let answer = wait::until(&format!("an answer across from {}", here.name()), LIMIT, || {
            let output = workload::output(here, &pod)?;
            Ok(output.lines().next().map(str::to_owned))
        })?;
        let own = address_of(hosts, &pod)?;
        ensure!(sees(&answer, own), "a pod at {own} was seen as {answer:?}");
        // The host itself reaches them too.
        here.get(SocketAddr::new(server.address, PORT), "/")?;
    }
    hosts.kubectl(&["delete", "pods", "once-a", "once-b", "--wait=false"]).map(drop)
}

/// Whether the web server that gave this answer has seen this address.
fn sees(answer: &str, address: IpAddr) -> bool {
    let seen = answer.split(' ').nth(1).unwrap_or_default().trim_matches(['[', ']']);
    seen.trim_start_matches("::ffff:") == address.to_string()
}

fn server_of(hosts: &Hosts, member: &Member) -> Result<Server> {
    let servers = ready(hosts)?;
    servers
        .into_values()
        .find(|server| server.node == member.name())
        .with_context(|| format!("none on {}", member.name()))
}

/// Every replica answers, whoever asks: hosts by the cluster address and the port of either node, and pods.
pub fn services_work_everywhere(hosts: &mut Hosts) -> Result<()> {
    let pods = ready(hosts)?.into_keys().collect::<BTreeSet<_>>();
    let mut addresses = vec![service_address(hosts)?];
    for member in hosts.members() {
        addresses.push(SocketAddr::new(member.address.parse()?, NODE_PORT));
    }
    for member in hosts.members() {
        for address in &addresses {
            wait::until(&format!("every replica to answer {} at {address}", member.name()), LIMIT, || {
                let mut answered = BTreeSet::new();
                for _ in 0..pods.len() * 10 {
                    let body = member.get(*address, "/cgi-bin/who")?;
                    answered.extend(body.split(' ').next().map(str::to_owned));
                }
                ensure!(answered == pods, "{answered:?} of {pods:?}");
                Ok(Some(()))
            })?;
        }
        // From outside the cluster, by the node's port.
        let address = SocketAddr::new(member.address.parse()?, NODE_PORT);
        hosts.lan.switch.within(|| tests::http::get(address))?;
        wait::until("every replica to answer a pod", LIMIT, || {
            let output = asked(member)?;
            let answered = output.lines().filter_map(|line| line.split(' ').next()).collect::<BTreeSet<_>>();
            Ok(pods.iter().all(|pod| answered.contains(pod.as_str())).then_some(()))
        })?;
        let (own, output) = (address_of(hosts, &format!("ask-{}", member.name()))?, asked(member)?);
        let foreign = output.lines().find(|line| !sees(line, own));
        ensure!(foreign.is_none(), "the pod at {own} was seen as {foreign:?}");
    }
    Ok(())
}

/// Cluster DNS under the domain and at the address that only the server was given.
pub fn names_are_found(hosts: &mut Hosts) -> Result<()> {
    let address = service_address(hosts)?;
    for member in hosts.members() {
        let pod = format!("ask-{}", member.name());
        let lookup = ["exec", &pod, "--", "/bin/busybox", "nslookup", "who.default.svc.hosts.test"];
        wait::until(&format!("a name to be found on {}", member.name()), LIMIT, || {
            let found = hosts.kubectl(&lookup)?;
            ensure!(found.contains("10.202.0.10") && found.contains(&address.ip().to_string()), "{found}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// What pods send out of the cluster has the node's address; nobody outside knows the way to a pod.
pub fn pods_masquerade_outside(hosts: &mut Hosts) -> Result<()> {
    let listener = hosts.lan.switch.within(|| Ok(std::net::TcpListener::bind((OUTSIDE, PORT))?))?;
    listener.set_nonblocking(true)?;
    for member in hosts.members() {
        let pod = format!("out-{}", member.name());
        let ask = format!("timeout 5 wget -q -O - http://{OUTSIDE}:{PORT}/; sleep 1000");
        hosts.apply(&sleeper(&pod, member.name(), &["/bin/sh", "-c", &ask]))?;
        let (_connection, peer) = wait::until(&format!("a request of {pod}"), LIMIT, || Ok(Some(listener.accept()?)))?;
        ensure!(peer.ip().to_string() == member.address, "a pod of {} was seen as {peer}", member.name());
    }
    hosts.kubectl(&["delete", "pods", "out-a", "out-b", "--wait=false"]).map(drop)
}

/// Packets as large as links carry arrive too.
pub fn large_answers_cross(hosts: &mut Hosts) -> Result<()> {
    for (here, there) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
        let server = server_of(hosts, there)?;
        let body = here.get(SocketAddr::new(server.address, PORT), "/large")?;
        ensure!(body.len() == LARGE_BYTES, "{} bytes from {}", body.len(), there.name());
        // From pod to pod, where both ends believe in the full size of their interfaces.
        let pod = format!("large-{}", here.name());
        let ask = format!("timeout 5 wget -q -O - http://{}:{PORT}/large | wc -c; sleep 1000", server.address);
        hosts.apply(&sleeper(&pod, here.name(), &["/bin/sh", "-c", &ask]))?;
        wait::until(&format!("a large answer in a pod of {}", here.name()), LIMIT, || {
            let output = workload::output(here, &pod)?;
            Ok((output.trim() == LARGE_BYTES.to_string()).then_some(()))
        })?;
    }
    hosts.kubectl(&["delete", "pods", "large-a", "large-b", "--wait=false"]).map(drop)
}

/// Somebody removes a route, and the link goes down and up, which removes all of them.
pub fn damage_is_repaired(hosts: &mut Hosts) -> Result<()> {
    hosts.a.host.sh("ip route flush proto 107")?;
    across(hosts)?;
    hosts.b.host.sh("ip link set eth0 down; ip link set eth0 up; ip route add default via 192.0.2.254")?;
    across(hosts)
}

/// Waits until each host reaches a pod of the other.
pub fn across(hosts: &Hosts) -> Result<()> {
    for (here, there) in [(&hosts.a, &hosts.b), (&hosts.b, &hosts.a)] {
        let server = server_of(hosts, there)?;
        let what = format!("{} to reach {} of {}", here.name(), server.address, there.name());
        wait::until(&what, LIMIT, || here.get(SocketAddr::new(server.address, PORT), "/").map(Some))?;
    }
    Ok(())
}

/// `b` gets an address in another network: a router lies between now, so that packets of pods are wrapped. The agent
/// is told its new address; pods stay as they are.
pub fn host_moves(hosts: &mut Hosts) -> Result<()> {
    undisturbed(hosts, false, |hosts| {
        hosts.b.keelson.stop()?;
        hosts.lan.route(&hosts.b.host, "198.51.100.1", "198.51.100.2")?;
        hosts.b.address = "198.51.100.2".into();
        hosts.start_agent()?;
        hosts.wait_nodes_ready()?;
        across(hosts)
    })?;
    let tunnel = hosts.b.host.sh("ip -d link show type vxlan; ip route show proto 107")?;
    ensure!(tunnel.contains("vxlan") && tunnel.contains("mtu 1450"), "{tunnel}");
    large_answers_cross(hosts)?;
    services_work_everywhere(hosts)
}
