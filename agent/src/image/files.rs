//! The node's own registry credentials, from the files where the kubelet looks for docker's.

use std::path::{Path, PathBuf};

use super::credentials::Keyring;

/// Larger files are no credentials.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where to look, in order; the first file that can be read counts, `config.json` before the older `.dockercfg`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// A file of the form of `config.json`, given by the operator. With it nothing else is looked at.
    pub given: Option<PathBuf>,
}

impl Files {
    /// Read at every pull: renewed credentials need no restart.
    pub fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        if let Some(given) = &self.given {
            if let Err(problem) = read(given, &mut keyring, true) {
                tracing::warn!(file = %given.display(), problem, "registry credentials are not used");
            }
            return keyring;
        }
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let places = |home_below: &str, root_below: &str| {
            let home = home.as_ref().map(|home| home.join(home_below));
            [Some(PathBuf::from("/var/lib/kubelet")), home, Some(Path::new("/").join(root_below))]
        };
        let json = places(".docker", ".docker").into_iter().flatten().map(|place| (place.join("config.json"), true));
        let old = places("", "").into_iter().flatten().map(|place| (place.join(".dockercfg"), false));
        for (file, is_json) in json.chain(old) {
            match read(&file, &mut keyring, is_json) {
                Ok(true) => break,
                Ok(false) => {}
                Err(problem) => tracing::warn!(file = %file.display(), problem, "registry credentials are not used"),
            }
        }
        keyring
    }
}

/// `false` when there is no such file.
fn read(file: &Path, keyring: &mut Keyring, is_json: bool) -> Result<bool, String> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.to_string()),
        Ok(found) if found.len() > FILE_BYTES_MAX => return Err(format!("more than {FILE_BYTES_MAX} bytes")),
        Ok(_) => {}
    }
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    let added = match is_json {
        true => keyring.add_config_json(&text, None),
        false => keyring.add_dockercfg(&text, None),
    };
    added.map(|()| true).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::Files;

    #[test]
    fn a_given_file_is_read_every_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("auth.json");
        let files = Files { given: Some(file.clone()) };
        assert!(files.keyring().lookup("a.io/x").is_empty());
        std::fs::write(&file, r#"{"auths": {"a.io": {"username": "u", "password": "p"}}}"#).unwrap();
        assert_eq!(files.keyring().lookup("a.io/x")[0].username, "u");
        std::fs::write(&file, "not json").unwrap();
        assert!(files.keyring().lookup("a.io/x").is_empty());
    }
}
