//! The build that is upgraded from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tests::process::{command, run};

/// Names the version in requests; its end is changed.
const NAMED: &str = concat!("keelson-agent/", env!("CARGO_PKG_VERSION"));

/// An earlier build where one is given. Otherwise a copy of this one that tells another version, which is enough for
/// all that an upgrade does: another file, another process, another name in requests.
pub fn old_build(new: &Path, dir: &Path) -> Result<PathBuf> {
    let old = match std::env::var_os("KEELSON_OLD_BINARY") {
        Some(old) => PathBuf::from(old),
        None => renamed(new, &dir.join("keelson-old"))?,
    };
    let version = |binary: &Path| run(&mut command(binary, ["version"]));
    println!("upgrade: from {} ({:?}) to {}", version(&old)?.trim(), old, version(new)?.trim());
    ensure!(fs::read(&old)? != fs::read(new)?, "the build to upgrade from is the same one");
    Ok(old)
}

/// A copy with the last digit of its version replaced wherever it names itself.
fn renamed(new: &Path, old: &Path) -> Result<PathBuf> {
    let mut bytes = fs::read(new).with_context(|| format!("read {new:?}"))?;
    let mut changed = 0;
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], NAMED.as_bytes()) {
        from += at + NAMED.len();
        bytes[from - 1] = b'x';
        changed += 1;
    }
    ensure!(changed > 0, "{new:?} does not hold {NAMED:?}");
    fs::write(old, bytes).with_context(|| format!("write {old:?}"))?;
    fs::set_permissions(old, fs::Permissions::from_mode(0o755))?;
    Ok(old.to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
