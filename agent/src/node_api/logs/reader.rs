//! CRI log lines as the text a client sees: times and stream names cut off, parts joined, filtered and cut at limits.
//!
//! Holds one chunk and one line, whatever the size of the log.

use std::{io, path::Path};

use bytes::Bytes;
use jiff::Timestamp;

use super::{options::LogOptions, rotation::Files};

/// Text handed on at once (a line more at most).
pub const CHUNK_BYTES: usize = 32 << 10;
/// The writer's lines are at most 16 KiB of text; a longer one is not ours and is left out.
const LINE_BYTES_MAX: usize = 64 << 10;

pub struct Reader {
    files: Option<Files>,
    text: Text,
    buffer: Box<[u8]>,
}

/// From bytes of log files to text.
struct Text {
    timestamps: bool,
    since: Option<String>,
    stream: Option<&'static str>,
    /// Bytes still allowed.
    left: u64,
    /// An unfinished line.
    line: Vec<u8>,
    /// The rest of a line that was too long is passed over.
    skipping: bool,
    /// The last text ended a line; the next one gets a time if times are wanted.
    at_start: bool,
    out: Vec<u8>,
}

impl Reader {
    /// A container that has not written anything may have no file yet: that reads as empty.
    pub fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let files = match options.tail_lines {
            Some(lines) => Files::open_tail(path, lines),
            None => Files::open(path, options.since),
        };
        let files = match files {
            Ok(files) => Some(files),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { files, text: Text::new(&options), buffer: vec![0; CHUNK_BYTES].into() })
    }

    /// The limit of bytes is reached: nothing comes any more.
    pub fn is_done(&self) -> bool {
        self.text.left == 0 || self.files.is_none()
    }

    /// The next piece of text; `None` when there is nothing more for now.
    pub fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let Some(files) = &mut self.files else { return Ok(None) };
        while self.text.out.len() < CHUNK_BYTES && self.text.left > 0 {
            let count = files.read(&mut self.buffer)?;
            if count == 0 {
                break;
            }
            self.text.push(&self.buffer[..count]);
        }
        let out = std::mem::take(&mut self.text.out);
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

impl Text {
    fn new(options: &LogOptions) -> Self {
        Self {
            timestamps: options.timestamps,
            // As the writer writes it, so that times compare as text.
            since: options.since.map(|since| format!("{since:.9}")),
            stream: options.stream.map(|stream| stream.name()),
            left: options.limit_bytes.unwrap_or(u64::MAX),
            line: Vec::new(),
            skipping: false,
            at_start: true,
            out: Vec::new(),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (piece, full) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            if self.skipping || self.line.len() + piece.len() > LINE_BYTES_MAX {
                self.line = Vec::new();
                self.skipping = !full;
            } else if !full {
                self.line.extend_from_slice(piece);
            } else if self.line.is_empty() {
                self.entry(piece);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                self.entry(&line);
            }
        }
    }

    /// One line of the file: `TIME STREAM TAGS TEXT`.
    fn entry(&mut self, line: &[u8]) {
        let mut words = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tags), Some(text)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return;
        };
        if self.stream.is_some_and(|wanted| wanted.as_bytes() != stream) || self.is_too_old(time) {
            return;
        }
        if self.timestamps && self.at_start {
            self.put(time);
            self.put(b" ");
        }
        self.put(text);
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P".as_slice());
        if !partial {
            self.put(b"\n");
        }
        self.at_start = !partial;
    }

    fn is_too_old(&self, time: &[u8]) -> bool {
        let Some(since) = &self.since else { return false };
        if time.len() == since.len() && time.ends_with(b"Z") {
            return time < since.as_bytes();
        }
        let parsed = std::str::from_utf8(time).ok().and_then(|time| time.parse::<Timestamp>().ok());
        parsed.is_none_or(|time| format!("{time:.9}").as_str() < since.as_str())
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.out.extend_from_slice(&bytes[..room]);
        self.left -= room as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::{LogOptions, Reader};
    use crate::logs::Stream;

    const LOG: &str = "2026-01-02T03:04:05.000000001Z stdout F one\n\
                       2026-01-02T03:04:05.000000002Z stderr F oops\n\
                       2026-01-02T03:04:06.000000000Z stdout P tw\n\
                       2026-01-02T03:04:06.000000001Z stdout F o\n\
                       2026-01-02T03:04:07.000000000Z stdout F \n\
                       broken\n\
                       2026-01-02T03:04:08.000000000Z stdout P end";

    fn read(options: LogOptions) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let mut reader = Reader::open(&path, options).unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = reader.chunk().unwrap() {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_lose_their_heads_and_parts_are_joined() {
        assert_eq!(read(LogOptions::default()), "one\noops\ntwo\n\n");
    }

    #[test]
    fn times_stand_at_the_start_of_lines_only() {
        let options = LogOptions { timestamps: true, stream: Some(Stream::Stdout), ..LogOptions::default() };
        assert_eq!(
            read(options),
            "2026-01-02T03:04:05.000000001Z one\n2026-01-02T03:04:06.000000000Z two\n2026-01-02T03:04:07.000000000Z \n"
        );
    }

    #[test]
    fn filters_and_limits() {
        let stderr = LogOptions { stream: Some(Stream::Stderr), ..LogOptions::default() };
        assert_eq!(read(stderr), "oops\n");
        let since = Some("2026-01-02T03:04:06.000000001Z".parse().unwrap());
        assert_eq!(read(LogOptions { since, ..LogOptions::default() }), "o\n\n");
        let limit = LogOptions { limit_bytes: Some(6), ..LogOptions::default() };
        assert_eq!(read(limit), "one\noo");
        assert_eq!(read(LogOptions { tail_lines: Some(4), ..LogOptions::default() }), "o\n\n");
    }

    #[test]
    fn a_missing_file_is_empty() {
        let mut reader = Reader::open("/nonexistent/0.log".as_ref(), LogOptions::default()).unwrap();
        assert_eq!(reader.chunk().unwrap(), None);
        assert!(reader.is_done());
    }

    /// A reader that keeps up loses nothing and sees nothing twice while the writer sets one file after the other aside.
    #[test]
    fn every_line_comes_once_through_rotation() {
        use std::sync::atomic::{AtomicU64, Ordering};

        use crate::logs::file::LogFile;

        const LINES: u64 = 20_000;
        const ROTATE_BYTES: u64 = 8192;
        /// Fewer bytes than the files kept, so that none is deleted before it is read.
        const AHEAD: u64 = 100;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogFile::with_rotation(&path, ROTATE_BYTES).unwrap();
        let mut reader = Reader::open(&path, LogOptions::default()).unwrap();
        let seen = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..LINES {
                    while number > seen.load(Ordering::Acquire) + AHEAD {
                        std::thread::yield_now();
                    }
                    log.write(Stream::Stdout, format!("{number}\n").as_bytes(), jiff::Timestamp::now());
                }
            });
            let mut text = String::new();
            while seen.load(Ordering::Relaxed) < LINES {
                match reader.chunk().unwrap() {
                    Some(chunk) => text.push_str(std::str::from_utf8(&chunk).unwrap()),
                    None => std::thread::yield_now(),
                }
                while let Some((line, rest)) = text.split_once('\n') {
                    let expected = seen.load(Ordering::Relaxed);
                    assert_eq!(line.parse(), Ok(expected));
                    seen.store(expected + 1, Ordering::Release);
                    text = rest.to_owned();
                }
            }
        });
    }
}
