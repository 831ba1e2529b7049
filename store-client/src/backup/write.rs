//! Writing a backup, frame by frame. Nothing is held back: memory does not grow with the store.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::format::{self, End, FAMILY, Kind, VERSION};
use super::{Attachment, Error, Header, Summary};
use crate::Record;

/// A backup being written. Without [`Writer::finish`] it is no backup, and every reader says so.
pub struct Writer<W> {
    out: W,
    sha256: Sha256,
    summary: Summary,
}

impl<W: Write> Writer<W> {
    /// Writes the beginning.
    pub fn begin(out: W, header: Header) -> Result<Self, Error> {
        let payload = format::encode_header(&header);
        let summary = Summary { header, records: 0, attachments: 0, bytes: 0 };
        let mut writer = Self { out, sha256: Sha256::new(), summary };
        writer.write(format!("{FAMILY}{VERSION}\n").as_bytes())?;
        writer.frame(Kind::Header, &payload)?;
        Ok(writer)
    }

    /// Adds a file.
    pub fn attach(&mut self, file: &Attachment) -> Result<(), Error> {
        self.summary.attachments += 1;
        self.frame(Kind::Attachment, &format::encode_attachment(file))
    }

    /// Adds a record; they come in key order.
    pub fn record(&mut self, record: &Record) -> Result<(), Error> {
        self.summary.records += 1;
        self.frame(Kind::Record, &format::encode_record(record))
    }

    /// Writes the end and returns what it was written to; making that durable is the caller's.
    pub fn finish(mut self) -> Result<(W, Summary), Error> {
        let sha256 = self.sha256.clone().finalize().into();
        let end = End { records: self.summary.records, attachments: self.summary.attachments, sha256 };
        self.frame(Kind::End, &format::encode_end(&end))?;
        self.out.flush().map_err(Error::Write)?;
        Ok((self.out, self.summary))
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Error> {
        let frame = format::frame(kind, payload);
        self.write(&frame)?;
        self.write(&crc32fast::hash(&frame).to_le_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sha256.update(bytes);
        self.summary.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(Error::Write)
    }
}
