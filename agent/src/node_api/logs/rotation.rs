//! A log's files, oldest first, read as one sequence of bytes while the writer goes on and sets files aside.
//!
//! Invariant: no byte is skipped between two files that both still exist. The writer renames a full file and makes a
//! new one; a file held open here keeps its inode, so it is found again among the files set aside.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::logs::file::rotated;

/// A rotation may come between listing and opening; that many in a row mean something else is wrong.
const TRIES_MAX: usize = 10;
const BLOCK_BYTES: u64 = 64 << 10;

pub struct Files {
    path: PathBuf,
    current: File,
    /// Known to follow `current`.
    next: VecDeque<File>,
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// All files of a log, oldest first. With a log that nothing has been written to yet, an error of kind `NotFound`.
fn all(path: &Path) -> io::Result<Vec<File>> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..TRIES_MAX {
        let names = rotated(path)?;
        let opened = names.iter().map(|name| name.as_path()).chain([path]).map(File::open);
        match opened.collect::<io::Result<Vec<_>>>() {
            // The same list before and after: nothing came in between.
            Ok(files) if rotated(path)? == names => return Ok(files),
            Ok(_) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

impl Files {
    /// From the beginning of what is kept, or without files last written before `since`.
    pub fn open(path: &Path, since: Option<Timestamp>) -> io::Result<Self> {
        let mut files = VecDeque::from(all(path)?);
        while let Some(since) = since
            && files.len() > 1
            && files.front().is_some_and(|file| file.metadata().is_ok_and(|meta| meta.mtime() < since.as_second()))
        {
            files.pop_front();
        }
        Self::of(path, files)
    }

    /// From the beginning of the last lines.
    pub fn open_tail(path: &Path, lines: u64) -> io::Result<Self> {
        let mut files = all(path)?;
        let mut tail = VecDeque::new();
        let mut counter = TailCounter { lines, found: 0, last: true };
        while let Some(mut file) = files.pop() {
            let start = counter.search(&mut file)?;
            file.seek(SeekFrom::Start(start.unwrap_or(0)))?;
            tail.push_front(file);
            if start.is_some() {
                break;
            }
        }
        Self::of(path, tail)
    }

    fn of(path: &Path, mut files: VecDeque<File>) -> io::Result<Self> {
        let current = files.pop_front().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { path: path.to_owned(), current, next: files })
    }

    /// Zero when there is nothing more for now.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.current.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let next = match self.next.pop_front() {
                Some(next) => next,
                None => match self.successor()? {
                    Some(next) => next,
                    None => return Ok(0),
                },
            };
            // Written between our last read and the moment the file was set aside.
            let count = self.current.read(buffer)?;
            if count > 0 {
                self.next.push_front(next);
                return Ok(count);
            }
            self.current = next;
        }
    }

    /// The file after the current one, if the current one has been set aside.
    fn successor(&self) -> io::Result<Option<File>> {
        let own = identity(&self.current)?;
        for _ in 0..TRIES_MAX {
            let newest = match File::open(&self.path) {
                Ok(file) => file,
                // Between the renaming and the new file, or the log is removed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            if identity(&newest)? == own {
                return Ok(None);
            }
            let names = rotated(&self.path)?;
            let mut aside = Vec::new();
            for name in &names {
                match File::open(name) {
                    Ok(file) => aside.push(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            let mut place = None;
            for (index, file) in aside.iter().enumerate() {
                if identity(file)? == own {
                    place = Some(index);
                }
            }
            // Not among them: too slow, and ours is deleted already; go on with the oldest.
            let after = place.map_or(0, |index| index + 1);
            if after < aside.len() {
                return Ok(Some(aside.swap_remove(after)));
            }
            // Ours is the last one set aside, so the newest follows, unless it has been set aside meanwhile.
            if rotated(&self.path)? == names {
                return Ok(Some(newest));
            }
        }
        Err(io::Error::other("log files are set aside faster than they can be opened"))
    }
}

/// Counts line ends backwards over files.
struct TailCounter {
    lines: u64,
    found: u64,
    /// The very last line end ends the last line and starts none.
    last: bool,
}

impl TailCounter {
    /// Where the wanted lines begin, if they begin in this file.
    fn search(&mut self, file: &mut File) -> io::Result<Option<u64>> {
        let mut end = file.metadata()?.len();
        if self.lines == 0 {
            return Ok(Some(end));
        }
        let mut block = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(BLOCK_BYTES);
            file.seek(SeekFrom::Start(start))?;
            block.clear();
            file.by_ref().take(end - start).read_to_end(&mut block)?;
            for (index, byte) in block.iter().enumerate().rev() {
                let is_end = *byte == b'\n';
                if is_end && !self.last {
                    self.found += 1;
                    if self.found == self.lines {
                        return Ok(Some(start + index as u64 + 1));
                    }
                }
                self.last = false;
            }
            end = start;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write, path::Path};

    use super::Files;

    fn append(path: &Path, text: &str) {
        OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn set_aside(path: &Path, number: usize) {
        std::fs::rename(path, format!("{}.20260101-00000{number}", path.display())).unwrap();
        append(path, "");
    }

    fn rest(files: &mut Files) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 7];
        loop {
            let count = files.read(&mut buffer).unwrap();
            if count == 0 {
                return String::from_utf8(text).unwrap();
            }
            text.extend_from_slice(&buffer[..count]);
        }
    }

    #[test]
    fn a_reader_follows_every_file_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        append(&path, "one\n");
        let mut files = Files::open(&path, None).unwrap();
        assert_eq!(rest(&mut files), "one\n");
        append(&path, "two\n");
        set_aside(&path, 1);
        append(&path, "three\n");
        set_aside(&path, 2);
        append(&path, "four\n");
        assert_eq!(rest(&mut files), "two\nthree\nfour\n");
        append(&path, "five\n");
        assert_eq!(rest(&mut files), "five\n");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(rest(&mut files), "");
    }

    #[test]
    fn a_reader_that_was_too_slow_goes_on_with_the_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        append(&path, "one\n");
        let mut files = Files::open(&path, None).unwrap();
        assert_eq!(rest(&mut files), "one\n");
        for number in 1..4 {
            set_aside(&path, number);
            append(&path, &format!("{number}\n"));
        }
        std::fs::remove_file(format!("{}.20260101-000001", path.display())).unwrap();
        assert_eq!(rest(&mut files), "1\n2\n3\n");
    }

    #[test]
    fn tails_reach_over_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        append(&path, "1\n2\n");
        set_aside(&path, 1);
        append(&path, "3\n");
        set_aside(&path, 2);
        append(&path, "4\n5\n");
        let tail = |lines| rest(&mut Files::open_tail(&path, lines).unwrap());
        assert_eq!(tail(0), "");
        assert_eq!(tail(1), "5\n");
        assert_eq!(tail(2), "4\n5\n");
        assert_eq!(tail(3), "3\n4\n5\n");
        assert_eq!(tail(4), "2\n3\n4\n5\n");
        assert_eq!(tail(100), "1\n2\n3\n4\n5\n");
        append(&path, "half");
        assert_eq!(tail(1), "half");
        assert_eq!(tail(2), "5\nhalf");
    }

    #[test]
    fn a_log_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Files::open(&directory.path().join("0.log"), None).is_err());
    }
}
