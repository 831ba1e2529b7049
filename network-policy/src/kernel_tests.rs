//! Policies in a real kernel: a host and pods of network namespaces on one bridge, with real connections between them.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api_client::{Meta, Snapshot};
use nftables::Socket;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

use crate::objects::{Namespace, NetworkPolicy, Pod};
use crate::plan::Plan;
use crate::state::State;
use crate::table;

const TABLE: &str = "policies-test";
/// A connection that is let pass needs microseconds; one that is not gets no answer, ever.
const PATIENCE: Duration = Duration::from_millis(150);

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// Runs a test in a network namespace of its own, as the host.
fn on_a_host(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        ip("link add name br0 type bridge");
        ip("address add 10.9.0.1/24 dev br0");
        ip("address add fd09::1/64 dev br0 nodad");
        ip("link set br0 up");
        for parameter in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{parameter}"), "1").unwrap();
        }
        crate::run::prepare_kernel();
        test();
    };
    std::thread::spawn(run).join().unwrap();
}

/// A namespace that lives as long as its process.
struct Place {
    pod: Arc<Pod>,
    process: Child,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Place {
    /// A pod at 10.9.0.N and fd09::N, with ports by name.
    fn new(number: u8, namespace: &str, labels: &[(&str, &str)], ports: &[(&str, u16)]) -> Self {
        let mut process = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        let id = process.id();
        ip(&format!("link add v{number} mtu 1500 type veth peer name eth0 netns {id}"));
        ip(&format!("link set v{number} master br0 up"));
        let addresses = [format!("10.9.0.{number}"), format!("fd09::{number}")];
        let place = Self {
            process,
            pod: Arc::new(Pod::new(
                (namespace.to_owned(), format!("p{number}"), format!("uid-{number}")),
                labels.iter().copied(),
                "here",
                &addresses.each_ref().map(|address| address.parse().unwrap()),
                ports.iter().map(|(name, number)| ((*name).to_owned(), "TCP".to_owned(), *number)),
            )),
        };
        place.within(move || {
            ip("link set lo up");
            ip(&format!("address add {}/24 dev eth0", addresses[0]));
            ip(&format!("address add {}/64 dev eth0 nodad", addresses[1]));
            ip("link set eth0 up");
            ip("route add default via 10.9.0.1");
        });
        place
    }

    fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.process.id())).unwrap();
        let enter = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        std::thread::spawn(enter).join().unwrap()
    }

    fn address(&self, port: u16) -> SocketAddr {
        (self.pod.addresses.iter().find(|address| address.is_ipv4()).copied().unwrap(), port).into()
    }

    fn address_v6(&self, port: u16) -> SocketAddr {
        (self.pod.addresses.iter().find(|address| address.is_ipv6()).copied().unwrap(), port).into()
    }

    fn listen(&self, address: SocketAddr) -> TcpListener {
        self.within(move || TcpListener::bind(address).unwrap())
    }

    fn reaches(&self, address: SocketAddr) -> bool {
        self.within(move || TcpStream::connect_timeout(&address, PATIENCE).is_ok())
    }
}

/// The node's engine, without its API server.
struct Node {
    state: State,
    socket: Socket,
    applied: Plan,
}

impl Node {
    fn new(namespaces: &[(&str, &str)]) -> Self {
        let mut state = State::new("here");
        let of = |(name, team): &(&str, &str)| {
            let labels = [("team".to_owned(), (*team).to_owned())].into();
            Namespace { metadata: Meta { name: (*name).to_owned(), labels, ..Meta::default() } }
        };
        state.set_namespaces(&Snapshot::of(namespaces.iter().map(of), &[]));
        let mut node = Self { state, socket: Socket::open().unwrap(), applied: Plan::default() };
        let mut first = table::replacement(TABLE, &Plan::default(), &node.state.membership);
        node.socket.commit(&mut first).unwrap();
        node
    }

    /// Policies as `(namespace, spec)`.
    fn policies(&mut self, policies: &[(&str, Value)]) {
        let read = |(namespace, spec): &(&str, Value)| -> NetworkPolicy {
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": namespace}, "spec": spec})).unwrap()
        };
        let policies = policies.iter().map(read).collect::<Vec<_>>();
        self.state.set_policies(policies.iter());
        self.apply();
    }

    fn come(&mut self, place: &Place) {
        self.state.come(place.pod.clone());
        self.apply();
    }

