//! Files that appear all at once: written into a fresh directory beside the old one, then made visible by renaming
//! one symlink (the layout of upstream's `volume/util.AtomicWriter`, which programs that watch `..data` rely on).
//!
//! Invariant: a reader sees all files of one content or all of another. What did not change is not touched.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

/// The link to the directory with the present content.
const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// A file to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner where it is not root: a token belongs to the user its container runs as.
    pub user: Option<u32>,
}

/// Relative path (checked by the API server to stay inside) to file.
pub type Files = BTreeMap<String, File>;

type Failure = (&'static str, PathBuf, io::Error);

/// Makes `directory` show exactly `files`, owned by `group` where one is given.
pub fn write(directory: &Path, files: &Files, group: Option<i64>) -> Result<(), Failure> {
    let data = directory.join(DATA);
    if shows(&data, files) {
        return Ok(());
    }
    let old = fs::read_link(&data).ok().map(|name| directory.join(name));
    let next = directory.join(format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f")));
    // Left from an attempt that was cut short: nothing points at it.
    remove_if_there(&next)?;
    at("create directory", &next, fs::create_dir(&next))?;
    at("set mode of", &next, fs::set_permissions(&next, fs::Permissions::from_mode(0o755)))?;
    for (name, file) in files {
        write_file(&next, name, file, group)?;
    }
    let link = directory.join(DATA_NEXT);
    remove_if_there(&link)?;
    let target = next.file_name().unwrap_or_default();
    at("create link", &link, symlink(target, &link))?;
    at("rename link", &link, fs::rename(&link, &data))?;
    link_entries(directory, files)?;
    match old {
        Some(old) if old != next => remove_if_there(&old),
        _ => Ok(()),
    }
}

fn write_file(root: &Path, name: &str, file: &File, group: Option<i64>) -> Result<(), Failure> {
    let path = root.join(name);
    if let Some(parent) = path.parent() {
        at("create directory", parent, fs::create_dir_all(parent))?;
    }
    at("write", &path, fs::write(&path, &file.bytes))?;
    let group = group.and_then(|g| u32::try_from(g).ok());
    if file.user.is_some() || group.is_some() {
        at("change owner of", &path, chown(&path, file.user, group))?;
    }
    // The group must be able to read what it was given.
    let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
    at("set mode of", &path, fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
}

/// One link per top-level entry, through [`DATA`]; entries that are gone lose theirs.
fn link_entries(directory: &Path, files: &Files) -> Result<(), Failure> {
    let top = |name: &str| name.split('/').next().unwrap_or(name).to_owned();
    let wanted: std::collections::BTreeSet<String> = files.keys().map(|name| top(name)).collect();
    for entry in &wanted {
        let link = directory.join(entry);
        let target = Path::new(DATA).join(entry);
        if fs::read_link(&link).is_ok_and(|t| t == target) {
            continue;
        }
        remove_if_there(&link)?;
        at("create link", &link, symlink(&target, &link))?;
    }
    for entry in at("list", directory, fs::read_dir(directory))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether the content is what it should be already: the same files with the same bytes.
fn shows(data: &Path, files: &Files) -> bool {
    data.exists()
        && count_files(data) == files.len()
        && files.iter().all(|(name, file)| fs::read(data.join(name)).is_ok_and(|bytes| bytes == file.bytes))
}

fn count_files(directory: &Path) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.flatten().map(|e| if e.path().is_dir() { count_files(&e.path()) } else { 1 }).sum()
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    at("remove", path, removed)
}

fn at<T>(action: &'static str, path: &Path, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|source| (action, path.to_owned(), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644, user: None };
        list.iter().map(|(name, text)| ((*name).to_owned(), file(text))).collect()
    }

    fn listing(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("a directory")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .filter(|n| !n.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn content_is_replaced_whole_and_left_alone_when_equal() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!(listing(dir.path()), ["a", "sub"]);
        assert_eq!(fs::read_to_string(dir.path().join("sub/b")).expect("readable"), "2");

        let before = fs::read_link(dir.path().join(DATA)).expect("a link");
        write(dir.path(), &files(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!(fs::read_link(dir.path().join(DATA)).expect("a link"), before);

        write(dir.path(), &files(&[("a", "3")]), None).expect("written");
        assert_eq!(listing(dir.path()), ["a"]);
        assert_eq!(fs::read_to_string(dir.path().join("a")).expect("readable"), "3");
        assert!(!dir.path().join(before).exists(), "the old content is gone");
    }

    #[test]
    fn a_group_can_read_what_it_is_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut secret = files(&[("key", "x")]);
        secret.get_mut("key").expect("the file").mode = 0o400;
        let own = nix::unistd::getgid().as_raw();
        write(dir.path(), &secret, Some(i64::from(own))).expect("written");
        let mode = fs::metadata(dir.path().join("key")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o440);
    }
}
