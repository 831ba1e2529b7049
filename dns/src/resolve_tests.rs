//! Questions and answers without a wire, with a server outside that is real and listens on loopback.

use std::net::Ipv4Addr;

use api_client::Revision;
use api_client::list_watch::Delivery;
use expect_test::{Expect, expect};
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::SOA;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use super::*;
use crate::forward::Stub;
use crate::objects::{BY_ADDRESS, BY_SECOND_ADDRESS, BY_SERVICE, NAMED};

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn filled<T: api_client::Object>(objects: Value, indexes: &[api_client::Index<T>]) -> Cache<T> {
    let cache = Cache::detached(indexes);
    let items: Vec<T> = serde_json::from_value(objects).expect("objects");
    cache.deliver(vec![Delivery::Replaced { items, revision: Revision(7) }]);
    cache
}

/// A server outside that knows `www.example.com` and denies all else; it counts what it is asked.
async fn outside() -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>, tokio::task::JoinHandle<()>) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
    let address = socket.local_addr().expect("an address");
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = asked.clone();
    let task = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.queries = question.queries.clone();
            let asked = question.queries[0].name().clone();
            if asked == name("www.example.com.") && question.queries[0].query_type() == RecordType::A {
                answer.add_answer(Record::from_rdata(asked, 60, RData::A(Ipv4Addr::new(192, 0, 2, 1).into())));
            } else if asked != name("www.example.com.") {
                answer.metadata.response_code = ResponseCode::NXDomain;
                let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 60);
                answer.add_authority(Record::from_rdata(Name::root(), 60, RData::SOA(soa)));
            }
            socket.send_to(&answer.to_vec().expect("an answer"), client).await.expect("sent");
        }
    });
    (address, asked, task)
}

fn sources(servers: Vec<SocketAddr>, stubs: Vec<Stub>) -> Sources {
    let services = json!([
        { "metadata": { "name": "web", "namespace": "shop" }, "spec": { "clusterIPs": ["10.96.0.7"] } },
        { "metadata": { "name": "away", "namespace": "shop" },
          "spec": { "type": "ExternalName", "externalName": "www.example.com" } },
        { "metadata": { "name": "loop", "namespace": "shop" },
          "spec": { "type": "ExternalName", "externalName": "loop.shop.svc.cluster.local" } },
    ]);
    let pods = json!([{ "metadata": { "name": "p", "namespace": "shop" }, "status": { "podIP": "10.244.0.5" } }]);
    Sources {
        domain: name("cluster.local."),
        services: filled(services, &[BY_ADDRESS, BY_SECOND_ADDRESS]),
        slices: filled(json!([]), &[BY_SERVICE, NAMED]),
        pods: filled(pods, &[BY_POD_IP]),
        host: ArcSwap::from_pointee(ResolvConf { servers: Vec::new(), searches: vec![name("corp.example.")] }),
        servers,
        forwarder: Forwarder::new(stubs),
    }
}

async fn ask(sources: &Sources, client: [u8; 4], asked: &str, kind: RecordType) -> Message {
    let mut request = Message::query();
    request.add_query(Query::query(name(asked), kind));
    sources.reply(&request, IpAddr::from(client)).await
}

