//! CRI log files: a line per line of output, `TIME STREAM TAG TEXT`, where tag `P` marks a part that the next line of
//! the same stream continues and `F` a full line. Rotated by size; a write never waits for anything but the disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::Stream;

/// A file that reaches this size is set aside.
pub const ROTATE_BYTES: u64 = 10 << 20;
/// Files kept of one container, the one being written included.
pub const FILES_MAX: usize = 5;
/// Longer lines are written in parts (containerd's `max_container_log_line_size`); also what an unfinished line may
/// hold in memory.
const LINE_BYTES_MAX: usize = 16 << 10;

pub struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// Unfinished lines of stdout and stderr.
    rest: [Vec<u8>; 2],
    rotate_bytes: u64,
    failing: bool,
}

impl LogFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_rotation(path, ROTATE_BYTES)
    }

    pub(crate) fn with_rotation(path: &Path, rotate_bytes: u64) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let (file, size) = append(path)?;
        Ok(Self { path: path.to_owned(), file, size, rest: Default::default(), rotate_bytes, failing: false })
    }

    pub fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.size) = append(&self.path)?;
        Ok(())
    }

    pub fn write(&mut self, stream: Stream, data: &[u8], now: Timestamp) {
        let mut text = Vec::with_capacity(data.len() + 64);
        let rest = &mut self.rest[stream as usize];
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (piece, full) = match piece.strip_suffix(b"\n") {
                Some(line) => (line, true),
                None => (piece, false),
            };
            let mut piece = piece;
            while rest.len() + piece.len() > LINE_BYTES_MAX {
                let (part, more) = piece.split_at(LINE_BYTES_MAX - rest.len());
                rest.extend_from_slice(part);
                line(&mut text, stream, 'P', rest, now);
                rest.clear();
                piece = more;
            }
            rest.extend_from_slice(piece);
            if full {
                line(&mut text, stream, 'F', rest, now);
                rest.clear();
            }
        }
        if rest.is_empty() {
            // An idle container holds no memory here.
            *rest = Vec::new();
        }
        self.append(&text);
    }

    /// The stream ended: what is left is a line that nothing will finish.
    pub fn end(&mut self, stream: Stream) {
        let rest = std::mem::take(&mut self.rest[stream as usize]);
        if !rest.is_empty() {
            let mut text = Vec::with_capacity(rest.len() + 64);
            line(&mut text, stream, 'P', &rest, Timestamp::now());
            self.append(&text);
        }
    }

    /// A full disk must not stop the container: what can't be written is dropped, and said once.
    fn append(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        match self.file.write_all(text) {
            Ok(()) => {
                self.failing = false;
                self.size += text.len() as u64;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(path = %self.path.display(), %error, "container output is lost");
                }
                return;
            }
        }
        if self.size >= self.rotate_bytes
            && let Err(error) = self.rotate()
        {
            tracing::error!(path = %self.path.display(), %error, "cannot rotate log");
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S%.6f").to_string();
        let mut aside = self.path.clone().into_os_string();
        aside.push(format!(".{stamp}"));
        std::fs::rename(&self.path, aside)?;
        self.reopen()?;
        let mut old = rotated(&self.path)?;
        let keep = FILES_MAX - 1;
        if old.len() > keep {
            old.truncate(old.len() - keep);
            old.iter().try_for_each(std::fs::remove_file)?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Files set aside for a log, oldest first.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn line(text: &mut Vec<u8>, stream: Stream, tag: char, content: &[u8], now: Timestamp) {
    // Nine digits always: readers compare times as text.
    let head = format!("{now:.9} {} {tag} ", stream.name());
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(content);
    text.push(b'\n');
}

/// The text of the last lines, without times and tags, at most so many lines and bytes of it.
pub fn tail(path: &Path, lines_max: usize, bytes_max: usize) -> io::Result<String> {
    // Times and tags take room beside the text; short lines take most of it.
    let window = (bytes_max + lines_max * 64) as u64;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let parts = text.lines().filter_map(|line| {
        let mut words = line.splitn(4, ' ').skip(2);
        Some((words.next()?, words.next()?))
    });
    let parts = parts.collect::<Vec<_>>();
    let parts = &parts[parts.len().saturating_sub(lines_max)..];
    let mut text = String::new();
    for (tag, part) in parts {
        text.push_str(part);
        // A part of a line is followed by more of it, or by nothing.
        if *tag != "P" {
            text.push('\n');
        }
    }
    let mut cut = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    Ok(text.split_off(cut))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use jiff::Timestamp;

    use super::{FILES_MAX, LINE_BYTES_MAX, LogFile, rotated, tail};
    use crate::logs::Stream::{Stderr, Stdout};

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.000000006Z".parse().unwrap()
    }

    #[test]
    fn lines_are_put_together_per_stream() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c/0.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write(Stdout, b"hel", now());
        log.write(Stderr, b"oops\n", now());
        log.write(Stdout, b"lo\nwor", now());
        log.write(Stdout, b"ld\n\n", now());
        expect![[r#"
            2026-01-02T03:04:05.000000006Z stderr F oops
            2026-01-02T03:04:05.000000006Z stdout F hello
            2026-01-02T03:04:05.000000006Z stdout F world
            2026-01-02T03:04:05.000000006Z stdout F 
        "#]]
        .assert_eq(&std::fs::read_to_string(&path).unwrap());
    }

    #[test]
    fn long_lines_come_in_parts_and_the_last_unfinished_one_is_a_part() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write(Stdout, &vec![b'x'; LINE_BYTES_MAX + 3], now());
        log.write(Stdout, b"\nend", now());
        log.end(Stdout);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| {
            let mut words = line.splitn(4, ' ').skip(2);
            (words.next().unwrap(), words.next().unwrap().len())
        });
        assert_eq!(lines.collect::<Vec<_>>(), [("P", LINE_BYTES_MAX), ("F", 3), ("P", 3)]);
    }

    #[test]
    fn the_tail_is_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write(Stdout, b"one\ntwo\nDONE", now());
        log.end(Stdout);
        assert_eq!(tail(&path, 80, 2048).unwrap(), "one\ntwo\nDONE");
        assert_eq!(tail(&path, 2, 2048).unwrap(), "two\nDONE");
        assert_eq!(tail(&path, 80, 3).unwrap(), "ONE");
    }

    #[test]
    fn rotation_keeps_a_fixed_number_of_files_and_loses_only_the_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        let mut log = LogFile::with_rotation(&path, 100).unwrap();
        for number in 0..20 {
            log.write(Stdout, format!("line {number:02} {}\n", "y".repeat(60)).as_bytes(), now());
        }
        let old = rotated(&path).unwrap();
        assert_eq!(old.len(), FILES_MAX - 1);
        let kept = old.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<String>();
        let kept = kept + &std::fs::read_to_string(&path).unwrap();
        let last = kept.lines().last().unwrap();
        assert!(last.contains("line 19"), "{last}");
        let numbers = kept.lines().map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect::<Vec<_>>();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    }

    #[test]
    fn a_reopened_log_goes_on_where_it_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        LogFile::open(&path).unwrap().write(Stdout, b"one\n", now());
        LogFile::open(&path).unwrap().write(Stdout, b"two\n", now());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }
}
