//! gRPC probes: `grpc.health.v1.Health/Check`, spoken directly over HTTP/2, as the two messages have one field each.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, client::conn::http2, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::attempt::{Error, connect};

/// An answer is a few bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// `HealthCheckResponse.SERVING`.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub async fn check(address: &str, service: &str, timeout: Duration) -> Result<(), Error> {
    let failed = |problem: String| Error::Grpc { address: address.to_owned(), problem };
    let ask = async {
        let stream = connect(address, timeout).await?;
        ask(stream, address, service).await.map_err(|e| failed(e.to_string()))
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(SERVING)) => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("service {service:?} is not serving (status {status})"))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(failed("timed out".to_owned())),
    }
}

async fn ask(
    stream: tokio::net::TcpStream,
    address: &str,
    service: &str,
) -> Result<i32, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut message = BytesMut::new();
    let body = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    // A gRPC message: not compressed, its length, itself.
    message.put_u8(0);
    message.put_u32(u32::try_from(body.len())?);
    message.put_slice(&body);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36")
        .body(Full::<Bytes>::new(message.freeze()))?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let code = |headers: &http::HeaderMap| headers.get("grpc-status").cloned();
        let early = code(answer.headers());
        let whole = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?;
        let status = early.or_else(|| whole.trailers().and_then(code));
        if status.as_ref().is_some_and(|s| s.as_bytes() != b"0") {
            return Err(format!("the server answered grpc-status {status:?}").into());
        }
        let bytes = whole.to_bytes();
        let message = bytes.get(5..).ok_or("the answer is too short")?;
        Ok(HealthCheckResponse::decode(message)?.status)
    };
    tokio::select! {
        status = exchange => status,
        ended = connection => { ended?; Err("the connection ended before an answer".into()) }
    }
}
