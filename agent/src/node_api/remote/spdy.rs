//! Exec and attach over SPDY: the client opens a stream for each of error, stdin, stdout, stderr and resize, named by
//! the header `streamType`.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Input, Message, Session, SizeDecoder, Wanted, Wiring, is_json, session, wire};

/// How long a client may take to open its streams (upstream's `DefaultStreamCreationTimeout`).
const STREAMS_WAIT_MAX: Duration = Duration::from_secs(30);
const STREAM_TYPE: &str = "streamtype";

/// The streams of a session; each version opens those that the request asked for.
#[derive(Default)]
struct Streams {
    error: Option<wire::Stream>,
    stdin: Option<wire::Stream>,
    stdout: Option<wire::Stream>,
    stderr: Option<wire::Stream>,
    resize: Option<wire::Stream>,
}

impl Streams {
    fn slot(&mut self, name: &str) -> Option<&mut Option<wire::Stream>> {
        match name {
            "error" => Some(&mut self.error),
            "stdin" => Some(&mut self.stdin),
            "stdout" => Some(&mut self.stdout),
            "stderr" => Some(&mut self.stderr),
            "resize" => Some(&mut self.resize),
            _ => None,
        }
    }

    fn are_complete(&self, wanted: &Wanted, resizes: bool) -> bool {
        self.error.is_some()
            && self.stdin.is_some() >= wanted.stdin
            && self.stdout.is_some() >= wanted.stdout
            && self.stderr.is_some() >= wanted.stderr
            && self.resize.is_some() >= (wanted.tty && resizes)
    }
}

pub async fn run<S, P, F>(io: S, protocol: &str, wanted: &Wanted, program: P)
where
    S: AsyncRead + AsyncWrite + Unpin,
    P: FnOnce(Session) -> F,
    F: Future<Output = ()>,
{
    let (connection, driver) = wire::serve(io);
    tokio::join!(driver, converse(connection, protocol, wanted, program));
}

async fn converse<P, F>(mut connection: wire::Connection, protocol: &str, wanted: &Wanted, program: P)
where
    P: FnOnce(Session) -> F,
    F: Future<Output = ()>,
{
    let resizes = protocol.starts_with("v3.") || protocol.starts_with("v4.");
    let mut streams = Streams::default();
    let all = async {
        while !streams.are_complete(wanted, resizes) {
            let stream = connection.accept().await?;
            let name = stream.header(STREAM_TYPE).unwrap_or_default().to_owned();
            match streams.slot(&name) {
                Some(slot) if slot.is_none() => {
                    stream.reply().await;
                    *slot = Some(stream);
                }
                _ => {
                    tracing::debug!(name, "client opened a stream nobody asked for");
                    stream.output.reset().await;
                }
            }
        }
        Some(())
    };
    match tokio::time::timeout(STREAMS_WAIT_MAX, all).await {
        Ok(Some(())) => {}
        Ok(None) => return,
        Err(_) => {
            tracing::debug!("client did not open the streams of its session in time");
            return connection.close().await;
        }
    }
    let input = streams.stdin.take().map(|stream| {
        // Closed in its other direction at once: nothing is ever sent on it.
        let wire::Stream { input, .. } = stream;
        Input::Stream(input)
    });
    let (session, wiring) = session(None, input);
    let carried = carry(&mut connection, streams, is_json(protocol), wiring);
    tokio::join!(program(session), carried);
    connection.close().await;
}

async fn carry(connection: &mut wire::Connection, streams: Streams, json: bool, wiring: Wiring) {
    let Wiring { sizes, mut output, gone, .. } = wiring;
    let Streams { error, stdout, stderr, resize, .. } = streams;
    let resize = async {
        let mut decoder = SizeDecoder::default();
        if let Some(mut stream) = resize {
            while let Some(bytes) = stream.input.next().await {
                if let Some(size) = decoder.push(&bytes) {
                    sizes.send_replace(Some(size));
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let send = async {
        while let Some(message) = output.recv().await {
            let (stream, data) = match message {
                Message::Stdout(data) => (&stdout, data),
                Message::Stderr(data) => (&stderr, data),
                Message::Outcome(outcome) => (&error, Bytes::from(outcome.text(json))),
            };
            let Some(stream) = stream else { continue };
            if !data.is_empty() {
                stream.output.write(data).await?;
            }
        }
        for stream in [stdout, stderr, error].into_iter().flatten() {
            stream.output.finish().await?;
        }
        Ok::<_, wire::Closed>(())
    };
    tokio::select! {
        sent = send => if sent.is_err() { tracing::debug!("client of a session left") },
        () = resize => {}
        () = connection.closed() => {}
    }
    gone.cancel();
}
