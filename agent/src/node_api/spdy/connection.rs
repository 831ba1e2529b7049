//! The server's side of a SPDY connection: the client opens streams, each is read and written on its own.
//!
//! Flow control: the client gets its window back as its data is consumed. A client that keeps to windows (64 KiB) never
//! blocks others; kubectl's SPDY knows no windows, so a stream whose reader falls `STREAM_BYTES_MAX` behind makes the
//! whole connection wait. For the same reason what we send is bounded by the connection itself, not by windows:
//! waiting for a window that such a peer never grants would be for ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    frame::{Decoder, Encoder, Frame, reason},
    headers::Headers,
};

/// Streams open at once. A forwarded connection takes two.
const STREAMS_MAX: usize = 2048;
/// New streams nobody has taken yet.
const ACCEPT_MAX: usize = 16;
/// Received and not yet consumed of one stream.
const STREAM_BYTES_MAX: u32 = 256 << 10;
/// What a piece costs beside its bytes, so that a flood of tiny ones is bounded too.
const PIECE_COST_BYTES: u32 = 256;
/// Consumed bytes after which the client gets them back for its window; half of a window.
const CREDIT_BYTES: u32 = 32 << 10;
/// Frames on their way out; data frames are as long as one read of their source.
const FRAMES: usize = 8;
const READ_BYTES: usize = 32 << 10;
/// Frames are written together up to this.
const WRITE_BYTES: usize = 64 << 10;
/// How long a closed connection waits for the client to close its side.
const LINGER: Duration = Duration::from_secs(5);
/// After so long without a frame to send a ping is sent: a client that has vanished shows by that even while nothing is
/// read from it.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Pings of a server are even.
const OUR_PING: u32 = 2;
/// Without a frame but pings in either direction for so long a connection ends (the kubelet's
/// `streamingConnectionIdleTimeout`).
const IDLE_MAX: Duration = Duration::from_secs(4 * 3600);

/// The connection or the stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Where streams come from. Dropping it closes the connection.
pub struct Connection {
    accepted: mpsc::Receiver<Stream>,
    frames: mpsc::Sender<Out>,
    gone: CancellationToken,
}

/// A stream as the client opened it; reply to it or reset it.
pub struct Stream {
    pub id: u32,
    pub headers: Headers,
    pub input: Incoming,
    pub output: Outgoing,
}

/// What the client sends on a stream.
pub struct Incoming {
    id: u32,
    pieces: mpsc::UnboundedReceiver<Piece>,
    frames: mpsc::Sender<Out>,
    consumed: u32,
}

/// Our direction of a stream.
pub struct Outgoing {
    id: u32,
    frames: mpsc::Sender<Out>,
    reset: CancellationToken,
    _place: Arc<OwnedSemaphorePermit>,
}

enum Out {
    Frame(Frame),
    /// The last thing sent.
    Close,
}

struct Piece {
    data: Bytes,
    /// Its share of the stream's room.
    _room: OwnedSemaphorePermit,
}

/// A stream as the receiving side sees it, until the client ends or resets it.
struct Inlet {
    pieces: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
    reset: CancellationToken,
}

impl Connection {
    /// The next stream; `None` when the client has gone. Safe to cancel.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    pub async fn closed(&self) {
        self.gone.cancelled().await;
    }

    /// Sends what is on its way and says goodbye.
    pub async fn close(self) {
        // Fails when the connection is closed already.
        let _closed = self.frames.send(Out::Close).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Full: frames nobody reads; the connection ends then by its driver being dropped or timing out.
        let _full = self.frames.try_send(Out::Close);
    }
}

impl Stream {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Tells the client that the stream is taken. Must come before any data: clients drop what comes earlier.
    pub async fn reply(&self) {
        let frame = Frame::SynReply { stream: self.id, fin: false, headers: Headers::default() };
        // A connection that is over shows in the next read or write.
        let _over = self.output.send(frame).await;
    }
}

