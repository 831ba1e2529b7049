//! Names outside the cluster: asked of the host's own servers, or of those that a stub domain names, in order.
//!
//! Every question goes out from a fresh port with a fresh number, and only an answer to that question from that
//! server is taken.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::{Answer, Cache, Held, Key};

/// How long one server may take, over UDP and over TCP.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Rounds over the servers; clients give up after 5 s by default.
const ROUNDS: usize = 2;
/// Questions on their way at most; more are refused at once.
const IN_FLIGHT_MAX: usize = 512;
/// UDP answers this large pass any link without fragments (DNS flag day 2020).
pub const UDP_PAYLOAD_BYTES: u16 = 1232;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no name server outside the cluster is known: the host's resolv.conf names none")]
    NoServers,
    #[error("{IN_FLIGHT_MAX} questions are on their way already")]
    Busy,
    #[error("asking {server} failed")]
    Server { server: SocketAddr, source: io::Error },
    #[error("{server} did not answer within {ATTEMPT_LIMIT:?}")]
    Slow { server: SocketAddr },
}

/// A domain that other servers know.
#[derive(Clone, Debug)]
pub struct Stub {
    pub domain: Name,
    pub servers: Vec<SocketAddr>,
}

pub struct Forwarder {
    stubs: Vec<Stub>,
    cache: Cache,
    in_flight: Semaphore,
}

impl Forwarder {
    pub fn new(stubs: Vec<Stub>) -> Self {
        Self { stubs, cache: Cache::default(), in_flight: Semaphore::new(IN_FLIGHT_MAX) }
    }

    /// The answer of the stub domain's servers, else of `servers`. When none answers, what one said before.
    pub async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        dnssec_ok: bool,
        servers: &[SocketAddr],
    ) -> Result<Held, Error> {
        let key = Key { name: name.to_lowercase(), kind, dnssec_ok };
        let held = self.cache.get(&key, Instant::now());
        if let Some(held) = held.as_ref().filter(|held| !held.expired) {
            return Ok(held.clone());
        }
        let servers = self.servers_of(&key.name, servers);
        let _permit = self.in_flight.try_acquire().map_err(|_| Error::Busy)?;
        match ask_all(&key, servers).await {
            Ok(answer) => {
                let answer = Arc::new(answer);
                self.cache.put(key, answer.clone(), Instant::now());
                Ok(Held { answer, age_seconds: 0, expired: false })
            }
            Err(error) => held.ok_or(error),
        }
    }

    fn servers_of<'a>(&'a self, name: &Name, servers: &'a [SocketAddr]) -> &'a [SocketAddr] {
        let stubs = self.stubs.iter().filter(|stub| stub.domain.zone_of(name));
        stubs.max_by_key(|stub| stub.domain.num_labels()).map_or(servers, |stub| &stub.servers)
    }
}

async fn ask_all(key: &Key, servers: &[SocketAddr]) -> Result<Answer, Error> {
    let mut last = Error::NoServers;
    let mut failed = None;
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match ask_one(key, *server).await {
            // This server cannot say; another may.
            Ok(answer) if matches!(answer.code, ResponseCode::ServFail | ResponseCode::Refused) => {
                failed = Some(answer);
            }
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    failed.ok_or(last)
}

async fn ask_one(key: &Key, server: SocketAddr) -> Result<Answer, Error> {
    let failed = |source| Error::Server { server, source };
    let mut question = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(key.name.clone(), key.kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD_BYTES).set_version(0).set_dnssec_ok(key.dnssec_ok);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(|e| failed(io::Error::other(e)))?;
    let limited = |attempt| async move { timeout(ATTEMPT_LIMIT, attempt).await.map_err(|_| Error::Slow { server })? };
    let mut answer =
        limited(Box::pin(async { by_udp(&question, &bytes, server).await.map_err(failed) }) as Attempt<'_>).await?;
    if answer.metadata.truncation {
        answer = limited(Box::pin(async { by_tcp(&question, &bytes, server).await.map_err(failed) })).await?;
    }
    Ok(Answer {
        code: answer.metadata.response_code,
        authentic: answer.metadata.authentic_data,
        answers: answer.answers,
        authorities: answer.authorities,
    })
}

type Attempt<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Message, Error>> + Send + 'a>>;

/// Whether `answer` answers `question`: anything else on the socket is somebody's guess.
fn answers(question: &Message, answer: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && match (answer.queries.as_slice(), question.queries.as_slice()) {
            // A server that understood nothing may leave the question out.
            ([], _) => answer.metadata.response_code != ResponseCode::NoError,
            ([a], [q]) => a.name() == q.name() && a.query_type() == q.query_type(),
            _ => false,
        }
}

async fn by_udp(question: &Message, bytes: &[u8], server: SocketAddr) -> io::Result<Message> {
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answers(question, &answer) => return Ok(answer),
            Ok(_) | Err(_) => {}
        }
    }
}

async fn by_tcp(question: &Message, bytes: &[u8], server: SocketAddr) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if answers(question, &answer) { Ok(answer) } else { Err(io::Error::other("the answer is to another question")) }
}
