//! The way through: a client of the API server, the server, and a node that answers over TLS with a certificate of the
//! cluster and asks for ours.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Message};

use crate::pki::Cluster;
use crate::serve::tests::{Running, start};
use crate::{Peer, User, body};

const SECRET: &str = "secret-token";

/// Answers logs with what was asked, and upgrades with an echo.
async fn node(identity: &Cluster) -> SocketAddr {
    let serving = identity.node_serving("n1", &["127.0.0.1".to_owned()], Timestamp::now()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority.certificate().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(serving.chain().unwrap(), serving.key().unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(stream, service_fn(answer));
                // The end of the connection is for the client to see.
                drop(connection.with_upgrades().await);
            });
        }
    });
    address
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    assert!(!request.headers().contains_key("authorization"), "credentials must not reach the node");
    let target = request.uri().to_string();
    if target.contains("broken") {
        let mut response = Response::new(Full::from("container \"c\" is waiting to start"));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    if !request.headers().contains_key("upgrade") {
        return Ok(Response::new(Full::from(target)));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        stream.write_all(format!("{target}\n").as_bytes()).await.unwrap();
        let mut byte = [0; 1];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "SPDY/3.1".parse().unwrap());
    Ok(response)
}

async fn write(running: &Running, method: &str, path: &str, object: Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = request.body(body::full(object.to_string())).unwrap();
    let response = running.server.call(request, Peer::Component(User::new("admin", &["system:masters"]))).await;
    let code = response.status();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(code.is_success(), "{method} {path}: {}", String::from_utf8_lossy(&text));
}

/// A server with a node, a pod `p` on it and a pod `broken`.
async fn cluster() -> Running {
    let running = start().await;
    let address = node(&running.identity).await;
    write(&running, "POST", "/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await;
    write(&running, "POST", "/api/v1/namespaces/ns/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    write(&running, "POST", "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let status = json!({"metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}},
    }});
    write(&running, "PUT", "/api/v1/nodes/n1/status", status).await;
    for name in ["p", "broken"] {
        let pod = json!({"metadata": {"name": name},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
        write(&running, "POST", "/api/v1/namespaces/ns/pods", pod).await;
    }
    running
}

#[tokio::test]
async fn logs_come_from_the_node_and_its_refusals_become_statuses() {
    let running = cluster().await;
    let admin = &running.identity.admin.get();
    let (status, text) = running.get(Some(admin), "/api/v1/namespaces/ns/pods/p/log?tailLines=5&follow=true").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "/containerLogs/ns/p/c?follow=true&tailLines=5&stream=All"));
    let (status, text) = running.get(Some(admin), "/api/v1/namespaces/ns/pods/broken/log").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("is waiting to start") && text.contains("\"Status\""), "{text}");
    let (status, text) = running.get(Some(admin), "/api/v1/nodes/n1/proxy/healthz?x=%2F").await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, "/healthz?x=%2F"));
    let (status, _) = running.get(Some(admin), "/api/v1/namespaces/ns/pods/none/log").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn logs_come_as_messages_to_who_asks_for_a_websocket() {
    let running = cluster().await;
    for (protocol, expected) in [
        ("binary.k8s.io", Message::binary("/containerLogs/ns/p/c?stream=All")),
        ("base64.binary.k8s.io", Message::text("L2NvbnRhaW5lckxvZ3MvbnMvcC9jP3N0cmVhbT1BbGw=")),
    ] {
        let stream = running.connect(Some(&running.identity.admin.get()), b"http/1.1").await;
        let uri = "wss://localhost/api/v1/namespaces/ns/pods/p/log".parse().unwrap();
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol);
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), expected);
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))), "the log ends");
    }
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_of_bytes() {
    let running = cluster().await;
    let mut stream = running.connect(Some(&running.identity.admin.get()), b"http/1.1").await;
    let head = format!(
        "POST /api/v1/namespaces/ns/pods/p/exec?command=sh&stdin=true HTTP/1.1\r\nhost: localhost\r\n\
         authorization: Bearer {SECRET}\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("\r\n\r\n") || !seen.ends_with('\n') || !seen.contains("/exec/") {
        seen.push(char::from(stream.read_u8().await.unwrap()));
    }
    assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
    assert!(seen.ends_with("/exec/ns/p/c?input=1&output=1&error=1&command=sh\n"), "{seen}");
    stream.write_all(b"hello").await.unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"hello");
    running.server.stop().await;
    assert!(stream.read_u8().await.is_err(), "a stopped server leaves no tunnel open");
}

