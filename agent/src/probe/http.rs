//! HTTP probes: one GET, without keeping the connection; certificates are not verified, as upstream does not.

use std::{sync::Arc, time::Duration};

use api_client::transport::AcceptAny;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::attempt::{Error, authority, connect};

/// Codes from this…
const SUCCESS_MIN: u16 = 200;
/// …to below this are a success; redirects are not followed, and count as one.
const SUCCESS_END: u16 = 400;

pub async fn get(host: &str, port: u16, action: &HTTPGetAction, timeout: Duration) -> Result<(), Error> {
    let is_tls = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let address = authority(host, port);
    let url = format!("{}://{address}{path}", if is_tls { "https" } else { "http" });
    let failed = |problem: String| Error::Http { method: "Get", url: url.clone(), problem };
    let ask = async {
        let stream = connect(&address, timeout).await.map_err(|e| failed(e.to_string()))?;
        let request = request(&address, &path, action).map_err(|e| failed(e.to_string()))?;
        let status = if is_tls {
            let name = ServerName::try_from(host.to_owned()).map_err(|e| failed(e.to_string()))?;
            let stream = connector()
                .map_err(|e| failed(e.to_string()))?
                .connect(name, stream)
                .await
                .map_err(|e| failed(e.to_string()))?;
            send(stream, request).await
        } else {
            send(stream, request).await
        };
        status.map_err(|e| failed(e.to_string()))
    };
    match tokio::time::timeout(timeout, ask).await {
        Ok(Ok(status)) if (SUCCESS_MIN..SUCCESS_END).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(Error::HttpStatus(status)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())),
    }
}

fn request(address: &str, path: &str, action: &HTTPGetAction) -> Result<Request<Empty<Bytes>>, http::Error> {
    let given = action.http_headers.as_deref().unwrap_or_default();
    let has = |name: &str| given.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    let mut request = Request::get(path);
    if !has("host") {
        request = request.header(header::HOST, address);
    }
    if !has("user-agent") {
        request = request.header(header::USER_AGENT, "kube-probe/1.36");
    }
    if !has("accept") {
        request = request.header(header::ACCEPT, "*/*");
    }
    for entry in given {
        request = request.header(entry.name.as_str(), entry.value.as_str());
    }
    request.header(header::CONNECTION, "close").body(Empty::new())
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<u16, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    // The connection is driven here and dropped with the answer's headers: bodies are of no interest.
    tokio::select! {
        answer = &mut answer => Ok(answer?.status().as_u16()),
        ended = &mut connection => { ended?; Ok(answer.await?.status().as_u16()) }
    }
}

fn connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Probes a server that answers every connection with `answer`.
    async fn probe(answer: &'static str) -> Result<(), Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut head = [0; 1024];
            let read = stream.read(&mut head).await.expect("a request");
            assert!(String::from_utf8_lossy(&head[..read]).starts_with("GET /healthz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.expect("written");
        };
        let action = HTTPGetAction {
            path: Some("/healthz".to_owned()),
            port: IntOrString::Int(i32::from(port)),
            ..HTTPGetAction::default()
        };
        let (result, ()) = tokio::join!(get("127.0.0.1", port, &action, Duration::from_secs(5)), serve);
        result
    }

    #[tokio::test]
    async fn the_status_code_decides() {
        assert!(probe("HTTP/1.1 204 No Content\r\n\r\n").await.is_ok());
        assert!(probe("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await.is_ok());
        let failure = probe("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await.expect_err("refused");
        assert_eq!(failure.to_string(), "HTTP probe failed with statuscode: 503");
        assert!(probe("nonsense\r\n\r\n").await.is_err());
    }
}
