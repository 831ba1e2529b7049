//! Header blocks: names and values, compressed by one zlib stream per direction of a connection.
//!
//! A block that cannot be decompressed breaks the connection, because every later block depends on it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// Decompressed bytes of a block. Ours have a handful of short headers.
pub const BLOCK_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 256;
/// Large enough for the dictionary, small enough to be cheap: a connection keeps it.
const WINDOW_BITS: u8 = 11;
const STEP_BYTES: usize = 2048;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("header block does not decompress: {0}")]
    Zlib(String),
    #[error("header block is longer than {BLOCK_BYTES_MAX} bytes")]
    TooLong,
    #[error("header block is cut off")]
    Short,
    #[error("more than {HEADERS_MAX} headers")]
    TooMany,
    #[error("header is no text")]
    Text,
}

/// Names in lower case, in the sender's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = (self.0.len() as u32).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, Error> {
        let count = number(&mut bytes)?;
        if count > HEADERS_MAX {
            return Err(Error::TooMany);
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut bytes)?.to_lowercase();
            headers.push((name, text(&mut bytes)?));
        }
        Ok(Self(headers))
    }
}

fn number(bytes: &mut &[u8]) -> Result<usize, Error> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(Error::Short)?;
    *bytes = rest;
    usize::try_from(u32::from_be_bytes(*head)).map_err(|_| Error::TooLong)
}

fn text(bytes: &mut &[u8]) -> Result<String, Error> {
    let length = number(bytes)?;
    let (head, rest) = bytes.split_at_checked(length).ok_or(Error::Short)?;
    *bytes = rest;
    String::from_utf8(head.to_vec()).map_err(|_| Error::Text)
}

/// The sending side of header compression; made with the first block.
#[derive(Default)]
pub struct Deflater(Option<Compress>);

impl Deflater {
    pub fn block(&mut self, headers: &Headers) -> Result<Vec<u8>, Error> {
        let zlib = |error: flate2::CompressError| Error::Zlib(error.to_string());
        let compress = match &mut self.0 {
            Some(compress) => compress,
            None => {
                let mut compress = Compress::new_with_window_bits(Compression::fast(), true, WINDOW_BITS);
                compress.set_dictionary(&DICTIONARY).map_err(zlib)?;
                self.0.insert(compress)
            }
        };
        let plain = headers.encode();
        let mut out = Vec::with_capacity(plain.len() + STEP_BYTES);
        let start = compress.total_in();
        loop {
            let done = usize::try_from(compress.total_in() - start).map_err(|_| Error::TooLong)?;
            out.reserve(STEP_BYTES);
            compress.compress_vec(&plain[done..], &mut out, FlushCompress::Sync).map_err(zlib)?;
            let done = usize::try_from(compress.total_in() - start).map_err(|_| Error::TooLong)?;
            // Room left over means that the flush is complete.
            if done == plain.len() && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

/// The receiving side.
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    pub fn block(&mut self, bytes: &[u8]) -> Result<Headers, Error> {
        let mut out = Vec::with_capacity(STEP_BYTES);
        let start = self.0.total_in();
        loop {
            let done = usize::try_from(self.0.total_in() - start).map_err(|_| Error::TooLong)?;
            let before = (done, out.len());
            match self.0.decompress_vec(&bytes[done..], &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(Error::Zlib("the stream ended".to_owned())),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|error| Error::Zlib(error.to_string()))?;
                    continue;
                }
                Err(error) => return Err(Error::Zlib(error.to_string())),
            }
            let done = usize::try_from(self.0.total_in() - start).map_err(|_| Error::TooLong)?;
            if done == bytes.len() && out.len() < out.capacity() {
                return Headers::decode(&out);
            }
            if out.len() >= BLOCK_BYTES_MAX {
                return Err(Error::TooLong);
            }
            if (done, out.len()) == before && out.len() < out.capacity() {
                return Err(Error::Short);
            }
            out.reserve(STEP_BYTES);
        }
    }
}
