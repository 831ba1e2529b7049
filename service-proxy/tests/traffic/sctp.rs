//! SCTP through a Service, packet by packet: kernels without an SCTP of their own still track and translate it, so both
//! ends are raw sockets that speak as much of RFC 9260 as an association's opening and one message need.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use serde_json::json;

use crate::proxy::{Given, Proxy, service, slice};
use crate::world::{Namespace, World};

const SILENCE: Duration = Duration::from_millis(700);
const CLIENT_PORT: u16 = 40_000;
const CLIENT_TAG: u32 = 0x0c11_e047;
const SERVER_TAG: u32 = 0x5e47_e400;
/// Types of chunks.
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const IPV4_HEADER_BYTES: usize = 20;

/// CRC32c, as SCTP has it: low byte first.
fn checksum(packet: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for (at, byte) in packet.iter().enumerate() {
        // The checksum counts as zeros.
        crc ^= u32::from(if (8..12).contains(&at) { 0 } else { *byte });
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}

fn packet(from: u16, to: u16, tag: u32, chunk: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = [&from.to_be_bytes()[..], &to.to_be_bytes(), &tag.to_be_bytes(), &[0; 4]].concat();
    let flags = if chunk == DATA { 3 } else { 0 };
    packet.extend([chunk, flags]);
    packet.extend((body.len() as u16 + 4).to_be_bytes());
    packet.extend(body);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let sum = checksum(&packet);
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// The parameters of INIT and INIT ACK: tag, window, streams, first number.
fn init(tag: u32) -> Vec<u8> {
    [&tag.to_be_bytes()[..], &65_535_u32.to_be_bytes(), &[0, 1, 0, 1], &1_u32.to_be_bytes()].concat()
}

struct Heard {
    from: u16,
    to: u16,
    tag: u32,
    chunk: u8,
    body: Vec<u8>,
}

fn read(packet: &[u8]) -> Option<Heard> {
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    assert_eq!(packet.get(8..12)?, checksum(packet), "the checksum is right behind a translation, too");
    let (chunk, length) = (*packet.get(12)?, usize::from(port(14)?));
    Some(Heard { from: port(0)?, to: port(2)?, tag: word(4)?, chunk, body: packet.get(16..12 + length)?.to_vec() })
}

/// A raw socket, which the library's UDP socket serves as well.
fn raw(ipv6: bool) -> UdpSocket {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointers; the descriptor is new and owned from here on.
    let socket = unsafe {
        let fd = libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP);
        assert!(fd >= 0, "a raw socket needs root");
        OwnedFd::from_raw_fd(fd)
    };
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

fn payload(buffer: &[u8], ipv6: bool) -> &[u8] {
    if ipv6 { buffer } else { &buffer[IPV4_HEADER_BYTES..] }
}

/// Answers associations at port 8080; a message is answered with the name and the client's address.
fn serve(pod: &Namespace, name: &'static str, ipv6: bool) {
    let socket = pod.run(move || raw(ipv6));
    socket.set_read_timeout(None).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, client)) = socket.recv_from(&mut buffer) {
            let Some(heard) = read(payload(&buffer[..count], ipv6)).filter(|heard| heard.to == 8080) else { continue };
            let (chunk, body) = match heard.chunk {
                INIT => (INIT_ACK, init(SERVER_TAG)),
                COOKIE_ECHO => (COOKIE_ACK, Vec::new()),
                DATA => (DATA, [&[0; 12][..], format!("{name} {}", client.ip()).as_bytes()].concat()),
                _ => continue,
            };
            assert_eq!(heard.tag, if heard.chunk == INIT { 0 } else { SERVER_TAG });
            let answer = packet(8080, heard.from, CLIENT_TAG, chunk, &body);
            drop(socket.send_to(&answer, SocketAddr::new(client.ip(), 0)));
        }
    });
}

/// Opens an association, sends a message, and returns the answer.
fn ask(client: &Namespace, to: IpAddr, port: u16) -> std::io::Result<String> {
    client.run(move || {
        let ipv6 = to.is_ipv6();
        let socket = raw(ipv6);
        socket.connect((to, 0))?;
        let turn = |tag: u32, chunk: u8, body: &[u8], wanted: u8| -> std::io::Result<Vec<u8>> {
            socket.send(&packet(CLIENT_PORT, port, tag, chunk, body))?;
            let mut buffer = [0; 512];
            let count = socket.recv(&mut buffer)?;
            let heard = read(payload(&buffer[..count], ipv6)).ok_or(ErrorKind::InvalidData)?;
            // The socket is connected: what it hears comes from the Service's address.
            assert_eq!((heard.from, heard.to, heard.tag, heard.chunk), (port, CLIENT_PORT, CLIENT_TAG, wanted));
            Ok(heard.body)
        };
        turn(0, INIT, &init(CLIENT_TAG), INIT_ACK)?;
        turn(SERVER_TAG, COOKIE_ECHO, b"cookie", COOKIE_ACK)?;
        let answer = turn(SERVER_TAG, DATA, &[&[0; 12][..], b"who"].concat(), DATA)?;
        Ok(String::from_utf8_lossy(&answer[12..]).into_owned())
    })
}

#[test]
fn sctp_goes_through_a_service() {
    let world = World::new();
    let pod = world.attach("10.244.0.2", Some("fd00:10::2"));
    let client = world.attach("10.244.0.9", Some("fd00:10::9"));
    serve(&pod, "a", false);
    serve(&pod, "a", true);
    let ports = json!([{ "name": "http", "protocol": "SCTP", "port": 80, "nodePort": 30080 }]);
    let spec = json!({ "type": "NodePort", "ports": ports, "clusterIPs": ["10.96.0.7", "fd00:96::7"] });
    let slices = vec![slice("web", "SCTP", &[("10.244.0.2", "here")]), slice("web", "SCTP", &[("fd00:10::2", "here")])];
    let mut given = Given { service: service("web", spec), slices };
    let proxy = Proxy::start(&world.node, &[given.clone()]);
    let [v4, v6]: [IpAddr; 2] = ["10.96.0.7", "fd00:96::7"].map(|address| address.parse().unwrap());
    assert_eq!(ask(&client, v4, 80).unwrap(), "a 10.244.0.9");
    assert_eq!(ask(&client, v6, 80).unwrap(), "a fd00:10::9");
    assert!(ask(&client, "198.51.100.1".parse().unwrap(), 30080).unwrap().starts_with("a "), "the node port");
    // Without endpoints the client is told.
    given.slices.clear();
    proxy.set(&given);
    world.node.sh("conntrack -D -p sctp >/dev/null 2>&1 || true");
    assert_eq!(ask(&client, v4, 80).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
