//! The client's side of exec and attach, whatever it is carried by: three streams, terminal sizes and a final status.
//!
//! Invariant: buffers are bounded. A client that does not read makes the process wait, and a process that does not read
//! makes the client wait.

mod options;
mod size;
mod spdy;
mod status;
mod websocket;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use options::Wanted;
pub use size::{Size, SizeDecoder};
pub use status::{Outcome, is_json};

use super::{
    answer::Answer,
    handler::Handler,
    spdy as wire,
    upgrade::{self, Offer, Transport, Upgrade},
};

/// Pieces of output on their way to the client; each is at most a read from a pipe.
const OUTPUT_PIECES: usize = 4;
/// Messages of input on their way from a WebSocket to the process.
const INPUT_PIECES: usize = 2;

const OFFER: Offer<'_> = Offer {
    websocket: &[
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
    ],
    unnamed: true,
    spdy: &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"],
};

/// What a process has to do with its client.
pub struct Session {
    /// Present when the client wants to send input; its end is the end of the input.
    pub stdin: Option<Input>,
    pub sizes: watch::Receiver<Option<Size>>,
    pub output: Output,
    /// The client is gone or broke the protocol.
    pub gone: CancellationToken,
}

/// Input as it comes from the client.
pub enum Input {
    Messages(mpsc::Receiver<Bytes>),
    Stream(wire::Incoming),
}

impl Input {
    /// `None` at the end. Safe to cancel.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self {
            Input::Messages(messages) => messages.recv().await,
            Input::Stream(stream) => stream.next().await,
        }
    }
}

enum Message {
    Stdout(Bytes),
    Stderr(Bytes),
    Outcome(Outcome),
}

/// Where a process's output goes. The session ends when it is dropped.
#[derive(Clone)]
pub struct Output(mpsc::Sender<Message>);

/// The client is gone.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

impl Output {
    pub async fn stdout(&self, data: Bytes) -> Result<(), Gone> {
        self.0.send(Message::Stdout(data)).await.map_err(|_| Gone)
    }
    pub async fn stderr(&self, data: Bytes) -> Result<(), Gone> {
        self.0.send(Message::Stderr(data)).await.map_err(|_| Gone)
    }
    /// The last thing a session says.
    pub async fn finish(self, outcome: Outcome) {
        // A client that is gone does not want to know.
        let _gone = self.0.send(Message::Outcome(outcome)).await;
    }
}

/// The transport's end of a session.
struct Wiring {
    stdin: Option<mpsc::Sender<Bytes>>,
    sizes: watch::Sender<Option<Size>>,
    output: mpsc::Receiver<Message>,
    gone: CancellationToken,
}

fn session(stdin: Option<mpsc::Sender<Bytes>>, input: Option<Input>) -> (Session, Wiring) {
    let (sizes, size) = watch::channel(None);
    let (output, messages) = mpsc::channel(OUTPUT_PIECES);
    let gone = CancellationToken::new();
    let session = Session { stdin: input, sizes: size, output: Output(output), gone: gone.clone() };
    (session, Wiring { stdin, sizes, output: messages, gone })
}

/// Answers with the switch of protocols and runs `program` against the client once the connection is ours.
pub fn answer<P, F>(handler: &Handler, request: Request<Incoming>, wanted: Wanted, program: P) -> Answer
where
    P: FnOnce(Session) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Upgrade { transport, protocol, answer } = match upgrade::negotiate(&request, &OFFER) {
        Ok(upgrade) => upgrade,
        Err(answer) => return *answer,
    };
    handler.spawn(async move {
        let io = match hyper::upgrade::on(request).await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "client left before its connection was upgraded"),
        };
        match transport {
            Transport::WebSocket => websocket::run(io, &protocol, &wanted, program).await,
            Transport::Spdy => spdy::run(io, &protocol, &wanted, program).await,
        }
    });
    answer
}
