//! Protobuf's wire form: tags, varints and length-delimited fields, read within the bounds of a buffer.

use crate::decode::Error;

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'b [u8]),
}

fn broken(what: &str) -> Error {
    Error::Syntax(format!("proto: {what}"))
}

/// Text; what is not UTF-8 is replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The fields of a message with their numbers, in the order of the buffer.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u32, Field<'_>), Error>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next<'b>(rest: &mut &'b [u8]) -> Result<(u32, Field<'b>), Error> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|n| *n > 0).ok_or_else(|| broken("illegal tag"))?;
    let value = match key & 7 {
        0 => Field::Varint(varint(rest)?),
        1 => Field::Fixed64(u64::from_le_bytes(take(rest)?)),
        2 => {
            let length = varint(rest)?;
            let fits = usize::try_from(length).ok().filter(|l| *l <= rest.len());
            let (value, after) = rest.split_at(fits.ok_or_else(|| broken("unexpected EOF"))?);
            *rest = after;
            Field::Bytes(value)
        }
        5 => Field::Fixed32(u32::from_le_bytes(take(rest)?)),
        other => return Err(broken(&format!("wrong wireType = {other}"))),
    };
    Ok((number, value))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (value, after) = rest.split_first_chunk().ok_or_else(|| broken("unexpected EOF"))?;
    *rest = after;
    Ok(*value)
}

pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0_u64;
    for at in 0..10 {
        let (byte, after) = rest.split_first().ok_or_else(|| broken("unexpected EOF"))?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * at).min(63);
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(broken("integer overflow"))
}

/// A message under construction.
#[derive(Default)]
pub(super) struct Writer {
    pub out: Vec<u8>,
}

impl Writer {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
    pub(super) fn varint(&mut self, number: u32, value: u64) {
        self.raw_varint(u64::from(number) << 3);
        self.raw_varint(value);
    }
    pub(super) fn double(&mut self, number: u32, value: f64) {
        self.raw_varint(u64::from(number) << 3 | 1);
        self.out.extend_from_slice(&value.to_le_bytes());
    }
    pub(super) fn bytes(&mut self, number: u32, value: &[u8]) {
        self.raw_varint(u64::from(number) << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.out.extend_from_slice(value);
    }
}