fn show(reply: &Message) -> String {
    let records: Vec<String> =
        reply.answers.iter().map(|r| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect();
    let authoritative = if reply.metadata.authoritative { " (ours)" } else { "" };
    format!("{:?}{authoritative} [{}]", reply.metadata.response_code, records.join(", "))
}

const POD: [u8; 4] = [10, 244, 0, 5];
const STRANGER: [u8; 4] = [10, 244, 0, 99];

async fn check(questions: &[([u8; 4], &str, RecordType)], expected: Expect) {
    let (server, _, task) = outside().await;
    let sources = sources(vec![server], Vec::new());
    let mut text = String::new();
    for (client, asked, kind) in questions {
        text += &format!("{asked} {kind}: {}\n", show(&ask(&sources, *client, asked, *kind).await));
    }
    expected.assert_eq(&text);
    task.abort();
}

#[tokio::test]
async fn names_of_the_cluster_and_outside() {
    check(
        &[
            (POD, "web.shop.svc.cluster.local.", RecordType::A),
            (POD, "web.shop.svc.cluster.local.", RecordType::AAAA),
            (POD, "gone.shop.svc.cluster.local.", RecordType::A),
            (POD, "7.0.96.10.in-addr.arpa.", RecordType::PTR),
            (POD, "8.0.96.10.in-addr.arpa.", RecordType::PTR),
            (POD, "www.example.com.", RecordType::A),
            (POD, "gone.example.com.", RecordType::A),
            (POD, "away.shop.svc.cluster.local.", RecordType::A),
            (POD, "away.shop.svc.cluster.local.", RecordType::CNAME),
            (POD, "loop.shop.svc.cluster.local.", RecordType::A),
        ],
        expect![[r#"
            web.shop.svc.cluster.local. A: NoError (ours) [web.shop.svc.cluster.local. 5 A 10.96.0.7]
            web.shop.svc.cluster.local. AAAA: NoError (ours) []
            gone.shop.svc.cluster.local. A: NXDomain (ours) []
            7.0.96.10.in-addr.arpa. PTR: NoError (ours) [7.0.96.10.in-addr.arpa. 5 PTR web.shop.svc.cluster.local.]
            8.0.96.10.in-addr.arpa. PTR: NXDomain []
            www.example.com. A: NoError [www.example.com. 60 A 192.0.2.1]
            gone.example.com. A: NXDomain []
            away.shop.svc.cluster.local. A: NoError [away.shop.svc.cluster.local. 5 CNAME www.example.com., www.example.com. 60 A 192.0.2.1]
            away.shop.svc.cluster.local. CNAME: NoError (ours) [away.shop.svc.cluster.local. 5 CNAME www.example.com.]
            loop.shop.svc.cluster.local. A: ServFail []
        "#]],
    )
    .await;
}

#[tokio::test]
async fn the_search_path_is_gone_through_for_own_pods() {
    check(
        &[
            (POD, "www.example.com.shop.svc.cluster.local.", RecordType::A),
            (POD, "www.example.com.shop.svc.cluster.local.", RecordType::AAAA),
            (POD, "web.shop.shop.svc.cluster.local.", RecordType::A),
            (POD, "web.shop.svc.shop.svc.cluster.local.", RecordType::A),
            (POD, "www.example.com.other.svc.cluster.local.", RecordType::A),
            (STRANGER, "www.example.com.shop.svc.cluster.local.", RecordType::A),
        ],
        expect![[r#"
            www.example.com.shop.svc.cluster.local. A: NoError [www.example.com.shop.svc.cluster.local. 5 CNAME www.example.com., www.example.com. 60 A 192.0.2.1]
            www.example.com.shop.svc.cluster.local. AAAA: NoError [www.example.com.shop.svc.cluster.local. 5 CNAME www.example.com.]
            web.shop.shop.svc.cluster.local. A: NoError [web.shop.shop.svc.cluster.local. 5 CNAME web.shop.svc.cluster.local., web.shop.svc.cluster.local. 5 A 10.96.0.7]
            web.shop.svc.shop.svc.cluster.local. A: NoError [web.shop.svc.shop.svc.cluster.local. 5 CNAME web.shop.svc.cluster.local., web.shop.svc.cluster.local. 5 A 10.96.0.7]
            www.example.com.other.svc.cluster.local. A: NXDomain (ours) []
            www.example.com.shop.svc.cluster.local. A: NXDomain (ours) []
        "#]],
    )
    .await;
}

#[tokio::test]
async fn what_others_said_is_remembered_also_that_there_is_nothing() {
    let (server, asked, task) = outside().await;
    let sources = sources(vec![server], Vec::new());
    for wanted in ["www.example.com.", "WWW.example.com.", "gone.example.", "gone.example."] {
        ask(&sources, POD, wanted, RecordType::A).await;
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 2);
    task.abort();
}

#[tokio::test]
async fn a_stub_domain_has_its_own_servers() {
    let (server, asked, task) = outside().await;
    let stub = Stub { domain: name("example.com."), servers: vec![server] };
    let sources = sources(Vec::new(), vec![stub]);
    let reply = ask(&sources, POD, "www.example.com.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    // Nobody is there to ask about the rest, which is a failure and no denial.
    let reply = ask(&sources, POD, "www.example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
    task.abort();
}

#[tokio::test]
async fn nothing_is_denied_before_the_cluster_is_known() {
    let mut sources = sources(Vec::new(), Vec::new());
    sources.services = Cache::detached(&[]);
    let reply = ask(&sources, POD, "web.shop.svc.cluster.local.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn what_is_no_plain_question_gets_its_code() {
    let sources = sources(Vec::new(), Vec::new());
    let reply = async |change: &dyn Fn(&mut Message)| {
        let mut request = Message::query();
        request.add_query(Query::query(name("web.shop.svc.cluster.local."), RecordType::A));
        change(&mut request);
        sources.reply(&request, IpAddr::from(POD)).await.metadata.response_code
    };
    assert_eq!(reply(&|_| {}).await, ResponseCode::NoError);
    assert_eq!(reply(&|m| m.metadata.op_code = OpCode::Update).await, ResponseCode::NotImp);
    assert_eq!(reply(&|m| m.queries.clear()).await, ResponseCode::FormErr);
    assert_eq!(reply(&|m| m.queries[0].query_class = DNSClass::CH).await, ResponseCode::Refused);
    let newer = |m: &mut Message| {
        let mut edns = Edns::new();
        edns.set_version(1);
        m.set_edns(edns);
    };
    assert_eq!(reply(&newer).await, ResponseCode::BADVERS);
}
