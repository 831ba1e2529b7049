//! Lifecycle hooks: commands, HTTP requests and pauses around a container's life.

use std::{net::IpAddr, path::Path, time::Duration};

use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, SleepAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

use crate::runtime::{Runtime, exec::CaptureError};

/// Output of a failed hook that is reported.
const OUTPUT_BYTES_MAX: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("command {command:?} exited with {code}: {output}")]
    Exit { command: Vec<String>, code: i32, output: String },
    #[error("command {command:?}")]
    Exec { command: Vec<String>, source: CaptureError },
    #[error("port {port:?} is none of the container's")]
    Port { port: String },
    #[error("connect to {host}:{port}")]
    Connect { host: String, port: u16, source: std::io::Error },
    #[error("request {url}")]
    Http { url: String, source: hyper::Error },
    #[error("request {url}: {problem}")]
    Request { url: String, problem: String },
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
}

pub struct Target<'a> {
    pub runtime: &'a Runtime,
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: Option<IpAddr>,
    /// See `Runtime::exec`.
    pub fifos: &'a Path,
}

/// Runs a handler to its end, at most for `limit`.
pub async fn run(handler: &LifecycleHandler, target: &Target<'_>, limit: Duration) -> Result<(), Error> {
    if let Some(exec) = &handler.exec {
        return command(exec, target, limit).await;
    }
    let act = async {
        match (&handler.http_get, &handler.sleep) {
            (Some(get), _) => request(get, target).await,
            (_, Some(SleepAction { seconds })) => {
                tokio::time::sleep(Duration::from_secs((*seconds).max(0) as u64)).await;
                Ok(())
            }
            // The API accepts tcpSocket hooks for old manifests; they never did anything.
            (None, None) => Ok(()),
        }
    };
    tokio::time::timeout(limit, act).await.unwrap_or(Err(Error::TimedOut(limit)))
}

async fn command(exec: &ExecAction, target: &Target<'_>, limit: Duration) -> Result<(), Error> {
    let command = exec.command.clone().unwrap_or_default();
    let run = target.runtime.exec_capture(target.container_id, command.clone(), target.fifos, OUTPUT_BYTES_MAX, limit);
    match run.await {
        Ok(done) if done.exit.code == 0 => Ok(()),
        Ok(done) => {
            let output = String::from_utf8_lossy(&done.output).into_owned();
            Err(Error::Exit { command, code: done.exit.code, output })
        }
        Err(source) => Err(Error::Exec { command, source }),
    }
}

/// Any answer counts: a hook tells, it does not ask.
async fn request(get: &HTTPGetAction, target: &Target<'_>) -> Result<(), Error> {
    let port = port_number(&get.port, target.container)?;
    let host = get.host.clone().filter(|host| !host.is_empty()).or_else(|| target.pod_ip.map(|ip| ip.to_string()));
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let path = get.path.as_deref().unwrap_or_default();
    let url = format!("http://{host}:{port}/{}", path.trim_start_matches('/'));
    if get.scheme.as_deref() == Some("HTTPS") {
        return Err(Error::Request { url, problem: "https in lifecycle hooks is not supported yet".into() });
    }
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|source| Error::Connect {
        host: host.clone(),
        port,
        source,
    })?;
    let failed = |source| Error::Http { url: url.clone(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let mut request = http::Request::get(format!("/{}", path.trim_start_matches('/')))
        .header("host", format!("{host}:{port}"))
        .header("user-agent", "kube-lifecycle/1.36");
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| Error::Request { url: url.clone(), problem: error.to_string() })?;
    tokio::select! {
        answer = sender.send_request(request) => answer.map(drop).map_err(failed),
        ended = connection => ended.map_err(failed),
    }
}

/// A named port is looked up in the container.
pub fn port_number(port: &IntOrString, container: &Container) -> Result<u16, Error> {
    let unknown = || Error::Port { port: format!("{port:?}") };
    match port {
        IntOrString::Int(number) => u16::try_from(*number).map_err(|_| unknown()),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            let number = named.map(|port| port.container_port).or_else(|| name.parse().ok()).ok_or_else(unknown)?;
            u16::try_from(number).map_err(|_| unknown())
        }
    }
}
