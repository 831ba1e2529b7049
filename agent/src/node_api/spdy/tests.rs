//! The wire format: what is written is read again, in pieces of any size, and nothing hostile costs memory or panics.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    frame::{Decoder, Encoder, Error, Frame},
    headers::{self, Headers},
    serve,
};

fn number() -> impl Strategy<Value = u32> {
    1..u32::MAX >> 1
}

fn some_headers() -> impl Strategy<Value = Headers> {
    proptest::collection::vec(("[a-z-]{1,12}", "[ -~]{0,40}"), 0..6).prop_map(Headers)
}

fn some_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        (number(), number(), 0..8_u8, any::<bool>(), any::<bool>(), some_headers()).prop_map(
            |(stream, associated, priority, fin, unidirectional, headers)| Frame::SynStream {
                stream,
                associated,
                priority,
                fin,
                unidirectional,
                headers
            }
        ),
        (number(), any::<bool>(), some_headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (number(), any::<bool>(), some_headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (number(), any::<u32>()).prop_map(|(stream, reason)| Frame::RstStream { stream, reason }),
        proptest::collection::vec((any::<u32>(), any::<u32>()), 0..5).prop_map(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (number(), any::<u32>()).prop_map(|(last, reason)| Frame::GoAway { last, reason }),
        (number(), number()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (number(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(stream, fin, data)| Frame::Data { stream, fin, data: data.into() }),
    ]
}

/// Joins the pieces of data frames, as far as they belong to one frame.
fn joined(frames: Vec<Frame>, sizes: &[usize]) -> Vec<Frame> {
    let mut sizes = sizes.iter();
    let mut out: Vec<Frame> = Vec::new();
    let mut left = 0;
    for frame in frames {
        match (frame, out.last_mut()) {
            (Frame::Data { fin, data, .. }, Some(Frame::Data { fin: last_fin, data: last, .. })) if left > 0 => {
                left -= data.len();
                *last = Bytes::from([last.as_ref(), data.as_ref()].concat());
                *last_fin = fin;
            }
            (frame, _) => {
                if let Frame::Data { data, .. } = &frame {
                    left = sizes.next().unwrap() - data.len();
                }
                out.push(frame);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_survive_the_wire(frames in proptest::collection::vec(some_frame(), 1..12), step in 1..200_usize) {
        let mut encoder = Encoder::default();
        let mut wire = BytesMut::new();
        for frame in &frames {
            encoder.encode(frame, &mut wire).unwrap();
        }
        let mut decoder = Decoder::default();
        let (mut buffer, mut decoded) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                decoded.push(frame);
            }
        }
        let sizes = frames.iter().filter_map(|frame| match frame {
            Frame::Data { data, .. } => Some(data.len()),
            _ => None,
        });
        prop_assert_eq!(joined(decoded, &sizes.collect::<Vec<_>>()), frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn anything_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
    }
}

#[test]
fn blocks_refer_back_to_earlier_ones() {
    let headers = Headers(vec![("streamtype".into(), "error".into()), ("port".into(), "80".into())]);
    let mut deflater = headers::Deflater::default();
    let mut inflater = headers::Inflater::default();
    let first = deflater.block(&headers).unwrap();
    let second = deflater.block(&headers).unwrap();
    assert!(second.len() < first.len(), "{} {}", second.len(), first.len());
    assert_eq!(inflater.block(&first).unwrap(), headers);
    assert_eq!(inflater.block(&second).unwrap(), headers);
}

/// The streams of a forwarded connection, as another implementation of zlib compresses them with the dictionary.
#[test]
fn blocks_of_another_zlib_are_understood() {
    const ERROR: &[u8] = &[
        0x78, 0xf9, 0xe3, 0xc6, 0xa7, 0xc2, 0x02, 0x25, 0x3a, 0x70, 0x3a, 0x2b, 0x29, 0x4a, 0x4d, 0xcc, 0x85, 0x16,
        0x25, 0xac, 0xa9, 0xa0, 0x80, 0x86, 0x14, 0xcb, 0x45, 0xe0, 0x1c, 0x60, 0x61, 0x60, 0x61, 0x00, 0xa4, 0x39,
        0x8b, 0x20, 0xd1, 0x98, 0x09, 0x4a, 0xde, 0x8c, 0x06, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff,
    ];
    const DATA: &[u8] = &[0xc2, 0xaa, 0x19, 0x54, 0x0e, 0x25, 0x12, 0xd6, 0x0b, 0x00, 0x00, 0x00, 0xff, 0xff];
    let mut inflater = headers::Inflater::default();
    for (block, kind) in [(ERROR, "error"), (DATA, "data")] {
        let headers = inflater.block(block).unwrap();
        assert_eq!(headers.get("streamtype"), Some(kind));
        assert_eq!((headers.get("port"), headers.get("requestid")), (Some("8080"), Some("0")));
    }
}

#[test]
fn a_block_that_explodes_is_cut_off() {
    use std::io::Write;
    let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![0; 16 << 20]).unwrap();
    bomb.flush().unwrap();
    let block = bomb.get_ref().clone();
    assert!(block.len() < 64 << 10);
    assert_eq!(headers::Inflater::default().block(&block), Err(headers::Error::TooLong));
}

#[test]
fn hostile_heads_are_refused() {
    let decode = |bytes: &[u8]| Decoder::default().decode(&mut BytesMut::from(bytes));
    assert_eq!(decode(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), Err(Error::Version(2)));
    assert_eq!(decode(&[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff]), Err(Error::TooLong(0xff_ffff)));
    assert_eq!(decode(&[0x80, 3, 0, 6, 0, 0, 0, 3, 0, 0, 1]), Err(Error::Length { kind: 6, length: 3 }));
    assert_eq!(decode(&[0; 8]), Err(Error::StreamZero));
    let settings = [0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(decode(&settings), Err(Error::Length { kind: 4, length: 4 }));
}

#[test]
fn unknown_types_are_passed_over() {
    let mut buffer = BytesMut::from(&[0x80, 3, 0, 99, 0, 0, 0, 2, 1, 2][..]);
    Encoder::default().encode(&Frame::Ping(7), &mut buffer).unwrap();
    assert_eq!(Decoder::default().decode(&mut buffer), Ok(Some(Frame::Ping(7))));
}

#[test]
fn a_long_data_frame_needs_no_room() {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::new();
    buffer.put_u32(5);
    buffer.put_u32(1 << 24 | 0xff_ffff);
    buffer.put_slice(b"abc");
    let data = Frame::Data { stream: 5, fin: false, data: Bytes::from_static(b"abc") };
    assert_eq!(decoder.decode(&mut buffer), Ok(Some(data)));
    assert_eq!(decoder.decode(&mut buffer), Ok(None));
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    const PIECES: u8 = 100;
    const PIECE_BYTES: usize = 20 << 10;
    let (mut client, server) = tokio::io::duplex(1 << 10);
    let (mut connection, driver) = serve(server);
    let talk = async move {
        let stream = connection.accept().await.unwrap();
        for number in 0..PIECES {
            stream.output.write(vec![number; PIECE_BYTES].into()).await.unwrap();
        }
        stream.output.finish().await.unwrap();
        connection.close().await;
    };
    let listen = async move {
        let mut wire = BytesMut::new();
        let open = Frame::SynStream {
            stream: 1,
            associated: 0,
            priority: 0,
            fin: false,
            unidirectional: false,
            headers: Headers::default(),
        };
        Encoder::default().encode(&open, &mut wire).unwrap();
        client.write_all(&wire).await.unwrap();
        let (mut decoder, mut wire, mut received) = (Decoder::default(), BytesMut::new(), Vec::new());
        while client.read_buf(&mut wire).await.unwrap() > 0 {
            while let Some(frame) = decoder.decode(&mut wire).unwrap() {
                if let Frame::Data { data, .. } = frame {
                    received.extend_from_slice(&data);
                }
            }
        }
        received
    };
    let ((), (), received) = tokio::join!(driver, talk, listen);
    let sent = (0..PIECES).flat_map(|number| [number; PIECE_BYTES]).collect::<Vec<_>>();
    assert_eq!(received.len(), sent.len());
    assert!(received == sent, "pieces arrive in order");
}