/// Answers plain HTTP: a page with a link, a redirect, an upgrade with an echo, else what was asked.
async fn server_in_a_pod() -> SocketAddr {
    // Loopback addresses are refused for endpoints.
    let own = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = own.connect("203.0.113.1:9").and_then(|()| own.local_addr()).map(|address| address.ip());
    let socket = TcpListener::bind((own.unwrap_or([127, 0, 0, 1].into()), 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let connection = hyper::server::conn::http1::Builder::new();
            let served = connection.serve_connection(TokioIo::new(stream), service_fn(in_a_pod)).with_upgrades();
            tokio::spawn(async move { drop(served.await) });
        }
    });
    address
}

async fn in_a_pod(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let mut response = match path.as_str() {
        "/page" => Response::new(Full::from("<a href=\"/rewriteme\">test</a>")),
        "/moved" => Response::new(Full::default()),
        _ => return answer(request).await,
    };
    if path == "/moved" {
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert("location", "/there/".parse().unwrap());
    }
    response.headers_mut().insert("content-type", "text/html; charset=utf-8".parse().unwrap());
    Ok(response)
}

#[tokio::test]
async fn pods_and_services_are_reached_through_the_server() {
    let running = cluster().await;
    let admin = &running.identity.admin.get();
    let address = server_in_a_pod().await;
    let (ip, port) = (address.ip(), address.port());
    let status = json!({"metadata": {"name": "p"}, "status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
    write(&running, "PUT", "/api/v1/namespaces/ns/pods/p/status", status).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
    write(&running, "POST", "/api/v1/namespaces/ns/services", service).await;
    let slice = json!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}]});
    write(&running, "POST", "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices", slice).await;
    for place in [format!("pods/p:{port}"), "services/s:web".to_owned(), "services/http:s:80".to_owned()] {
        let proxy = format!("/api/v1/namespaces/ns/{place}/proxy");
        let (status, text) = running.get(Some(admin), &format!("{proxy}/a%2Fb?c=d")).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "/a%2Fb?c=d"), "{place}");
        let (_, text) = running.get(Some(admin), &format!("{proxy}/page")).await;
        assert_eq!(text, format!("<a href=\"{proxy}/rewriteme\">test</a>"));
        for (request, said, answer) in [
            (format!("GET {proxy}/moved"), "302", format!("location: {proxy}/there/\r\n")),
            (format!("GET {proxy}?c=d"), "301", format!("location: {proxy}/?c=d\r\n")),
            // Whoever does not read is not sent elsewhere: it would come back as a reader.
            (format!("DELETE {proxy}?c=d"), "200", "\r\n\r\n/?c=d".to_owned()),
        ] {
            let mut stream = running.connect(Some(admin), b"http/1.1").await;
            let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut seen = String::new();
            // A peer that ends without TLS's own farewell has said everything before.
            drop(stream.read_to_string(&mut seen).await);
            assert!(seen.starts_with(&format!("HTTP/1.1 {said}")) && seen.contains(&answer), "{request}: {seen}");
        }
        let mut stream = running.connect(Some(admin), b"http/1.1").await;
        let head =
            format!("GET {proxy}/echo HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.ends_with("/echo\n") {
            seen.push(char::from(stream.read_u8().await.unwrap()));
        }
        assert!(seen.starts_with("HTTP/1.1 101"), "{seen}");
        stream.write_all(b"hello").await.unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"hello");
    }
    let (status, text) = running.get(Some(admin), "/api/v1/namespaces/ns/services/s:none/proxy/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
}

#[tokio::test]
async fn without_an_upgrade_exec_is_a_bad_request() {
    let running = cluster().await;
    let admin = &running.identity.admin.get();
    let (status, text) = running.get(Some(admin), "/api/v1/namespaces/ns/pods/p/exec?command=sh").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
}
