//! Cluster DNS under load: questions per second and the slowest of a hundred, through the DNS Service, beside a server
//! that answers every question with the same bytes: what sockets and the way through the kernel cost alone.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::rig::{self, Running, percentile, row};

/// The tenth address of the benchmarks' Service range.
const SERVICE: &str = "10.121.0.10:53";
const CLIENTS: usize = 8;
const WATCHED: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A name of every cluster, and one that nothing has.
const NAMES: [(&str, &str); 2] =
    [("a Service", "kubernetes.default.svc.cluster.local"), ("a name that is not", "none.default.svc.cluster.local")];

/// A question for the name's address (RFC 1035).
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn socket(server: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(socket)
}

/// One question after the other; how long each took.
fn ask(server: SocketAddr, name: &str) -> Result<Vec<Duration>> {
    let socket = socket(server)?;
    let (mut question, mut buffer) = (question(name), [0; 1500]);
    let (mut took, begun) = (Vec::new(), Instant::now());
    for number in 0_u16.. {
        let asked = Instant::now();
        question[..2].copy_from_slice(&number.to_be_bytes());
        socket.send(&question)?;
        while socket.recv(&mut buffer).context("no answer")? < 2 || buffer[..2] != question[..2] {}
        took.push(asked.elapsed());
        if begun.elapsed() > WATCHED {
            break;
        }
    }
    Ok(took)
}

fn measure(what: &str, server: SocketAddr, name: &str) -> Result<()> {
    let clients = (0..CLIENTS).map(|_| name.to_owned()).map(|name| std::thread::spawn(move || ask(server, &name)));
    let clients = clients.collect::<Vec<_>>();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.join().map_err(|_| anyhow::anyhow!("a client ended early"))??);
    }
    took.sort();
    let per_second = took.len() as f64 / WATCHED.as_secs_f64();
    row(&format!("DNS, {what}: questions per second"), format!("{per_second:.0}"), "");
    let micros = |share| format!("{} µs", percentile(&took, share).as_micros());
    row(&format!("DNS, {what}: p50, p99"), format!("{}, {}", micros(0.5), micros(0.99)), "");
    Ok(())
}

/// Answers everything with the question, until told to end.
fn echo(end: Arc<AtomicBool>) -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while !end.load(Ordering::Relaxed) {
            if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                // A client that has gone is no fault of the measurement.
                drop(socket.send_to(&buffer[..length], client));
            }
        }
    });
    Ok(address)
}

pub fn dns() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let _running = Running::start(rig::options(dir.path(), true, &[])?)?;
    let server: SocketAddr = SERVICE.parse().context("the DNS Service")?;
    let begun = Instant::now();
    while socket(server)?.send(&question(NAMES[0].1)).is_err() || !answers(server)? {
        ensure!(begun.elapsed() < READY_LIMIT, "cluster DNS does not answer at {server}");
    }
    for (what, name) in NAMES {
        measure(what, server, name)?;
    }
    let end = Arc::new(AtomicBool::new(false));
    measure("an echo on loopback", echo(end.clone())?, NAMES[0].1)?;
    end.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether the first name is there yet.
fn answers(server: SocketAddr) -> Result<bool> {
    let (socket, mut buffer) = (socket(server)?, [0; 1500]);
    socket.send(&question(NAMES[0].1))?;
    Ok(socket.recv(&mut buffer).is_ok_and(|length| length > 12 && buffer[3] & 0xf == 0))
}
