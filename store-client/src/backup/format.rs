//! The bytes of a backup. A line that names the format, then frames: kind, length, payload, CRC-32 of the three. The
//! last frame counts the others and carries the SHA-256 of all that precedes it, so that nothing can be missing,
//! doubled or exchanged.
//!
//! Numbers are little-endian; texts and keys are preceded by their length.

use bytes::{Buf, BufMut, Bytes};

use super::{Attachment, Header};
use crate::{KEY_BYTES_MAX, Record, Revision, VALUE_BYTES_MAX};

/// Every format begins with it.
pub const FAMILY: &str = "KEELSON BACKUP ";
/// What the first line says after it. Another format gets another number.
pub const VERSION: &str = "1";
/// Longest first line.
pub const FIRST_LINE_BYTES_MAX: usize = 64;

/// Largest payload: a record of the largest key and value, or a file. Longer is damage, not a frame.
pub const PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + 1024 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Header = 1,
    Attachment = 2,
    Record = 3,
    End = 4,
}

impl Kind {
    pub fn of(byte: u8) -> Option<Self> {
        [Self::Header, Self::Attachment, Self::Record, Self::End].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The last frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub records: u64,
    pub attachments: u64,
    pub sha256: [u8; 32],
}

/// A frame without its checksum, which covers exactly these bytes.
pub fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 9);
    out.put_u8(kind as u8);
    out.put_u32_le(u32::try_from(payload.len()).expect("payloads are bounded by PAYLOAD_BYTES_MAX"));
    out.put_slice(payload);
    out
}

pub fn encode_header(header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64_le(header.revision.0);
    out.put_u32_le(header.facts.len() as u32);
    for (name, value) in &header.facts {
        put(&mut out, name.as_bytes());
        put(&mut out, value.as_bytes());
    }
    out
}

pub fn decode_header(mut payload: Bytes) -> Option<Header> {
    let revision = Revision(payload.try_get_u64_le().ok()?);
    let count = payload.try_get_u32_le().ok()?;
    let mut facts = Vec::new();
    for _ in 0..count {
        facts.push((text(&mut payload)?, text(&mut payload)?));
    }
    payload.is_empty().then_some(Header { revision, facts })
}

pub fn encode_attachment(file: &Attachment) -> Vec<u8> {
    let mut out = Vec::with_capacity(file.content.len() + file.name.len() + 8);
    out.put_u32_le(file.mode);
    put(&mut out, file.name.as_bytes());
    out.put_slice(&file.content);
    out
}

pub fn decode_attachment(mut payload: Bytes) -> Option<Attachment> {
    let mode = payload.try_get_u32_le().ok()?;
    let name = text(&mut payload)?;
    Some(Attachment { name, mode, content: payload.to_vec() })
}

pub fn encode_record(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.key.len() + record.value.len() + 28);
    out.put_u64_le(record.mod_revision.0);
    out.put_u64_le(record.create_revision.0);
    out.put_u64_le(record.version);
    put(&mut out, &record.key);
    out.put_slice(&record.value);
    out
}

pub fn decode_record(mut payload: Bytes) -> Option<Record> {
    let mut number = || payload.try_get_u64_le().ok();
    let (mod_revision, create_revision, version) = (Revision(number()?), Revision(number()?), number()?);
    let key = taken(&mut payload)?;
    Some(Record { key, value: payload, mod_revision, create_revision, version })
}

pub fn encode_end(end: &End) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64_le(end.records);
    out.put_u64_le(end.attachments);
    out.put_slice(&end.sha256);
    out
}

pub fn decode_end(mut payload: Bytes) -> Option<End> {
    let (records, attachments) = (payload.try_get_u64_le().ok()?, payload.try_get_u64_le().ok()?);
    Some(End { records, attachments, sha256: payload[..].try_into().ok()? })
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn taken(payload: &mut Bytes) -> Option<Bytes> {
    let length = payload.try_get_u32_le().ok()? as usize;
    (length <= payload.len()).then(|| payload.split_to(length))
}

fn text(payload: &mut Bytes) -> Option<String> {
    String::from_utf8(taken(payload)?.to_vec()).ok()
}
