//! One attempt of a probe: run, ask, connect; an error says what was tried in upstream's words.

use std::{io, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

use super::{Target, grpc, http};
use crate::runtime::{Runtime, exec::CaptureError};

/// Output of an exec probe that is kept for the message (upstream's `maxReadLength`).
const OUTPUT_BYTES_MAX: usize = 10 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command's output.
    #[error("{0}")]
    Exec(String),
    #[error("command {command:?} timed out after {timeout:?}")]
    ExecTimeout { command: Vec<String>, timeout: Duration },
    #[error(transparent)]
    Runtime(#[from] CaptureError),
    #[error("HTTP probe failed with statuscode: {0}")]
    HttpStatus(u16),
    #[error("{method} {url:?}: {problem}")]
    Http { method: &'static str, url: String, problem: String },
    #[error("dial tcp {address}: {problem}")]
    Tcp { address: String, problem: String },
    #[error("gRPC probe of {address}: {problem}")]
    Grpc { address: String, problem: String },
    #[error("couldn't find port: {0}")]
    Port(String),
    #[error("the pod has no address yet")]
    NoAddress,
    #[error("the probe names nothing to do")]
    Empty,
}

pub async fn attempt(runtime: &Runtime, target: &Target, probe: &Probe, timeout: Duration) -> Result<(), Error> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        return run_command(runtime, target, command, timeout).await;
    }
    if let Some(get) = &probe.http_get {
        let host = host(target, get.host.as_deref())?;
        let port = port(target, &get.port)?;
        return http::get(&host, port, get, timeout).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        let address = authority(&host(target, socket.host.as_deref())?, port(target, &socket.port)?);
        return connect(&address, timeout).await.map(drop);
    }
    if let Some(grpc) = &probe.grpc {
        let port = u16::try_from(grpc.port).map_err(|_| Error::Port(grpc.port.to_string()))?;
        let address = authority(&host(target, None)?, port);
        return grpc::check(&address, grpc.service.as_deref().unwrap_or_default(), timeout).await;
    }
    Err(Error::Empty)
}

/// A TCP connection within `timeout`.
pub async fn connect(address: &str, timeout: Duration) -> Result<TcpStream, Error> {
    let failed = |problem: String| Error::Tcp { address: address.to_owned(), problem };
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(connect_problem(&error))),
        Err(_) => Err(failed("i/o timeout".to_owned())),
    }
}

/// What users of Kubernetes know these failures by.
fn connect_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

async fn run_command(runtime: &Runtime, target: &Target, command: Vec<String>, timeout: Duration) -> Result<(), Error> {
    let ran =
        runtime.exec_capture(&target.container_id, command.clone(), &target.fifos, OUTPUT_BYTES_MAX, timeout).await;
    match ran {
        Ok(output) if output.exit.code == 0 => Ok(()),
        Ok(output) => Err(Error::Exec(String::from_utf8_lossy(&output.output).trim_end().to_owned())),
        Err(CaptureError::TimedOut(timeout)) => Err(Error::ExecTimeout { command, timeout }),
        Err(error) => Err(error.into()),
    }
}

fn host(target: &Target, given: Option<&str>) -> Result<String, Error> {
    match given.filter(|h| !h.is_empty()) {
        Some(host) => Ok(host.to_owned()),
        None => target.pod_ip.map(|ip| ip.to_string()).ok_or(Error::NoAddress),
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A port by number, or by name among the container's.
fn port(target: &Target, port: &IntOrString) -> Result<u16, Error> {
    let spec = target.pod.spec.iter();
    let containers = spec.flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let own = |c: &&Container| c.name == target.container;
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => containers
            .filter(own)
            .flat_map(|c| c.ports.iter().flatten())
            .find(|p| p.name.as_ref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    let text = || match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| Error::Port(text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_told_in_known_words() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let error = connect(&address, Duration::from_secs(5)).await.unwrap_err().to_string();
        assert_eq!(error, format!("dial tcp {address}: connect: connection refused"));
    }
}
