//! The built-in network in a real kernel: a host of its own network namespace, pods attached as the agent does it.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use super::{
    Range,
    bandwidth::Bandwidth,
    bridge::{self, Attach, Bridge},
    host_ports::{HostPorts, Ports},
    mend::{self, Found, Lack},
    netlink::Socket,
};
use crate::sandbox::{
    cni::PortMapping,
    namespaces::{self, Namespace, Request},
};

const TABLE: &str = "host-ports-test";
const BRIDGE: &str = "br-test";
/// An address of the host that is not the bridge's.
const HOST: &str = "192.0.2.1";
const PATIENCE: Duration = Duration::from_millis(300);

fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

struct Pod {
    uid: String,
    addresses: Vec<IpAddr>,
    directory: PathBuf,
}

struct Host {
    directory: tempfile::TempDir,
    bridge: Bridge,
    runtime: tokio::runtime::Runtime,
}

/// Runs a test as a host: in network and mount namespaces of its own.
fn on_a_host(second: Option<&str>, test: impl FnOnce(Host) + Send + 'static) {
    let second = second.map(|range| Range::parse(range).unwrap());
    let thread = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        run("ip", "link set lo up");
        run("ip", "link add name lan0 type bridge");
        run("ip", &format!("address add {HOST}/24 dev lan0"));
        run("ip", "link set lan0 up");
        std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let range = Range::parse("10.9.0.0/21").unwrap();
        let bridge = Bridge { name: BRIDGE.into(), range, second, directory: directory.path().join("addresses") };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        test(Host { directory, bridge, runtime });
    };
    std::thread::spawn(thread).join().unwrap();
}

impl Host {
    fn attach(&self, name: &str, bandwidth: Bandwidth) -> Pod {
        let uid = format!("uid-{name}");
        let addresses = self.bridge.reserve(&uid).unwrap();
        let directory = self.directory.path().join(name);
        let pod = Pod { uid, addresses, directory };
        let request = Request {
            directory: pod.directory.clone(),
            namespaces: vec![Namespace::Net],
            hostname: String::new(),
            sysctls: Vec::new(),
            attach: Some(self.attachment(&pod, bandwidth)),
        };
        self.runtime.block_on(namespaces::pin(request)).unwrap();
        pod
    }

    fn attachment(&self, pod: &Pod, bandwidth: Bandwidth) -> Attach {
        Attach {
            bridge: self.bridge.clone(),
            uid: pod.uid.clone(),
            addresses: pod.addresses.clone(),
            bandwidth,
            mtu: 1500,
        }
    }

    fn detach(&self, pod: &Pod) {
        pod.addresses.iter().for_each(|address| self.bridge.release(&pod.uid, *address).unwrap());
        namespaces::unpin(&pod.directory.join("net")).unwrap();
    }

    fn interfaces(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/sys/class/net").unwrap();
        let mut names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
        names.sort();
        names
    }
}

impl Pod {
    fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(self.directory.join("net")).unwrap();
        let enter = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        };
        std::thread::spawn(enter).join().unwrap()
    }

    fn listen(&self, port: u16) -> TcpListener {
        self.within(move || TcpListener::bind((IpAddr::from([0_u16; 8]), port)).unwrap())
    }

    fn reaches(&self, address: impl Into<SocketAddr>) -> bool {
        let address = address.into();
        self.within(move || reaches(address))
    }
}