impl Incoming {
    /// `None` when the client has ended the stream. Safe to cancel.
    pub async fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.recv().await?;
        self.consumed = self.consumed.saturating_add(piece.data.len() as u32);
        // With the queue full the credit waits for the next time.
        if self.consumed >= CREDIT_BYTES && credit(&self.frames, self.id, self.consumed) {
            self.consumed = 0;
        }
        Some(piece.data)
    }
}

/// Gives bytes back to the windows of a stream and of the connection.
fn credit(frames: &mpsc::Sender<Out>, stream: u32, delta: u32) -> bool {
    let Ok(places) = frames.try_reserve_many(2) else { return false };
    for (place, stream) in places.zip([stream, 0]) {
        place.send(Out::Frame(Frame::WindowUpdate { stream, delta }));
    }
    true
}

impl Outgoing {
    async fn send(&self, frame: Frame) -> Result<(), Closed> {
        if self.reset.is_cancelled() {
            return Err(Closed);
        }
        self.frames.send(Out::Frame(frame)).await.map_err(|_| Closed)
    }

    pub async fn write(&self, data: Bytes) -> Result<(), Closed> {
        self.send(Frame::Data { stream: self.id, fin: false, data }).await
    }

    /// Ends our direction.
    pub async fn finish(&self) -> Result<(), Closed> {
        self.send(Frame::Data { stream: self.id, fin: true, data: Bytes::new() }).await
    }

    /// Ends both directions at once.
    pub async fn reset(&self) {
        // A stream the client has reset, or whose connection is over, needs none.
        let _over = self.send(Frame::RstStream { stream: self.id, reason: reason::CANCEL }).await;
        self.reset.cancel();
    }

    /// Returns when the client has reset the stream or we have.
    pub async fn was_reset(&self) {
        self.reset.cancelled().await;
    }
}

/// Splits a fresh connection into its streams and the driver that moves its bytes. The driver must be polled beside
/// whatever uses the streams; it ends with the connection.
pub fn serve<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> (Connection, impl Future<Output = ()>) {
    let (accept, accepted) = mpsc::channel(ACCEPT_MAX);
    let (frames, queue) = mpsc::channel(FRAMES);
    let gone = CancellationToken::new();
    let connection = Connection { accepted, frames: frames.clone(), gone: gone.clone() };
    let driver = async move {
        let (read, write) = tokio::io::split(io);
        let activity = Activity::default();
        let receiver = Receiver {
            decoder: Decoder::default(),
            streams: HashMap::new(),
            last: 0,
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            accept,
            frames,
        };
        {
            let reader = receiver.run(read, &activity);
            let writer = send(write, queue, &activity);
            tokio::pin!(reader, writer);
            tokio::select! {
                () = &mut reader => {}
                () = &mut writer => {
                    gone.cancel();
                    // What the client still sends is read, or the close would destroy what it has not read yet.
                    if tokio::time::timeout(LINGER, &mut reader).await.is_err() {
                        tracing::debug!("client did not close its side of a connection");
                    }
                }
                () = activity.idle() => tracing::debug!("connection without traffic is closed"),
            }
        }
        gone.cancel();
    };
    (connection, driver)
}