    fn apply(&mut self) {
        let plan = self.state.plan(true);
        let mut batch = nftables::Batch::new();
        table::difference(&mut batch, TABLE, &self.applied, &plan, &self.state.membership);
        if !batch.is_empty() {
            self.socket.commit(&mut batch).unwrap();
        }
        self.state.membership.settle();
        self.applied = plan;
    }

    /// How many sets, chains and elements the kernel has beside the fixed ones.
    fn traces(&mut self) -> usize {
        let mut count = 0;
        for table in table::tables(TABLE) {
            let sets = self.socket.sets(table).unwrap();
            count += sets.len() - 3 + self.socket.chains(table).unwrap().len() - 1;
            count += sets.iter().map(|set| self.socket.elements(table, &set.name).unwrap().len()).sum::<usize>();
        }
        count
    }
}

#[test]
fn pods_are_reached_as_policies_say() {
    on_a_host(|| {
        let mut node = Node::new(&[("n", "a"), ("other", "b")]);
        let web = Place::new(10, "n", &[("app", "web")], &[("http", 80), ("late", 443)]);
        let client = Place::new(11, "n", &[("app", "client")], &[]);
        let foreign = Place::new(12, "other", &[("app", "client")], &[]);
        let plain = Place::new(13, "other", &[], &[]);
        for place in [&web, &client, &foreign, &plain] {
            node.come(place);
        }
        let (http, https) = (web.address(80), web.address(443));
        let (_a, _b, _c) = (web.listen(http), web.listen(https), web.listen(web.address_v6(80)));
        let mut check = |policies: &[(&str, Value)], expected: [bool; 4]| {
            node.policies(policies);
            let reached = [&client, &foreign, &plain].map(|place| place.reaches(http));
            assert_eq!([reached[0], reached[1], reached[2], client.reaches(https)], expected, "{policies:?}");
            // What holds for one address of a pod holds for the other.
            assert_eq!(client.reaches(web.address_v6(80)), expected[0], "version 6: {policies:?}");
        };
        let ingress = |rule: Value| ("n", json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]}));
        let deny = ("n", json!({"podSelector": {}}));
        check(&[], [true; 4]);
        check(std::slice::from_ref(&deny), [false; 4]);
        check(&[("other", json!({"podSelector": {}}))], [true; 4]);
        let clients = json!({"podSelector": {"matchLabels": {"app": "client"}}});
        check(&[ingress(json!({"from": [clients]}))], [true, false, false, true]);
        check(&[deny, ingress(json!({"from": [clients]}))], [true, false, false, true]);
        let team = json!({"namespaceSelector": {"matchLabels": {"team": "b"}}});
        check(&[ingress(json!({"from": [team]}))], [false, true, true, false]);
        let both = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}});
        check(&[ingress(json!({"from": [both]}))], [true, true, false, true]);
        check(&[ingress(json!({"ports": [{"port": 80}]}))], [true, true, true, false]);
        check(&[ingress(json!({"ports": [{"port": 81, "endPort": 500}]}))], [false, false, false, true]);
        check(&[ingress(json!({"ports": [{"port": "late"}]}))], [false, false, false, true]);
        check(&[ingress(json!({"ports": [{"protocol": "UDP"}]}))], [false; 4]);
        check(
            &[ingress(json!({"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}))],
            [true, false, false, false],
        );
    });
}

#[test]
fn blocks_have_exceptions() {
    on_a_host(|| {
        let mut node = Node::new(&[]);
        let web = Place::new(10, "n", &[], &[]);
        let (a, b) = (Place::new(20, "m", &[], &[]), Place::new(21, "m", &[], &[]));
        [&web, &a, &b].into_iter().for_each(|place| node.come(place));
        let _listener = web.listen(web.address(80));
        let mut check = |cidr: &str, except: &[&str], expected: [bool; 2]| {
            let from = json!([{"ipBlock": {"cidr": cidr, "except": except}}]);
            node.policies(&[("n", json!({"podSelector": {}, "ingress": [{"from": from}]}))]);
            assert_eq!([a.reaches(web.address(80)), b.reaches(web.address(80))], expected, "{cidr} {except:?}");
        };
        check("10.9.0.0/24", &[], [true, true]);
        check("10.9.0.0/24", &["10.9.0.20/32"], [false, true]);
        check("10.9.0.21/32", &[], [false, true]);
        check("0.0.0.0/0", &["10.9.0.0/24"], [false, false]);
        check("0.0.0.0/0", &[], [true, true]);
        check("fd09::/64", &[], [false, false]);
    });
}

#[test]
fn egress_is_limited_and_answers_are_not() {
    on_a_host(|| {
        let mut node = Node::new(&[]);
        let web = Place::new(10, "n", &[("app", "web")], &[("http", 80)]);
        let client = Place::new(11, "n", &[("app", "client")], &[]);
        [&web, &client].into_iter().for_each(|place| node.come(place));
        let (_a, _b) = (web.listen(web.address(80)), client.listen(client.address(80)));
        let egress = |rules: Value| {
            let labels = json!({"matchLabels": {"app": "client"}});
            ("n", json!({"podSelector": labels, "policyTypes": ["Egress"], "egress": rules}))
        };
        let mut check = |rules: Value, expected: bool| {
            node.policies(&[egress(rules.clone())]);
            assert_eq!(client.reaches(web.address(80)), expected, "{rules}");
            // Whoever may connect gets its answers.
            assert!(web.reaches(client.address(80)), "{rules}");
            // The node's own services stay reachable: they are not other pods.
            let host = TcpListener::bind("10.9.0.1:0").unwrap();
            assert!(client.reaches(host.local_addr().unwrap()));
        };
        check(json!([]), false);
        check(json!([{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]), true);
        check(json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]), false);
        check(json!([{"ports": [{"port": "http"}]}]), true);
        check(json!([{"to": [{"podSelector": {}}], "ports": [{"port": "https"}]}]), false);
        check(json!([{"to": [{"ipBlock": {"cidr": "10.9.0.10/32"}}], "ports": [{"port": 80}]}]), true);
    });
}