fn reaches(address: impl Into<SocketAddr>) -> bool {
    TcpStream::connect_timeout(&address.into(), PATIENCE).is_ok()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn pods_reach_each_other_and_the_host_with_both_addresses() {
    on_a_host(Some("fd09::/64"), |host| {
        let (a, b) = (host.attach("a", Bandwidth::default()), host.attach("b", Bandwidth::default()));
        let _listener = b.listen(80);
        assert_eq!(b.addresses.len(), 2);
        for address in b.addresses.clone() {
            assert!(a.reaches((address, 80)), "{address}");
            assert!(reaches((address, 80)), "{address} from the host");
        }
        let on_host = TcpListener::bind(format!("{HOST}:0")).unwrap();
        assert!(a.reaches(on_host.local_addr().unwrap()));
    });
}

#[test]
fn host_ports_lead_to_their_pod_from_everywhere() {
    on_a_host(None, |host| {
        let (a, b) = (host.attach("a", Bandwidth::default()), host.attach("b", Bandwidth::default()));
        let mapping = |host_port, protocol: &str, host_ip: &str| PortMapping {
            host_port,
            container_port: 80,
            protocol: protocol.into(),
            host_ip: host_ip.into(),
        };
        let all = vec![mapping(8080, "tcp", ""), mapping(8081, "tcp", HOST), mapping(8080, "udp", "")];
        let ports = Ports { mappings: all, addresses: a.addresses.clone() };
        let host_ports = HostPorts::new(TABLE, BRIDGE);
        let (_listener, packets) = (a.listen(80), a.within(|| UdpSocket::bind("0.0.0.0:80").unwrap()));
        // Twice: an interrupted attempt is repeated.
        host_ports.open(&ports).unwrap();
        host_ports.open(&ports).unwrap();
        let open = || {
            let any = address(&format!("{HOST}:8080"));
            [
                reaches(any),
                reaches(address("127.0.0.1:8080")),
                b.reaches(any),
                a.reaches(any),
                reaches(address(&format!("{HOST}:8081"))),
                b.reaches(address("10.9.0.1:8080")),
            ]
        };
        assert_eq!(open(), [true; 6]);
        assert!(!reaches(address("127.0.0.1:8081")), "that port is of another address");
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (HOST, 8080)).unwrap();
        packets.set_read_timeout(Some(PATIENCE)).unwrap();
        packets.recv(&mut [0]).unwrap();
        let other = Ports { mappings: vec![mapping(8080, "tcp", "")], addresses: b.addresses.clone() };
        let refused = host_ports.open(&other).unwrap_err().to_string();
        assert_eq!(refused, format!("host port 8080/tcp is in use by the pod with address {}", a.addresses[0]));
        // What somebody else removed comes back.
        run("nft", &format!("delete table ip {TABLE}"));
        assert_eq!(open(), [false; 6]);
        host_ports.restore(std::slice::from_ref(&ports)).unwrap();
        assert_eq!(open(), [true; 6]);
        host_ports.close(&a.addresses).unwrap();
        assert_eq!(open(), [false; 6]);
        host_ports.open(&other).unwrap();
        host_ports.restore(&[]).unwrap();
        assert_eq!(run("nft", "list tables"), "");
    });
}

