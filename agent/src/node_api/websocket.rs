//! WebSockets after the upgrade: limits, an orderly end, messages of numbered channels, and a byte stream tunnelled in
//! binary messages.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Sink, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::Role, protocol::WebSocketConfig},
};

use super::remote;

/// A message of input is held whole; upstream's limit (`websocket.DefaultMaxPayloadBytes`).
const MESSAGE_BYTES_MAX: usize = 32 << 20;
const BUFFER_BYTES: usize = 16 << 10;
/// How long a closed session waits for the client to close its side.
pub const LINGER: Duration = Duration::from_secs(5);

pub type Socket<S> = WebSocketStream<S>;

pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> Socket<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Reads and drops what comes until the client closes or `LINGER` is over.
pub async fn discard(mut source: impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin) {
    let rest = async { while let Some(Ok(_)) = source.next().await {} };
    if tokio::time::timeout(LINGER, rest).await.is_err() {
        tracing::debug!("client did not close its side of a session");
    }
}

/// How channels and data are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    base64: bool,
    /// Channel 255 names a channel that ends.
    pub half_close: bool,
    /// The outcome is told as JSON.
    pub json: bool,
}

impl Coding {
    pub fn of(protocol: &str) -> Self {
        Self {
            base64: protocol.contains("base64."),
            half_close: protocol.starts_with("v5."),
            json: remote::is_json(protocol),
        }
    }

    pub fn frame(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", STANDARD.encode(data)));
        }
        let mut bytes = BytesMut::with_capacity(data.len() + 1);
        bytes.put_u8(channel);
        bytes.put_slice(data);
        Message::Binary(bytes.freeze())
    }

    /// Channel and data; `None` for what cannot be understood.
    pub fn parse(self, message: &Bytes) -> Option<(u8, Bytes)> {
        let channel = *message.first()?;
        let data = message.slice(1..);
        if !self.base64 {
            return Some((channel, data));
        }
        let data = STANDARD.decode(&data).ok()?;
        Some((channel.checked_sub(b'0')?, data.into()))
    }
}

/// A byte stream in the binary messages of a WebSocket.
pub struct Tunnel<S> {
    socket: Socket<S>,
    rest: Bytes,
}

impl<S> Tunnel<S> {
    pub fn new(socket: Socket<S>) -> Self {
        Self { socket, rest: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "text in a tunnel of bytes")));
                }
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io::Error::other)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Coding, Message};

    #[test]
    fn channels_are_bytes_or_digits() {
        let binary = Coding::of("v4.channel.k8s.io");
        assert_eq!(binary.frame(1, b"hi"), Message::binary(&b"\x01hi"[..]));
        assert_eq!(binary.parse(&Bytes::from_static(b"\x00x")), Some((0, Bytes::from_static(b"x"))));
        assert_eq!(binary.parse(&Bytes::new()), None);
        let text = Coding::of("v4.base64.channel.k8s.io");
        assert_eq!(text.frame(1, b"hi"), Message::text("1aGk="));
        assert_eq!(text.parse(&Bytes::from_static(b"0aGk=")), Some((0, Bytes::from_static(b"hi"))));
        assert_eq!(text.parse(&Bytes::from_static(b"0???")), None);
        assert!(Coding::of("v5.channel.k8s.io").half_close);
        assert!(!Coding::of("channel.k8s.io").json && !Coding::of("").json);
    }
}
