//! Connections to ports inside a pod's network namespace.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use tokio::{net::TcpStream, sync::oneshot};

const CONNECT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}: {source}", path.display())]
    Namespace { action: &'static str, path: PathBuf, source: io::Error },
    #[error("start thread: {0}")]
    Thread(io::Error),
    #[error("the connecting thread ended early")]
    ThreadEnded,
    #[error("failed to connect to localhost:{port} inside namespace {namespace:?}, IPv4: {v4} IPv6: {v6}")]
    Connect { port: u16, namespace: String, v4: io::Error, v6: io::Error },
}

/// Connects to the port on the loopback of a namespace. A thread that has entered one can't go back to a pool, so it
/// is a thread of its own; the socket belongs to the namespace for good.
pub async fn connect(netns: Option<&Path>, port: u16) -> Result<TcpStream, Error> {
    let (done, result) = oneshot::channel();
    let netns = netns.map(Path::to_owned);
    let thread = std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        // Nobody waits any more when the client has left.
        let _left = done.send(connect_here(netns.as_deref(), port));
    });
    thread.map_err(Error::Thread)?;
    let stream = result.await.unwrap_or(Err(Error::ThreadEnded))?;
    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(Error::Thread)
}

fn connect_here(netns: Option<&Path>, port: u16) -> Result<std::net::TcpStream, Error> {
    if let Some(path) = netns {
        let failed = |action: &'static str| move |source| Error::Namespace { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed("open network namespace"))?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("enter network namespace")(errno.into()))?;
    }
    let dial = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, CONNECT_MAX);
    let v4 = match dial((Ipv4Addr::LOCALHOST, port).into()) {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    dial((Ipv6Addr::LOCALHOST, port).into()).map_err(|v6| Error::Connect {
        port,
        namespace: netns.map(|path| path.display().to_string()).unwrap_or_default(),
        v4,
        v6,
    })
}