/// An interface, its place on the bridge, and the bridge itself are taken away: a connection between pods goes on.
#[test]
fn what_pods_lost_comes_back_under_open_connections() {
    on_a_host(Some("fd00:9::/64"), |host| {
        let (a, b) = (host.attach("a", Bandwidth::default()), host.attach("b", Bandwidth::default()));
        let listener = a.listen(80);
        let to = SocketAddr::new(a.addresses[0], 80);
        let mut client = b.within(move || TcpStream::connect(to).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mend = || {
            let mut socket = Socket::open().unwrap();
            let found = Found::look(&mut socket, BRIDGE).unwrap();
            let lacks = [&a, &b].map(|pod| found.lack(&pod.uid));
            if found.bridge_lacks(&mut socket, &host.bridge).unwrap() {
                mend::bridge(&mut socket, &host.bridge, 1500).unwrap();
            }
            for (pod, lack) in [&a, &b].into_iter().zip(lacks) {
                let attach = host.attachment(pod, Bandwidth::default());
                lack.into_iter().for_each(|lack| {
                    mend::pod(&mut socket, attach.clone(), lack, &pod.directory.join("net")).unwrap();
                });
            }
            lacks
        };
        assert_eq!(mend(), [None, None]);
        let interface = bridge::host_interface(&a.uid);
        let faults = [
            (format!("link delete {interface}"), [Some(Lack::Interface), None]),
            (format!("link set {interface} nomaster"), [Some(Lack::Port), None]),
            (format!("link set {interface} down"), [Some(Lack::Port), None]),
            (format!("link delete {BRIDGE}"), [Some(Lack::Port), Some(Lack::Port)]),
            (format!("link set {BRIDGE} down"), [None, None]),
            (format!("address flush dev {BRIDGE}"), [None, None]),
        ];
        for (fault, expected) in faults {
            run("ip", &fault);
            client.write_all(b"x").unwrap();
            assert_eq!(mend(), expected, "{fault}");
            server.read_exact(&mut [0]).unwrap();
            for address in &a.addresses {
                let until = Instant::now() + Duration::from_secs(10);
                while !reaches((*address, 80)) {
                    assert!(Instant::now() < until, "{address} is not reached from the host after {fault}");
                }
            }
            assert_eq!(mend(), [None, None]);
        }
    });
}

#[test]
fn bandwidth_is_limited_in_each_direction() {
    const BYTES: usize = 1 << 20;
    /// 8 Mbit/s are a megabyte per second, of which an eighth may leave at once.
    const LIMITED_MIN: Duration = Duration::from_millis(500);
    on_a_host(None, |host| {
        let limited = Bandwidth { ingress: Some(8_000_000), egress: None };
        let took = |bandwidth, name: &str| {
            let pod = host.attach(name, bandwidth);
            let listener = pod.listen(80);
            let address = SocketAddr::from((pod.addresses[0], 80));
            let mut sender = TcpStream::connect(address).unwrap();
            let (mut receiver, _) = listener.accept().unwrap();
            let transfer = |from: &mut TcpStream, to: &mut TcpStream| {
                let begun = Instant::now();
                std::thread::scope(|scope| {
                    scope.spawn(move || from.write_all(&[0; BYTES]).unwrap());
                    to.read_exact(&mut vec![0; BYTES]).unwrap();
                });
                begun.elapsed()
            };
            (transfer(&mut sender, &mut receiver), transfer(&mut receiver, &mut sender))
        };
        let (to_pod, from_pod) = took(limited, "in");
        assert!(to_pod > LIMITED_MIN && from_pod < LIMITED_MIN, "{to_pod:?} {from_pod:?}");
        let (to_pod, from_pod) = took(Bandwidth { ingress: None, egress: limited.ingress }, "out");
        assert!(to_pod < LIMITED_MIN && from_pod > LIMITED_MIN, "{to_pod:?} {from_pod:?}");
    });
}

#[test]
fn a_thousand_pods_leave_nothing() {
    const AT_ONCE: usize = 50;
    on_a_host(Some("fd09::/64"), |host| {
        let before = host.interfaces();
        let host_ports = HostPorts::new(TABLE, BRIDGE);
        for round in 0..1_000 / AT_ONCE {
            let limits = Bandwidth { ingress: Some(1_000_000), egress: Some(1_000_000) };
            let pods = (0..AT_ONCE).map(|n| host.attach(&format!("{round}-{n}"), limits)).collect::<Vec<_>>();
            for (pod, port) in pods.iter().zip(30_000..) {
                let mapping =
                    PortMapping { host_port: port, container_port: 1, protocol: "tcp".into(), host_ip: String::new() };
                host_ports.open(&Ports { mappings: vec![mapping], addresses: pod.addresses.clone() }).unwrap();
            }
            for pod in &pods {
                host_ports.close(&pod.addresses).unwrap();
                host.detach(pod);
            }
        }
        assert_eq!(std::fs::read_dir(&host.bridge.directory).unwrap().count(), 0, "addresses");
        assert_eq!(run("nft", "list ruleset"), "", "the last host port takes the table with it");
        bridge::remove(BRIDGE, &host.bridge.directory).unwrap();
        assert_eq!(host.interfaces(), before);
        assert!(!run("ip", "route show table all").contains("10.9."), "routes");
        assert!(!Path::new("/proc/sys/net/ipv4/conf").join(BRIDGE).exists());
    });
}
