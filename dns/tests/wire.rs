//! The server over real sockets: both protocols, answers that do not fit, and garbage.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use api_client::list_watch::Delivery;
use api_client::{Cache, Index, Object, Revision};
use dns::Listener;
use dns::forward::Forwarder;
use dns::objects::{BY_SERVICE, EndpointSlice, Service};
use dns::resolve::Sources;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const ENDPOINTS: usize = 200;

fn filled<T: Object>(objects: Value, indexes: &[Index<T>]) -> Cache<T> {
    let cache = Cache::detached(indexes);
    let items: Vec<T> = serde_json::from_value(objects).expect("objects");
    cache.deliver(vec![Delivery::Replaced { items, revision: Revision(7) }]);
    cache
}

fn start() -> (SocketAddr, CancellationToken) {
    let endpoints: Vec<Value> =
        (0..ENDPOINTS).map(|n| json!({ "addresses": [format!("10.244.0.{}", n + 1)] })).collect();
    let sources = Sources {
        domain: Name::from_ascii("cluster.local.").expect("a name"),
        services: filled::<Service>(
            json!([{ "metadata": { "name": "many", "namespace": "shop" }, "spec": { "clusterIPs": ["None"] } }]),
            &[],
        ),
        slices: filled::<EndpointSlice>(
            json!([{ "metadata": { "name": "many-1", "namespace": "shop",
                "labels": { "kubernetes.io/service-name": "many" } }, "endpoints": endpoints }]),
            &[BY_SERVICE],
        ),
        pods: Cache::detached(&[]),
        host: Default::default(),
        servers: Vec::new(),
        forwarder: Forwarder::new(Vec::new()),
    };
    let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let address = listener.address();
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move { listener.serve(Arc::new(sources), &TaskTracker::new(), stop).await });
    (address, shutdown)
}

fn question(payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("many.shop.svc.cluster.local.").expect("a name"), RecordType::A));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().expect("a question")
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    socket
}

fn over_udp(server: SocketAddr, question: &[u8]) -> (usize, Message) {
    let socket = client();
    socket.send_to(question, server).expect("sent");
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).expect("an answer");
    (length, Message::from_vec(&buffer[..length]).expect("a message"))
}

fn read_tcp(stream: &mut TcpStream) -> Message {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("a length");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).expect("an answer");
    Message::from_vec(&answer).expect("a message")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_cut_and_comes_whole_over_tcp() {
    let (server, shutdown) = start();
    let (length, plain) = over_udp(server, &question(None));
    assert!(length <= 512 && plain.metadata.truncation, "{length} bytes");
    let (length, large) = over_udp(server, &question(Some(65_000)));
    assert!(length <= 1232 && large.metadata.truncation && large.edns.is_some(), "{length} bytes");

    let mut stream = TcpStream::connect(server).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let question = question(None);
    let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
    // Two questions on one connection.
    for _ in 0..2 {
        stream.write_all(&framed).expect("sent");
        let answer = read_tcp(&mut stream);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), ENDPOINTS);
    }
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_survived() {
    let (server, shutdown) = start();
    let socket = client();
    for length in [0, 1, 11, 12, 600, 9_000] {
        socket.send_to(&vec![0xff; length], server).expect("sent");
    }
    // A connection that says nothing, one that promises more than it sends, one with nonsense.
    let _silent = TcpStream::connect(server).expect("a connection");
    let mut short = TcpStream::connect(server).expect("a connection");
    short.write_all(&[0xff, 0xff, 1, 2]).expect("sent");
    let mut nonsense = TcpStream::connect(server).expect("a connection");
    nonsense.write_all(&[0, 3, 1, 2, 3]).expect("sent");
    assert_eq!(nonsense.read(&mut [0; 1]).expect("closed"), 0);
    let (_, answer) = over_udp(server, &question(None));
    assert!(answer.metadata.truncation);
    shutdown.cancel();
}
