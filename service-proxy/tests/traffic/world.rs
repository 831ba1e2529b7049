//! A node and its pods as network namespaces. Each is held by a thread of its own, since a namespace belongs to a
//! thread, and whatever that thread starts stands in it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

/// How long a packet that never comes is waited for.
const SILENCE: Duration = Duration::from_millis(700);
pub const PATIENCE: Duration = Duration::from_secs(5);
const GATEWAY: &str = "169.254.1.1";

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace, until it is dropped.
pub struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<std::thread::JoinHandle<()>>,
    pub id: Pid,
}

impl Namespace {
    pub fn new() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (ready, id) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            ready.send(gettid()).expect("the test waits");
            receiver.into_iter().for_each(|job| job());
        });
        let id = id.recv().expect("a namespace");
        let namespace = Self { jobs: Some(jobs), thread: Some(thread), id };
        namespace.sh("ip link set lo up");
        namespace
    }

    /// Runs in the namespace.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || drop(done.send(job())));
        self.jobs.as_ref().expect("a living namespace").send(job).expect("the namespace's thread");
        result.recv().expect("the job ended without a panic")
    }

    pub fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.run(move || {
            let output = Command::new("sh").args(["-ec", &script]).output().expect("sh");
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("text")
        })
    }

    /// A server that greets each client with its name and the client's address, then says back what it hears. Ends
    /// with the test.
    pub fn serve_tcp(&self, name: &'static str, at: &str) {
        let at: SocketAddr = at.parse().expect("an address");
        self.run(move || {
            let listener = TcpListener::bind(at).expect("a free port");
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    std::thread::spawn(move || greet(stream, name));
                }
            });
        });
    }

    /// The same, datagram by datagram.
    pub fn serve_udp(&self, name: &'static str, at: &str) {
        let at: SocketAddr = at.parse().expect("an address");
        self.run(move || {
            let socket = UdpSocket::bind(at).expect("a free port");
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                    drop(socket.send_to(format!("{name} {}", client.ip()).as_bytes(), client));
                }
            });
        });
    }

    /// What a client here is greeted with: the server's name, and which address the server sees.
    pub fn ask_tcp(&self, to: &str) -> std::io::Result<String> {
        let to: SocketAddr = to.parse().expect("an address");
        self.run(move || connect(to).and_then(|mut stream| read_greeting(&mut stream)))
    }

    /// How a connection fails. A client whose peer is on the same machine can be told before its first packet is off its
    /// hands, and then takes note with the second one only, a second later (TCP over IPv6).
    pub fn refusal(&self, to: &str) -> std::io::ErrorKind {
        let to: SocketAddr = to.parse().expect("an address");
        self.run(move || TcpStream::connect_timeout(&to, PATIENCE)).expect_err("a refusal").kind()
    }

    pub fn open_tcp(&self, to: &str) -> std::io::Result<TcpStream> {
        let to: SocketAddr = to.parse().expect("an address");
        self.run(move || connect(to))
    }

    /// A client's socket, always the same port for one flow.
    pub fn udp(&self, to: &str) -> UdpSocket {
        let to: SocketAddr = to.parse().expect("an address");
        self.run(move || {
            let any: IpAddr = if to.is_ipv4() { [0_u8; 4].into() } else { [0_u16; 8].into() };
            let socket = UdpSocket::bind((any, 0)).expect("a socket");
            socket.connect(to).expect("an address");
            socket.set_read_timeout(Some(SILENCE)).expect("a time");
            socket
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, SILENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn greet(mut stream: TcpStream, name: &str) {
    let Ok(client) = stream.peer_addr() else { return };
    let mut buffer = [0; 64];
    if stream.write_all(format!("{name} {}\n", client.ip()).as_bytes()).is_err() {
        return;
    }
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

pub fn read_greeting(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Sends a datagram and returns the answer.
pub fn ask_udp(socket: &UdpSocket) -> std::io::Result<String> {
    let mut buffer = [0; 64];
    socket.send(b"who")?;
    let count = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// A node with an address of its own, to which namespaces are attached by a wire each.
pub struct World {
    pub node: Namespace,
    /// What is behind the node's default route.
    pub uplink: Namespace,
    wires: std::cell::Cell<usize>,
}

pub const NODE: &str = "198.51.100.1";

impl World {
    pub fn new() -> Self {
        let node = Namespace::new();
        node.sh(&format!(
            "ip addr add {NODE}/32 dev lo; ip addr add 2001:db8:1::1/128 dev lo nodad
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.route_localnet=1"
        ));
        let uplink = Namespace::new();
        node.sh(&format!(
            "ip link add up0 type veth peer name eth0 netns {}; ip link set up0 up
             ip route add default dev up0 src {NODE}; ip -6 route add default dev up0 src 2001:db8:1::1",
            uplink.id
        ));
        uplink.sh("ip link set eth0 up");
        Self { node, uplink, wires: std::cell::Cell::new(0) }
    }

    /// A pod or a client outside, depending on its address.
    pub fn attach(&self, v4: &str, v6: Option<&str>) -> Namespace {
        let wire = self.wires.get();
        self.wires.set(wire + 1);
        let there = Namespace::new();
        self.node.sh(&format!(
            "ip link add w{wire} type veth peer name eth0 netns {}
             ip addr add {GATEWAY}/32 dev w{wire}; ip addr add fe80::1/64 dev w{wire} nodad; ip link set w{wire} up
             ip route add {v4}/32 dev w{wire} src {NODE}",
            there.id
        ));
        there.sh(&format!(
            "ip addr add {v4}/32 dev eth0; ip link set eth0 up; ip route add {GATEWAY} dev eth0
             ip route add default via {GATEWAY} dev eth0"
        ));
        if let Some(v6) = v6 {
            self.node.sh(&format!("ip -6 route add {v6}/128 dev w{wire} src 2001:db8:1::1"));
            there.sh(&format!("ip addr add {v6}/128 dev eth0 nodad; ip -6 route add default via fe80::1 dev eth0"));
        }
        there
    }
}
