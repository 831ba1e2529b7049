//! One plain HTTP request, for talking to what runs in pods.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How long one request may take as a whole step (connect, or one read).
const LIMIT: Duration = Duration::from_secs(2);

/// The body of `GET /`; anything but 200 is an error.
pub fn get(address: SocketAddr) -> Result<String> {
    get_path(address, "/")
}

/// The body of `GET path`; anything but 200 is an error.
pub fn get_path(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read from {address}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP answer: {answer:?}"))?;
    if !head.contains(" 200 ") {
        bail!("{address} answered {head}");
    }
    Ok(body.to_owned())
}
