//! Frames and their bytes. Pure: bytes in, frames out, and the other way round.
//!
//! The decoder holds at most one control frame; data frames come out in pieces as their bytes arrive, whatever length
//! they claim.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{self, Deflater, Headers, Inflater};

const VERSION: u16 = 3;
const CONTROL: u32 = 1 << 31;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const HEAD_BYTES: usize = 8;
/// Payload of a control frame. Headers are the only long ones.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;
/// Longest payload a frame's head can tell.
pub const DATA_BYTES_MAX: usize = (1 << 24) - 1;

mod kind {
    pub const SYN_STREAM: u16 = 1;
    pub const SYN_REPLY: u16 = 2;
    pub const RST_STREAM: u16 = 3;
    pub const SETTINGS: u16 = 4;
    pub const PING: u16 = 6;
    pub const GO_AWAY: u16 = 7;
    pub const HEADERS: u16 = 8;
    pub const WINDOW_UPDATE: u16 = 9;
}

/// Why a stream is reset.
pub mod reason {
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const REFUSED_STREAM: u32 = 3;
    pub const CANCEL: u32 = 5;
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("control frame of SPDY version {0}, not {VERSION}")]
    Version(u16),
    #[error("control frame of {0} bytes, more than {CONTROL_BYTES_MAX}")]
    TooLong(usize),
    #[error("control frame of type {kind} cannot have {length} bytes")]
    Length { kind: u16, length: usize },
    #[error("frame for stream 0")]
    StreamZero,
    #[error(transparent)]
    Headers(#[from] headers::Error),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        associated: u32,
        priority: u8,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
        reason: u32,
    },
    /// Identifiers with their flags, and values.
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
        reason: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// A data frame or a piece of one; `fin` is on the last piece.
    Data {
        stream: u32,
        fin: bool,
        data: Bytes,
    },
}

/// Bytes to frames.
#[derive(Default)]
pub struct Decoder {
    inflater: Inflater,
    /// A data frame whose bytes are still coming.
    data: Option<DataRest>,
    /// Bytes of a frame of unknown type to pass over.
    skip: usize,
}

struct DataRest {
    stream: u32,
    fin: bool,
    left: usize,
}

