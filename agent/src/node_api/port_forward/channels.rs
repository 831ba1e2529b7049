//! Pairs of WebSocket channels: for the n-th port that the request names, channel 2n carries data and 2n+1 an error
//! text. Each begins with the port, two bytes in little-endian order.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, future};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    super::{
        answer::Refusal,
        query::Query,
        websocket::{Coding, Socket, discard},
    },
    Destination, READ_BYTES,
};

/// Two channels each, and a channel's number is a byte (or a digit).
const PORTS_MAX: usize = 100;
/// Pieces on their way to the client, and from the client to each port.
const PIECES: usize = 4;

type Out = mpsc::Sender<(u8, Bytes)>;

pub fn ports(query: &Query) -> Result<Vec<u16>, Refusal> {
    let mut ports = Vec::new();
    for text in query.all("port") {
        if text.is_empty() {
            return Err(Refusal::bad_request("query parameter \"port\" cannot be empty"));
        }
        for word in text.split(',') {
            match word.parse::<u16>() {
                Ok(0) => return Err(Refusal::bad_request(format!("port {text:?} must be > 0"))),
                Ok(port) => ports.push(port),
                Err(error) => {
                    return Err(Refusal::bad_request(format!("unable to parse {text:?} as a port: {error}")));
                }
            }
        }
    }
    if ports.is_empty() {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    if ports.len() > PORTS_MAX {
        return Err(Refusal::bad_request(format!("at most {PORTS_MAX} ports can be forwarded")));
    }
    Ok(ports)
}

pub async fn run<S>(socket: Socket<S>, coding: Coding, ports: &[u16], destination: &Destination)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (out, mut queue) = mpsc::channel::<(u8, Bytes)>(PIECES);
    let (mut inputs, mut forwards) = (Vec::new(), Vec::new());
    for (index, port) in (0_u8..).zip(ports) {
        let (sender, receiver) = mpsc::channel(PIECES);
        inputs.push(Some(sender));
        forwards.push(forward(destination, *port, index * 2, receiver, out.clone()));
    }
    drop(out);
    let receive = async {
        while let Some(Ok(frame)) = source.next().await {
            let message = match frame {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                _ => continue,
            };
            let Some((channel, data)) = coding.parse(&message) else { continue };
            let input = inputs.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0);
            if let Some(input) = input
                && let Some(sender) = input
                && sender.send(data).await.is_err()
            {
                *input = None;
            }
        }
    };
    let send = async {
        while let Some((channel, data)) = queue.recv().await {
            sink.send(coding.frame(channel, &data)).await?;
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(close))).await
    };
    let sent = {
        tokio::pin!(receive);
        tokio::select! {
            () = receive => return,
            (_, sent) = future::join(future::join_all(forwards), send) => sent,
        }
    };
    match sent {
        Ok(()) => discard(source).await,
        Err(error) => tracing::debug!(%error, "client of forwarded ports left"),
    }
}

/// One port: its connection's data both ways, until the pod ends it or the client is gone.
async fn forward(destination: &Destination, port: u16, channel: u8, mut input: mpsc::Receiver<Bytes>, out: Out) {
    let number = Bytes::copy_from_slice(&port.to_le_bytes());
    for channel in [channel, channel + 1] {
        if out.send((channel, number.clone())).await.is_err() {
            return;
        }
    }
    let (mut read, mut write) = match destination.connect(port).await {
        Ok(connection) => connection.into_split(),
        Err(message) => {
            // A client that is gone needs no error.
            let _gone = out.send((channel + 1, message.into())).await;
            return;
        }
    };
    let to_pod = async {
        while let Some(data) = input.recv().await {
            if let Err(error) = write.write_all(&data).await {
                tracing::debug!(%error, "pod does not read a forwarded connection");
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let from_pod = async {
        loop {
            let mut buffer = BytesMut::with_capacity(READ_BYTES);
            match read.read_buf(&mut buffer).await {
                Ok(1..) => {}
                Ok(0) => return,
                Err(error) => return tracing::debug!(%error, "forwarded connection broke"),
            }
            if out.send((channel, buffer.freeze())).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = to_pod => {}
        () = from_pod => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Query, ports};

    #[test]
    fn ports_are_named_one_by_one_or_in_lists() {
        let parse = |text: &str| ports(&Query::parse(text)).map_err(|refusal| refusal.message);
        assert_eq!(parse("port=80,443&port=8080"), Ok(vec![80, 443, 8080]));
        for bad in ["", "port=", "port=0", "port=x", "port=70000"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
