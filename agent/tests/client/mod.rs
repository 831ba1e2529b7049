//! A client of the node API: certificates, requests, WebSockets and the client's side of SPDY.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use agent::node_api::spdy::{
    frame::{Decoder, Encoder, Frame},
    headers::Headers,
};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message, tungstenite::protocol::Role};

/// Long enough for a busy machine; a test that meets it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} took too long"))
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Writes its certificate to `path`.
    pub fn new(path: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        std::fs::write(path, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key) }
    }

    pub fn client(&self, name: &str, group: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

pub struct Client {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Client {
    /// Trusts the server's certificate file.
    pub fn new(
        address: SocketAddr,
        server: &Path,
        identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(server).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match identity {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        Self { address, connector: TlsConnector::from(Arc::new(config)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn send(&self, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = self.connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        in_time("the head of an answer", sender.send_request(request)).await.unwrap()
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let base = Request::builder().method(method).uri(path).header("host", "localhost");
        headers.iter().fold(base, |builder, (name, value)| builder.header(*name, *value)).body(Empty::new()).unwrap()
    }

    pub async fn stream(&self, path: &str) -> Response<Incoming> {
        self.send(self.request("GET", path, &[])).await
    }

    /// Code and whole body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.stream(path).await;
        let code = answer.status().as_u16();
        let body = in_time("a body", answer.into_body().collect()).await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    async fn upgrade(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (HeaderMap, TokioIo<Upgraded>) {
        let mut all = vec![("connection", "Upgrade")];
        all.extend_from_slice(headers);
        let answer = self.send(self.request(method, path, &all)).await;
        let headers = answer.headers().clone();
        if answer.status() != 101 {
            let code = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            panic!("{path} answered {code}: {}", String::from_utf8_lossy(&body));
        }
        (headers, TokioIo::new(hyper::upgrade::on(answer).await.unwrap()))
    }

    pub async fn websocket(&self, path: &str, protocol: &str) -> WebSocket {
        let mut headers = vec![
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        if !protocol.is_empty() {
            headers.push(("sec-websocket-protocol", protocol));
        }
        let (headers, io) = self.upgrade("GET", path, &headers).await;
        assert_eq!(headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        if !protocol.is_empty() {
            assert_eq!(headers["sec-websocket-protocol"], protocol);
        }
        WebSocket { socket: WebSocketStream::from_raw_socket(io, Role::Client, None).await }
    }

    pub async fn spdy(&self, path: &str, protocol: &str) -> Spdy<TokioIo<Upgraded>> {
        let headers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)];
        let (headers, io) = self.upgrade("POST", path, &headers).await;
        assert_eq!(headers["x-stream-protocol-version"], protocol);
        Spdy::new(io)
    }
}

pub struct WebSocket {
    pub socket: WebSocketStream<TokioIo<Upgraded>>,
}

/// What a session said on each channel until it was closed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
    pub error: String,
    pub closed: bool,
}

impl Said {
    pub fn exit_code(&self) -> i64 {
        let status: serde_json::Value = serde_json::from_str(&self.error).unwrap_or_default();
        match status["status"].as_str() {
            Some("Success") => 0,
            _ => status["details"]["causes"][0]["message"]
                .as_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("no exit code: {self:?}")),
        }
    }
}

impl WebSocket {
    pub async fn send(&mut self, channel: u8, data: &[u8]) {
        self.socket.send(Message::binary([&[channel], data].concat())).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        in_time("a message", async {
            loop {
                match self.socket.next().await? {
                    Ok(Message::Binary(bytes)) => return Some((bytes[0], bytes[1..].to_vec())),
                    Ok(Message::Text(text)) => return Some((text.as_bytes()[0], text.as_bytes()[1..].to_vec())),
                    Ok(Message::Close(_)) => return None,
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }

    /// Reads until a channel has said a text.
    pub async fn until(&mut self, channel: u8, text: &str) -> String {
        let mut said = String::new();
        while !said.contains(text) {
            let Some((from, data)) = self.next().await else { panic!("ended after {said:?}") };
            if from == channel {
                said.push_str(&String::from_utf8_lossy(&data));
            }
        }
        said
    }

    pub async fn rest(mut self) -> Said {
        let mut said = Said::default();
        while let Some((channel, data)) = self.next().await {
            let text = String::from_utf8_lossy(&data).into_owned();
            // The text variants number channels by digits.
            match channel % b'0' {
                1 => said.stdout += &text,
                2 => said.stderr += &text,
                3 => said.error += &text,
                other => panic!("message on channel {other}"),
            }
        }
        said.closed = true;
        said
    }
}

/// The byte stream in a WebSocket's binary messages, as a pipe.
pub struct Bytestream;

impl Bytestream {
    pub fn over(websocket: WebSocket) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (mut read, mut write) = tokio::io::split(theirs);
        let (mut sink, mut source) = websocket.socket.split();
        tokio::spawn(async move {
            let mut buffer = BytesMut::new();
            while read.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
                sink.send(Message::Binary(buffer.split().freeze())).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Some(Ok(message)) = source.next().await {
                if let Message::Binary(bytes) = message
                    && write.write_all(&bytes).await.is_err()
                {
                    return;
                }
            }
        });
        ours
    }
}

/// The client's side of a SPDY connection.
pub struct Spdy<S> {
    io: S,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
    last: u32,
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Spdy<S> {
    pub fn new(io: S) -> Self {
        let (encoder, decoder) = (Encoder::default(), Decoder::default());
        Self { io, encoder, decoder, buffer: BytesMut::new(), last: 0 }
    }

    pub async fn send(&mut self, frame: Frame) {
        let mut out = BytesMut::new();
        self.encoder.encode(&frame, &mut out).unwrap();
        self.io.write_all(&out).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub async fn data(&mut self, stream: u32, text: &str) {
        self.send(Frame::Data { stream, fin: false, data: Bytes::from(text.to_owned()) }).await;
    }

    pub async fn finish(&mut self, stream: u32) {
        self.send(Frame::Data { stream, fin: true, data: Bytes::new() }).await;
    }

    /// Opens a stream and waits for the reply to it.
    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        self.last = if self.last == 0 { 1 } else { self.last + 2 };
        let stream = self.last;
        let headers = Headers(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        let frame = Frame::SynStream { stream, associated: 0, priority: 0, fin: false, unidirectional: false, headers };
        self.send(frame).await;
        match self.next().await {
            Some(Frame::SynReply { stream: replied, .. }) if replied == stream => stream,
            other => panic!("not a reply: {other:?}"),
        }
    }

    /// The next frame that is no window update.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.decode(&mut self.buffer).unwrap() {
                Some(Frame::WindowUpdate { .. }) => {}
                Some(frame) => return Some(frame),
                None => {
                    if in_time("a frame", self.io.read_buf(&mut self.buffer)).await.unwrap_or(0) == 0 {
                        return None;
                    }
                }
            }
        }
    }

    /// What the streams say until each has ended or been reset; `true` marks the ones that were reset.
    pub async fn all(&mut self, streams: &[u32]) -> Vec<(String, bool)> {
        let mut said = vec![(Vec::new(), None); streams.len()];
        while said.iter().any(|(_, end)| end.is_none()) {
            let frame = self.next().await.unwrap_or_else(|| panic!("connection ended: {said:?}"));
            let (id, end) = match &frame {
                Frame::Data { stream, fin, .. } => (*stream, fin.then_some(false)),
                Frame::RstStream { stream, .. } => (*stream, Some(true)),
                Frame::Ping(_) => continue,
                other => panic!("unexpected {other:?}"),
            };
            let Some(index) = streams.iter().position(|own| *own == id) else { panic!("unexpected {frame:?}") };
            assert_eq!(said[index].1, None, "stream {id} had ended");
            if let Frame::Data { data, .. } = &frame {
                said[index].0.extend_from_slice(data);
            }
            said[index].1 = end;
        }
        said.into_iter().map(|(text, end)| (String::from_utf8(text).unwrap(), end.unwrap_or(false))).collect()
    }
}
