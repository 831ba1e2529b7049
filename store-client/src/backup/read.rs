//! Reading a backup, with every check: format, frames, checksums, order, counts, and that it ends where it says.

use std::io::{ErrorKind, Read};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::format::{self, FAMILY, FIRST_LINE_BYTES_MAX, Kind, PAYLOAD_BYTES_MAX, VERSION};
use super::{Attachment, Error, Header, Summary};
use crate::{KEY_BYTES_MAX, Record, VALUE_BYTES_MAX};

/// One thing of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A file beside the store.
    Attachment(Attachment),
    /// A key.
    Record(Record),
}

/// A backup being read. `None` from [`Reader::next`] says that it is whole and unchanged; an error before that spoils
/// all that was read.
pub struct Reader<R> {
    input: R,
    sha256: Sha256,
    summary: Summary,
    last_key: Bytes,
    has_ended: bool,
}

/// Reads a backup to its end and tells what it holds.
pub fn verify(input: impl Read) -> Result<Summary, Error> {
    let mut reader = Reader::begin(input)?;
    while reader.next()?.is_some() {}
    Ok(reader.summary)
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    pub fn begin(input: R) -> Result<Self, Error> {
        let header = Header { revision: crate::Revision::ZERO, facts: Vec::new() };
        let summary = Summary { header, records: 0, attachments: 0, bytes: 0 };
        let mut reader = Self { input, sha256: Sha256::new(), summary, last_key: Bytes::new(), has_ended: false };
        reader.first_line()?;
        let at = reader.summary.bytes;
        match reader.frame()? {
            (Kind::Header, payload) => {
                let header = format::decode_header(payload);
                reader.summary.header = header.ok_or_else(|| damaged(at, "the header cannot be read"))?;
                Ok(reader)
            }
            (kind, _) => Err(damaged(at, &format!("{kind:?} where the header belongs"))),
        }
    }

    /// What the backup says of itself.
    pub fn header(&self) -> &Header {
        &self.summary.header
    }

    /// The next item; `None` once, at the end, when all checks have passed.
    pub fn next(&mut self) -> Result<Option<Item>, Error> {
        if self.has_ended {
            return Ok(None);
        }
        let at = self.summary.bytes;
        let so_far = self.sha256.clone();
        let (kind, payload) = self.frame()?;
        match kind {
            Kind::Header => Err(damaged(at, "a second header")),
            Kind::Attachment => {
                let file = format::decode_attachment(payload).ok_or_else(|| damaged(at, "a file cannot be read"))?;
                self.summary.attachments += 1;
                Ok(Some(Item::Attachment(file)))
            }
            Kind::Record => {
                let record = format::decode_record(payload).ok_or_else(|| damaged(at, "a record cannot be read"))?;
                self.check(&record).map_err(|detail| damaged(at, &detail))?;
                self.last_key = record.key.clone();
                self.summary.records += 1;
                Ok(Some(Item::Record(record)))
            }
            Kind::End => {
                let end = format::decode_end(payload).ok_or_else(|| damaged(at, "the end cannot be read"))?;
                let found = (self.summary.records, self.summary.attachments);
                if (end.records, end.attachments) != found {
                    let told = (end.records, end.attachments);
                    return Err(damaged(at, &format!("records and files are {found:?}, the end tells of {told:?}")));
                }
                if end.sha256[..] != so_far.finalize()[..] {
                    return Err(damaged(at, "the checksum of the whole does not match"));
                }
                self.nothing_follows()?;
                self.has_ended = true;
                Ok(None)
            }
        }
    }

    fn check(&self, record: &Record) -> Result<(), String> {
        let key = record.key.escape_ascii();
        if record.key.is_empty() || record.key.len() > KEY_BYTES_MAX || record.value.len() > VALUE_BYTES_MAX {
            return Err(format!("{key} has a size that no store takes"));
        }
        if record.key <= self.last_key {
            return Err(format!("{key} is out of order"));
        }
        if record.mod_revision > self.summary.header.revision || record.create_revision > record.mod_revision {
            return Err(format!("{key} is of revision {}, behind that of the backup", record.mod_revision));
        }
        Ok(())
    }

    fn first_line(&mut self) -> Result<(), Error> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if line.len() == FIRST_LINE_BYTES_MAX
                || (line.len() >= FAMILY.len() && !line.starts_with(FAMILY.as_bytes()))
            {
                return Err(Error::NotABackup);
            }
            let mut byte = [0];
            match self.fill(&mut byte) {
                Ok(()) => line.push(byte[0]),
                Err(Error::Truncated { .. }) => return Err(Error::NotABackup),
                Err(error) => return Err(error),
            }
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end().strip_prefix(FAMILY) {
            Some(VERSION) => Ok(()),
            Some(found) => Err(Error::Format { found: found.to_owned(), known: VERSION }),
            None => Err(Error::NotABackup),
        }
    }

    fn frame(&mut self) -> Result<(Kind, Bytes), Error> {
        let at = self.summary.bytes;
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let kind = Kind::of(head[0]).ok_or_else(|| damaged(at, &format!("no frame is of kind {}", head[0])))?;
        if length > PAYLOAD_BYTES_MAX {
            return Err(damaged(at, &format!("no frame has {length} bytes")));
        }
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        let mut told = [0; 4];
        self.fill(&mut told)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(&payload);
        if crc.finalize() != u32::from_le_bytes(told) {
            return Err(damaged(at, "the checksum does not match"));
        }
        Ok((kind, payload.into()))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        match self.input.read_exact(bytes) {
            Ok(()) => {
                self.sha256.update(&*bytes);
                self.summary.bytes += bytes.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(Error::Truncated { at: self.summary.bytes, records: self.summary.records })
            }
            Err(error) => Err(Error::Read(error)),
        }
    }

    fn nothing_follows(&mut self) -> Result<(), Error> {
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged(self.summary.bytes, "something follows the end")),
            Err(error) => Err(Error::Read(error)),
        }
    }
}

fn damaged(at: u64, detail: &str) -> Error {
    Error::Damaged { at, detail: detail.to_owned() }
}