/// When something last moved.
struct Activity(Mutex<Instant>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Activity {
    fn note(&self, frame: &Frame) {
        if matches!(frame, Frame::Ping(_)) {
            return;
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn idle(&self) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= IDLE_MAX {
                return;
            }
            tokio::time::sleep_until(last + IDLE_MAX).await;
        }
    }
}

async fn send(mut io: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Out>, activity: &Activity) {
    let mut encoder = Encoder::default();
    let mut buffer = BytesMut::new();
    let mut open = true;
    while open {
        let mut out = match tokio::time::timeout(PING_INTERVAL, queue.recv()).await {
            Ok(Some(out)) => out,
            Ok(None) => return,
            Err(_) => Out::Frame(Frame::Ping(OUR_PING)),
        };
        loop {
            let frame = match out {
                Out::Frame(frame) => {
                    activity.note(&frame);
                    frame
                }
                Out::Close => {
                    open = false;
                    Frame::GoAway { last: 0, reason: 0 }
                }
            };
            if let Err(error) = encoder.encode(&frame, &mut buffer) {
                return tracing::warn!(%error, "frame cannot be sent");
            }
            // Nothing is taken from the queue that is not going to be sent.
            if !open || buffer.len() >= WRITE_BYTES {
                break;
            }
            match queue.try_recv() {
                Ok(next) => out = next,
                Err(_) => break,
            }
        }
        let written = async {
            io.write_all(&buffer).await?;
            io.flush().await
        };
        if let Err(error) = written.await {
            return tracing::debug!(%error, "client does not read any more");
        }
        buffer.clear();
    }
    if let Err(error) = io.shutdown().await {
        tracing::debug!(%error, "closing a connection");
    }
}

struct Receiver {
    decoder: Decoder,
    streams: HashMap<u32, Inlet>,
    /// The highest stream opened so far.
    last: u32,
    places: Arc<Semaphore>,
    accept: mpsc::Sender<Stream>,
    frames: mpsc::Sender<Out>,
}

impl Receiver {
    /// Until the client closes, breaks the protocol, or nobody takes streams any more.
    async fn run(mut self, mut io: impl AsyncRead + Unpin, activity: &Activity) {
        let mut buffer = BytesMut::new();
        loop {
            loop {
                let frame = match self.decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => return tracing::debug!(%error, "client broke the protocol"),
                };
                activity.note(&frame);
                self.hear(frame).await;
            }
            buffer.reserve(READ_BYTES);
            match io.read_buf(&mut buffer).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::debug!(%error, "client left"),
            }
        }
    }

    async fn hear(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { stream, fin, headers, .. } => self.open(stream, fin, headers).await,
            Frame::Data { stream, fin, data } => self.data(stream, fin, data).await,
            Frame::RstStream { stream, .. } => {
                if let Some(inlet) = self.streams.remove(&stream) {
                    inlet.reset.cancel();
                }
            }
            Frame::Ping(id) if id != OUR_PING => self.say(Frame::Ping(id)).await,
            // Windows and settings bound what we send only in theory (see above); streams go on after a goodbye.
            Frame::Ping(_)
            | Frame::SynReply { .. }
            | Frame::Headers { .. }
            | Frame::Settings(_)
            | Frame::WindowUpdate { .. }
            | Frame::GoAway { .. } => {}
        }
    }

    async fn say(&self, frame: Frame) {
        // A writer that is gone ends the connection.
        let _over = self.frames.send(Out::Frame(frame)).await;
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) {
        if id.is_multiple_of(2) || id <= self.last {
            return self.say(Frame::RstStream { stream: id, reason: reason::PROTOCOL_ERROR }).await;
        }
        self.last = id;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.say(Frame::RstStream { stream: id, reason: reason::REFUSED_STREAM }).await;
        };
        let (sender, pieces) = mpsc::unbounded_channel();
        let reset = CancellationToken::new();
        if !fin {
            let room = Arc::new(Semaphore::new(STREAM_BYTES_MAX as usize));
            self.streams.insert(id, Inlet { pieces: sender, room, reset: reset.clone() });
        }
        let frames = self.frames.clone();
        let input = Incoming { id, pieces, frames: frames.clone(), consumed: 0 };
        let output = Outgoing { id, frames, reset, _place: Arc::new(place) };
        if self.accept.send(Stream { id, headers, input, output }).await.is_err() {
            // Nobody takes streams any more: the connection is being closed.
            self.streams.remove(&id);
        }
    }

    async fn data(&mut self, id: u32, fin: bool, data: Bytes) {
        let length = data.len() as u32;
        if let Some(inlet) = self.streams.get(&id)
            && length > 0
        {
            let cost = (length + PIECE_COST_BYTES).min(STREAM_BYTES_MAX);
            let taken = tokio::select! {
                room = inlet.room.clone().acquire_many_owned(cost) => {
                    room.is_ok_and(|room| inlet.pieces.send(Piece { data, _room: room }).is_ok())
                }
                () = inlet.pieces.closed() => false,
                () = inlet.reset.cancelled() => false,
            };
            if !taken {
                self.streams.remove(&id);
                credit(&self.frames, id, length);
            }
        }
        if fin {
            self.streams.remove(&id);
        }
    }
}
