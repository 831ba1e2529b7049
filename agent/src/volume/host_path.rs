//! `hostPath`: a path of the host, checked or made as its type says (upstream's `hostpath.checkType`).

use std::{fs, io, os::unix::fs::FileTypeExt, os::unix::fs::PermissionsExt, path::PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::Error;

/// The path, when it is what the volume asks for.
pub fn prepare(volume: &str, source: &HostPathVolumeSource) -> Result<PathBuf, Error> {
    let path = PathBuf::from(&source.path);
    let failed = |action: &'static str| {
        let (volume, path) = (volume.to_owned(), path.clone());
        move |source: io::Error| Error::Io { volume, action, path, source }
    };
    let kind = source.type_.as_deref().unwrap_or_default();
    match kind {
        // Docker made missing directories, and bind mounts need something to bind: so does this.
        "" if !path.exists() => fs::create_dir_all(&path).map_err(failed("create directory"))?,
        "" => {}
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).map_err(failed("create directory"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed("set mode of"))?;
        }
        "FileOrCreate" if !path.exists() => {
            fs::File::create(&path).map_err(failed("create file"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(failed("set mode of"))?;
        }
        _ => check(volume, kind, &path)?,
    }
    Ok(path)
}

fn check(volume: &str, kind: &str, path: &PathBuf) -> Result<(), Error> {
    let file_type = fs::metadata(path).map(|m| m.file_type());
    let is = |test: fn(&fs::FileType) -> bool| file_type.as_ref().is_ok_and(test);
    let (fits, what) = match kind {
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        _ => (false, "a type this agent knows"),
    };
    if fits {
        return Ok(());
    }
    let problem = format!("hostPath type check failed: {} is not {what}", path.display());
    Err(Error::Unsupported { volume: volume.to_owned(), problem })
}
