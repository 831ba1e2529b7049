//! The wire: UDP and TCP on one address. Bounded: so many questions at once, so many connections, so long idle;
//! what is beyond gets no answer, and clients ask again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, socket, sockopt};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::forward::UDP_PAYLOAD_BYTES;
use crate::resolve::Sources;

/// Questions being answered at once.
const QUESTIONS_MAX: usize = 1_024;
/// TCP connections at once.
const CONNECTIONS_MAX: usize = 256;
/// How long a TCP client may be silent, and take to read an answer.
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// The smallest UDP payload every client takes (RFC 1035).
const PLAIN_UDP_BYTES: u16 = 512;
/// Largest question that is read from UDP; longer ones are cut by the kernel and do not parse.
const QUESTION_BYTES_MAX: usize = 4_096;
/// Pause after the kernel refused to accept or receive, so that a lasting fault does not take a core.
const FAULT_PAUSE: Duration = Duration::from_millis(100);

/// The sockets, bound before anything else so that a taken port is told at start.
pub struct Listener {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds both protocols. The address need not be on an interface yet. Port 0 takes any that is free for both.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let tcp = bound(address, SockType::Stream)?;
        nix::sys::socket::listen(&tcp, nix::sys::socket::Backlog::MAXCONN)?;
        let tcp = TcpListener::from_std(tcp.into())?;
        let address = tcp.local_addr()?;
        let udp = UdpSocket::from_std(bound(address, SockType::Datagram)?.into())?;
        Ok(Self { udp, tcp, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// Answers until `shutdown`.
    pub async fn serve(self, sources: Arc<Sources>, tasks: &TaskTracker, shutdown: CancellationToken) {
        let Self { udp, tcp, .. } = self;
        let (tcp_sources, tcp_tasks) = (sources.clone(), tasks.clone());
        let over_tcp = accept(tcp, tcp_sources, tcp_tasks, shutdown.clone());
        let over_udp = receive(Arc::new(udp), sources, tasks.clone());
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async { tokio::join!(over_tcp, over_udp); } => {}
        }
    }
}

fn bound(address: SocketAddr, kind: SockType) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    setsockopt(&socket, sockopt::ReuseAddr, &(kind == SockType::Stream))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

async fn receive(socket: Arc<UdpSocket>, sources: Arc<Sources>, tasks: TaskTracker) {
    let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "receiving a question failed");
                tokio::time::sleep(FAULT_PAUSE).await;
                continue;
            }
        };
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        let Ok(permit) = questions.clone().try_acquire_owned() else { continue };
        let (socket, sources) = (socket.clone(), sources.clone());
        tasks.spawn(async move {
            let reply = sources.reply(&request, client.ip()).await;
            if let Some(bytes) = datagram(&request, &reply)
                && let Err(error) = socket.send_to(&bytes, client).await
            {
                debug!(%client, %error, "sending an answer failed");
            }
            drop(permit);
        });
    }
}

/// The reply as the client can take it: whole, or cut with the note to ask over TCP.
fn datagram(request: &Message, reply: &Message) -> Option<Vec<u8>> {
    let taken = request.edns.as_ref().map_or(PLAIN_UDP_BYTES, |edns| edns.max_payload());
    let limit = taken.clamp(PLAIN_UDP_BYTES, UDP_PAYLOAD_BYTES);
    let bytes = encoded(reply)?;
    if bytes.len() <= usize::from(limit) { Some(bytes) } else { encoded(&reply.truncate()) }
}

fn encoded(reply: &Message) -> Option<Vec<u8>> {
    match reply.to_vec() {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            warn!(%error, "an answer could not be encoded");
            None
        }
    }
}

async fn accept(listener: TcpListener, sources: Arc<Sources>, tasks: TaskTracker, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let (sources, shutdown) = (sources.clone(), shutdown.clone());
                tasks.spawn(async move {
                    let conversation = shutdown.run_until_cancelled(converse(stream, client.ip(), &sources));
                    if let Some(Err(error)) = conversation.await {
                        debug!(%client, %error, "a connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                debug!(%error, "accepting a connection failed");
                tokio::time::sleep(FAULT_PAUSE).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, client: IpAddr, sources: &Sources) -> io::Result<()> {
    loop {
        let Ok(length) = timeout(IDLE_LIMIT, stream.read_u16()).await else { return Ok(()) };
        let length = match length {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            length => length?,
        };
        let mut question = vec![0; usize::from(length)];
        timeout(IDLE_LIMIT, stream.read_exact(&mut question)).await??;
        let request = Message::from_vec(&question).map_err(io::Error::other)?;
        let reply = sources.reply(&request, client).await;
        let Some(bytes) = encoded(&reply) else { return Ok(()) };
        let Ok(length) = u16::try_from(bytes.len()) else { return Ok(()) };
        timeout(IDLE_LIMIT, stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())).await??;
    }
}
