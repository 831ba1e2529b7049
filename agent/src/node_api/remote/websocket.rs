//! Exec and attach over a WebSocket: each message begins with the number of its channel.
//!
//! `v5.channel.k8s.io` adds half-close (channel 255 names the channel that ends); the `base64` variants send text; the
//! ones before version 4 tell only failures, and as text.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{
    self, Message as Frame, protocol::CloseFrame, protocol::frame::coding::CloseCode,
};

use super::{
    super::websocket::{Coding, LINGER, Socket, accept, discard},
    INPUT_PIECES, Input, Message, Session, SizeDecoder, Wanted, Wiring, session,
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// After so long without output a ping is sent: a client that has vanished shows by that even while nothing is read
/// from it because the process does not read its input.
const PING_INTERVAL: Duration = Duration::from_secs(30);

pub async fn run<S, P, F>(io: S, protocol: &str, wanted: &Wanted, program: P)
where
    S: AsyncRead + AsyncWrite + Unpin,
    P: FnOnce(Session) -> F,
    F: Future<Output = ()>,
{
    let coding = Coding::of(protocol);
    let socket = accept(io).await;
    let (stdin, input) = if wanted.stdin {
        let (sender, receiver) = mpsc::channel(INPUT_PIECES);
        (Some(sender), Some(Input::Messages(receiver)))
    } else {
        (None, None)
    };
    let (session, wiring) = session(stdin, input);
    tokio::join!(program(session), carry(socket, coding, wanted, wiring));
}

async fn carry<S>(socket: Socket<S>, coding: Coding, wanted: &Wanted, wiring: Wiring)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Wiring { mut stdin, sizes, mut output, gone } = wiring;
    let (mut sink, mut source) = socket.split();
    let receive = async {
        let mut decoder = SizeDecoder::default();
        while let Some(Ok(frame)) = source.next().await {
            let message = match frame {
                Frame::Binary(bytes) => bytes,
                Frame::Text(text) => Bytes::from(text),
                Frame::Close(_) => break,
                _ => continue,
            };
            match coding.parse(&message) {
                Some((CLOSE, data)) if coding.half_close && data.as_ref() == [STDIN] => stdin = None,
                Some((STDIN, data)) if !data.is_empty() => {
                    // Fails when the process does not read any more.
                    if let Some(sender) = &stdin
                        && sender.send(data).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Some((RESIZE, data)) => {
                    if let Some(size) = decoder.push(&data) {
                        sizes.send_replace(Some(size));
                    }
                }
                _ => {}
            }
        }
        stdin = None;
    };
    let send = async {
        // Tells the client that the session stands, as upstream does.
        let first = if wanted.stdout {
            STDOUT
        } else if wanted.stderr {
            STDERR
        } else {
            ERROR
        };
        sink.send(coding.frame(first, b"")).await?;
        loop {
            let message = match tokio::time::timeout(PING_INTERVAL, output.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(_) => {
                    sink.send(Frame::Ping(Bytes::new())).await?;
                    continue;
                }
            };
            let (channel, data) = match message {
                Message::Stdout(data) => (STDOUT, data),
                Message::Stderr(data) => (STDERR, data),
                Message::Outcome(outcome) => (ERROR, outcome.text(coding.json).into()),
            };
            if !data.is_empty() {
                sink.send(coding.frame(channel, &data)).await?;
            }
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Frame::Close(Some(close))).await
    };
    let sent = {
        tokio::pin!(receive);
        tokio::select! {
            () = &mut receive => None,
            sent = send => Some(sent),
        }
    };
    gone.cancel();
    match sent {
        // Closed by us: what the client still sends is read, or the close would destroy what it has not read yet.
        Some(Ok(())) => discard(source).await,
        Some(Err(error)) => tracing::debug!(%error, "client of a session left"),
        None => {
            let closed: Result<Result<(), tungstenite::Error>, _> = tokio::time::timeout(LINGER, sink.close()).await;
            tracing::debug!(?closed, "client closed a session");
        }
    }
}