impl Decoder {
    /// The next frame in `buffer`; `None` when more bytes are needed.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
        loop {
            if self.skip > 0 {
                let count = self.skip.min(buffer.len());
                buffer.advance(count);
                self.skip -= count;
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            if let Some(frame) = self.piece(buffer) {
                return Ok(Some(frame));
            }
            if self.data.is_some() || buffer.len() < HEAD_BYTES {
                return Ok(None);
            }
            let mut head = &buffer[..HEAD_BYTES];
            let (first, second) = (head.get_u32(), head.get_u32());
            let flags = (second >> 24) as u8;
            let length = (second & 0x00ff_ffff) as usize;
            if first & CONTROL == 0 {
                if first == 0 {
                    return Err(Error::StreamZero);
                }
                buffer.advance(HEAD_BYTES);
                self.data = Some(DataRest { stream: first, fin: flags & FIN != 0, left: length });
                continue;
            }
            let (version, kind) = ((first >> 16 & 0x7fff) as u16, (first & 0xffff) as u16);
            if version != VERSION {
                return Err(Error::Version(version));
            }
            if length > CONTROL_BYTES_MAX {
                return Err(Error::TooLong(length));
            }
            if buffer.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            buffer.advance(HEAD_BYTES);
            let payload = buffer.split_to(length);
            if let Some(frame) = self.control(kind, flags, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// What is there of the data frame under way.
    fn piece(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        let rest = self.data.as_mut()?;
        if buffer.is_empty() && rest.left > 0 {
            return None;
        }
        let count = rest.left.min(buffer.len());
        // Copied, so that a piece that waits does not hold the whole read buffer.
        let data = Bytes::copy_from_slice(&buffer[..count]);
        buffer.advance(count);
        rest.left -= count;
        let (stream, fin) = (rest.stream, rest.fin && rest.left == 0);
        if rest.left == 0 {
            self.data = None;
        }
        Some(Frame::Data { stream, fin, data })
    }

    /// `None` for types nobody knows, which are passed over as the standard says.
    fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Option<Frame>, Error> {
        let length = payload.len();
        let is = |expected: bool| if expected { Ok(()) } else { Err(Error::Length { kind, length }) };
        let fin = flags & FIN != 0;
        let mut rest = payload;
        Ok(Some(match kind {
            kind::SYN_STREAM => {
                is(length >= 10)?;
                let (stream, associated) = (rest.get_u32() & !CONTROL, rest.get_u32() & !CONTROL);
                let priority = rest.get_u8() >> 5;
                rest.advance(1);
                let headers = self.inflater.block(rest)?;
                let unidirectional = flags & UNIDIRECTIONAL != 0;
                Frame::SynStream { stream, associated, priority, fin, unidirectional, headers }
            }
            kind::SYN_REPLY | kind::HEADERS => {
                is(length >= 4)?;
                let stream = rest.get_u32() & !CONTROL;
                let headers = self.inflater.block(rest)?;
                match kind {
                    kind::SYN_REPLY => Frame::SynReply { stream, fin, headers },
                    _ => Frame::Headers { stream, fin, headers },
                }
            }
            kind::RST_STREAM => {
                is(length == 8)?;
                Frame::RstStream { stream: rest.get_u32() & !CONTROL, reason: rest.get_u32() }
            }
            kind::SETTINGS => {
                is(length >= 4)?;
                let count = rest.get_u32() as usize;
                is(rest.len() == count.saturating_mul(8))?;
                Frame::Settings((0..count).map(|_| (rest.get_u32(), rest.get_u32())).collect())
            }
            kind::PING => {
                is(length == 4)?;
                Frame::Ping(rest.get_u32())
            }
            kind::GO_AWAY => {
                is(length == 8)?;
                Frame::GoAway { last: rest.get_u32() & !CONTROL, reason: rest.get_u32() }
            }
            kind::WINDOW_UPDATE => {
                is(length == 8)?;
                Frame::WindowUpdate { stream: rest.get_u32() & !CONTROL, delta: rest.get_u32() & !CONTROL }
            }
            _ => return Ok(None),
        }))
    }
}

/// Frames to bytes.
#[derive(Default)]
pub struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// Appends a frame. Data longer than a frame can hold becomes several.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), Error> {
        match frame {
            Frame::SynStream { stream, associated, priority, fin, unidirectional, headers } => {
                let mut payload = BytesMut::new();
                payload.put_u32(*stream);
                payload.put_u32(*associated);
                payload.put_u8(priority << 5);
                payload.put_u8(0);
                payload.put_slice(&self.deflater.block(headers)?);
                let flags = if *fin { FIN } else { 0 } | if *unidirectional { UNIDIRECTIONAL } else { 0 };
                control(kind::SYN_STREAM, flags, &payload, out)
            }
            Frame::SynReply { stream, fin, headers } => self.headers(kind::SYN_REPLY, *stream, *fin, headers, out),
            Frame::Headers { stream, fin, headers } => self.headers(kind::HEADERS, *stream, *fin, headers, out),
            Frame::RstStream { stream, reason } => pair(kind::RST_STREAM, *stream, *reason, out),
            Frame::GoAway { last, reason } => pair(kind::GO_AWAY, *last, *reason, out),
            Frame::WindowUpdate { stream, delta } => pair(kind::WINDOW_UPDATE, *stream, *delta, out),
            Frame::Ping(id) => control(kind::PING, 0, &id.to_be_bytes(), out),
            Frame::Settings(values) => {
                let mut payload = BytesMut::new();
                payload.put_u32(values.len() as u32);
                for (id, value) in values {
                    payload.put_u32(*id);
                    payload.put_u32(*value);
                }
                control(kind::SETTINGS, 0, &payload, out)
            }
            Frame::Data { stream, fin, data } => {
                data_frames(*stream, *fin, data, out);
                Ok(())
            }
        }
    }

    fn headers(
        &mut self,
        kind: u16,
        stream: u32,
        fin: bool,
        headers: &Headers,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        let mut payload = BytesMut::new();
        payload.put_u32(stream);
        payload.put_slice(&self.deflater.block(headers)?);
        control(kind, if fin { FIN } else { 0 }, &payload, out)
    }
}

fn pair(kind: u16, first: u32, second: u32, out: &mut BytesMut) -> Result<(), Error> {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&first.to_be_bytes());
    payload[4..].copy_from_slice(&second.to_be_bytes());
    control(kind, 0, &payload, out)
}

fn control(kind: u16, flags: u8, payload: &[u8], out: &mut BytesMut) -> Result<(), Error> {
    if payload.len() > CONTROL_BYTES_MAX {
        return Err(Error::TooLong(payload.len()));
    }
    out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    out.put_u32(u32::from(flags) << 24 | payload.len() as u32);
    out.put_slice(payload);
    Ok(())
}

fn data_frames(stream: u32, fin: bool, data: &[u8], out: &mut BytesMut) {
    let mut rest = data;
    loop {
        let (piece, more) = rest.split_at(rest.len().min(DATA_BYTES_MAX));
        let flags = if fin && more.is_empty() { FIN } else { 0 };
        out.put_u32(stream & !CONTROL);
        out.put_u32(u32::from(flags) << 24 | piece.len() as u32);
        out.put_slice(piece);
        rest = more;
        if rest.is_empty() {
            return;
        }
    }
}