#[test]
fn a_connection_lives_on_and_the_node_is_exempt() {
    on_a_host(|| {
        use std::io::Write;
        let mut node = Node::new(&[]);
        let (web, client) = (Place::new(10, "n", &[], &[]), Place::new(11, "n", &[], &[]));
        [&web, &client].into_iter().for_each(|place| node.come(place));
        let address = web.address(80);
        let listener = web.listen(address);
        let mut before = client.within(move || TcpStream::connect_timeout(&address, PATIENCE).unwrap());
        let (mut accepted, _) = listener.accept().unwrap();
        node.policies(&[("n", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))]);
        assert!(!client.reaches(address));
        before.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        assert!(TcpStream::connect_timeout(&address, PATIENCE).is_ok(), "from the node itself");
    });
}

#[test]
fn a_pod_is_closed_from_its_first_moment() {
    on_a_host(|| {
        let mut node = Node::new(&[]);
        let client = Place::new(11, "m", &[], &[]);
        node.come(&client);
        node.policies(&[("n", json!({"podSelector": {}}))]);
        // Nothing of the pod exists yet but its address.
        let web = Place::new(10, "n", &[], &[]);
        node.come(&web);
        let address = web.address(80);
        let _listener = web.listen(address);
        let packets = web.within(move || UdpSocket::bind(address).unwrap());
        packets.set_read_timeout(Some(PATIENCE)).unwrap();
        client.within(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            (0..5).for_each(|_| drop(socket.send_to(b"x", address)));
        });
        assert!(packets.recv(&mut [0]).is_err(), "not one packet comes through");
        assert!(!client.reaches(address));
    });
}

#[test]
fn a_thousand_pods_leave_nothing() {
    on_a_host(|| {
        let mut node = Node::new(&[("n", "a")]);
        let from = json!([{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": "a"}}}]);
        let rule = json!({"from": from, "ports": [{"port": "http"}, {"port": 1, "endPort": 9}]});
        node.policies(&[("n", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [rule]}))]);
        let before = node.traces();
        assert_eq!(before, 0);
        for number in 0..1_000_u32 {
            let addresses = [IpAddr::from([10, 8, (number >> 8) as u8, number as u8])];
            let identity = ("n".to_owned(), format!("p{number}"), format!("uid-{number}"));
            let ports = [("http".to_owned(), "TCP".to_owned(), 80)];
            node.state.come(Arc::new(Pod::new(identity, [("app", "web")], "here", &addresses, ports)));
            // Some come together, most alone.
            if number % 3 == 0 {
                node.apply();
            }
        }
        node.apply();
        assert!(node.traces() > 4_000);
        for number in 0..1_000 {
            node.state.leave(&format!("uid-{number}"));
            if number % 3 == 0 {
                node.apply();
            }
        }
        node.apply();
        assert_eq!(node.traces(), before);
    });
}
