//! Pairs of SPDY streams: one for data and one for an error text, both with the headers `port` and `requestID`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    task::JoinSet,
    time::Instant,
};

use super::{super::spdy, Destination, READ_BYTES};

/// From the first stream of a pair to the second (upstream's `DefaultStreamCreationTimeout`).
const PAIR_WAIT_MAX: Duration = Duration::from_secs(30);
/// What a client may still send after the pod has ended a connection (as containerd's `portForward`).
const GRACE: Duration = Duration::from_secs(1);

/// Half of a pair that waits for its other half.
struct Waiting {
    stream: spdy::Stream,
    since: Instant,
}

pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(io: S, destination: Destination) {
    let (connection, driver) = spdy::serve(io);
    tokio::join!(driver, forward_all(connection, Arc::new(destination)));
}

/// Ends with the connection; what is forwarded then ends with it.
async fn forward_all(mut connection: spdy::Connection, destination: Arc<Destination>) {
    let mut waiting: HashMap<String, Waiting> = HashMap::new();
    let mut forwards: JoinSet<()> = JoinSet::new();
    loop {
        let first = waiting.values().map(|half| half.since + PAIR_WAIT_MAX).min();
        let expired = async {
            match first {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            Some(_) = forwards.join_next() => continue,
            () = expired => {
                expire(&mut waiting).await;
                continue;
            }
        };
        let Some(stream) = stream else { return };
        let port = match port(&stream) {
            Ok(port) => port,
            Err(problem) => {
                tracing::debug!(problem, "stream refused");
                stream.output.reset().await;
                continue;
            }
        };
        stream.reply().await;
        let id = request_id(&stream);
        let Some(other) = waiting.remove(&id) else {
            waiting.insert(id, Waiting { stream, since: Instant::now() });
            continue;
        };
        let (data, error) = match (is_data(&stream), is_data(&other.stream)) {
            (true, false) => (stream, other.stream),
            (false, true) => (other.stream, stream),
            _ => {
                let message = format!("error processing stream for request {id}: stream already assigned");
                tracing::debug!(message);
                waiting.insert(id, other);
                stream.output.reset().await;
                continue;
            }
        };
        forwards.spawn(forward(destination.clone(), port, data, error));
    }
}

async fn expire(waiting: &mut HashMap<String, Waiting>) {
    let now = Instant::now();
    let late = waiting.extract_if(|_, half| now >= half.since + PAIR_WAIT_MAX).collect::<Vec<_>>();
    for (id, half) in late {
        if !is_data(&half.stream) {
            let message = format!("(request={id}) timed out waiting for streams");
            // A client that is gone needs no error.
            let _gone = half.stream.output.write(message.into()).await;
        }
        half.stream.output.reset().await;
    }
}

fn is_data(stream: &spdy::Stream) -> bool {
    stream.header("streamtype") == Some("data")
}

fn port(stream: &spdy::Stream) -> Result<u16, String> {
    let text = stream.header("port").unwrap_or_default();
    let port = match text.parse::<u16>() {
        Ok(0) => return Err(format!("port {text:?} must be > 0")),
        Ok(port) => port,
        Err(error) => return Err(format!("unable to parse {text:?} as a port: {error}")),
    };
    match stream.header("streamtype") {
        Some("data" | "error") => Ok(port),
        other => Err(format!("invalid stream type {other:?}")),
    }
}

/// Old clients name no request; their pairs are an error stream and the data stream right after it.
fn request_id(stream: &spdy::Stream) -> String {
    match stream.header("requestid").filter(|id| !id.is_empty()) {
        Some(id) => id.to_owned(),
        None if is_data(stream) => stream.id.saturating_sub(2).to_string(),
        None => stream.id.to_string(),
    }
}

async fn forward(destination: Arc<Destination>, port: u16, data: spdy::Stream, error: spdy::Stream) {
    let spdy::Stream { input, output, .. } = data;
    let connection = match destination.connect(port).await {
        Ok(connection) => connection,
        Err(message) => {
            // A client that is gone needs no error.
            let _gone = error.output.write(message.into()).await;
            let _gone = error.output.finish().await;
            return output.reset().await;
        }
    };
    let (read, write) = connection.into_split();
    let both = async {
        let (to, from) = (to_pod(input, write), from_pod(read, &output));
        tokio::pin!(to, from);
        tokio::select! {
            () = &mut to => from.await,
            () = &mut from => {
                // The client need not end a stream that has ended on the other side.
                let _open = tokio::time::timeout(GRACE, to).await;
            }
        }
    };
    tokio::select! {
        () = both => {}
        () = output.was_reset() => {}
    }
    // A client that is gone has closed it already.
    let _gone = error.output.finish().await;
}

async fn to_pod(mut input: spdy::Incoming, mut pod: OwnedWriteHalf) {
    while let Some(data) = input.next().await {
        if let Err(error) = pod.write_all(&data).await {
            return tracing::debug!(%error, "pod does not read a forwarded connection");
        }
    }
    if let Err(error) = pod.shutdown().await {
        tracing::debug!(%error, "ending a forwarded connection");
    }
}

async fn from_pod(mut pod: OwnedReadHalf, output: &spdy::Outgoing) {
    loop {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        match pod.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) => break,
            Err(error) => {
                tracing::debug!(%error, "forwarded connection broke");
                break;
            }
        }
        let data: Bytes = buffer.freeze();
        if output.write(data).await.is_err() {
            return;
        }
    }
    // A client that is gone needs no end.
    let _gone = output.finish().await;
}
