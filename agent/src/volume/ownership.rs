//! Group ownership of writable volumes (`spec.securityContext.fsGroup`), as upstream's `volume.SetVolumeOwnership`.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

/// Set on directories, so that new files belong to the group too.
const SETGID: u32 = 0o2000;

/// Gives an empty directory to `group`.
pub fn give(directory: &Path, group: i64) -> io::Result<()> {
    let group = u32::try_from(group).map_err(io::Error::other)?;
    chown(directory, None, Some(group))?;
    let mode = fs::metadata(directory)?.permissions().mode();
    fs::set_permissions(directory, fs::Permissions::from_mode(mode | SETGID | 0o070))
}
