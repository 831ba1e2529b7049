//! Registry credentials: docker's two file forms, and which of their entries serve an image. Pure.
//!
//! Behaviour follows the kubelet's `credentialprovider`: a key is a host, maybe with port and path, and may have wildcards
//! in its host; several entries may serve one image and are tried in turn, the most specific first. Credential helpers
//! of `config.json` (`credsStore`, `credHelpers`) are ignored, as the kubelet does.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Where docker's own tools keep what is for `docker.io`.
const DEFAULT_REGISTRY: &str = "index.docker.io";
/// Bytes of a credential's hash that are kept: enough to tell credentials apart, too few to guess passwords from.
const HASH_BYTES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("credentials are not JSON of the form docker writes")]
    Json(#[from] serde_json::Error),
    #[error("unable to parse auth field, must be formatted as base64(username:password)")]
    Auth,
}

/// Who may use an image that was pulled with a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Secret {
    pub uid: String,
    pub hash: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    pub username: String,
    pub password: String,
    /// uid of the Secret it comes from; `None` for the node's own files, which serve every pod.
    pub secret_uid: Option<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}, from {:?})", self.username, self.secret_uid)
    }
}

impl Credential {
    /// `None` for the node's own.
    pub fn secret(&self) -> Option<Secret> {
        let uid = self.secret_uid.clone()?;
        let digest = Sha256::digest(format!("{}\0{}", self.username, self.password).as_bytes());
        Some(Secret { uid, hash: crate::runtime::image::hex(&digest[..HASH_BYTES]) })
    }
}

#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
}

/// Credentials by the registries (and paths) they are for.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: BTreeMap<String, Vec<Credential>>,
}

impl Keyring {
    /// The form of `~/.docker/config.json` and of Secrets of type `kubernetes.io/dockerconfigjson`.
    pub fn add_config_json(&mut self, text: &[u8], secret_uid: Option<&str>) -> Result<(), Error> {
        let config: ConfigJson = serde_json::from_slice(text)?;
        self.add(config.auths, secret_uid)
    }

    /// The form of `~/.dockercfg` and of Secrets of type `kubernetes.io/dockercfg`.
    pub fn add_dockercfg(&mut self, text: &[u8], secret_uid: Option<&str>) -> Result<(), Error> {
        self.add(serde_json::from_slice(text)?, secret_uid)
    }

    fn add(&mut self, entries: BTreeMap<String, Entry>, secret_uid: Option<&str>) -> Result<(), Error> {
        for (location, entry) in entries {
            let (username, password) = match entry.auth.as_str() {
                "" => (entry.username, entry.password),
                auth => decode(auth)?,
            };
            let credential = Credential { username, password, secret_uid: secret_uid.map(str::to_owned) };
            self.entries.entry(key(&location)).or_default().push(credential);
        }
        Ok(())
    }

    /// What may open a repository such as `docker.io/library/busybox`, best first.
    pub fn lookup(&self, repository: &str) -> Vec<Credential> {
        let found = self.entries.iter().rev().filter(|(key, _)| serves(key, repository));
        let found = found.flat_map(|(_, credentials)| credentials.clone()).collect::<Vec<_>>();
        if found.is_empty() && repository.starts_with("docker.io/") {
            return self.entries.get(DEFAULT_REGISTRY).cloned().unwrap_or_default();
        }
        found
    }
}

fn decode(auth: &str) -> Result<(String, String), Error> {
    // Padded or not; docker has written both.
    let bytes = general_purpose::STANDARD_NO_PAD.decode(auth.trim().trim_end_matches('=')).map_err(|_| Error::Auth)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Auth)?;
    let (username, password) = text.split_once(':').ok_or(Error::Auth)?;
    Ok((username.to_owned(), password.to_owned()))
}

/// Without scheme, API version and trailing slash: `https://index.docker.io/v1/` is `index.docker.io`.
fn key(location: &str) -> String {
    let plain = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://")).unwrap_or(location);
    let (host, path) = plain.split_once('/').unwrap_or((plain, ""));
    let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

fn serves(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let (key_host, key_port) = key_host.split_once(':').unwrap_or((key_host, ""));
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    let parts = |host: &str| host.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (key_parts, parts) = (parts(key_host), parts(host));
    key_port == port
        && key_parts.len() == parts.len()
        && path.starts_with(key_path)
        && key_parts.iter().zip(&parts).all(|(pattern, part)| matches(pattern.as_bytes(), part.as_bytes()))
}

/// `*` and `?` within one part of a host name.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => matches(&pattern[1..], text) || (!text.is_empty() && matches(pattern, &text[1..])),
        (Some(b'?'), Some(_)) => matches(&pattern[1..], &text[1..]),
        (Some(wanted), Some(letter)) if wanted == letter => matches(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Keyring};

    fn users(keyring: &Keyring, repository: &str) -> Vec<String> {
        keyring.lookup(repository).into_iter().map(|credential| credential.username).collect()
    }

    #[test]
    fn the_most_specific_entry_comes_first() {
        let mut keyring = Keyring::default();
        let config = r#"{"auths": {
            "quay.io": {"username": "host", "password": "p"},
            "https://quay.io/coreos": {"username": "path", "password": "p"},
            "*.example.com": {"username": "wild", "password": "p"},
            "reg.local:5000": {"auth": "cG9ydDpzZTpjcmV0"},
            "https://index.docker.io/v1/": {"auth": "aHViOnA"}
        }}"#;
        keyring.add_config_json(config.as_bytes(), None).unwrap();
        assert_eq!(users(&keyring, "quay.io/coreos/etcd"), ["path", "host"]);
        assert_eq!(users(&keyring, "quay.io/other"), ["host"]);
        assert_eq!(users(&keyring, "a.example.com/x"), ["wild"]);
        assert_eq!(users(&keyring, "a.b.example.com/x"), Vec::<String>::new());
        assert_eq!(users(&keyring, "reg.local/x"), Vec::<String>::new());
        assert_eq!(users(&keyring, "docker.io/library/busybox"), ["hub"]);
        let port = &keyring.lookup("reg.local:5000/x")[0];
        assert_eq!((port.username.as_str(), port.password.as_str()), ("port", "se:cret"));
    }

    #[test]
    fn secrets_are_told_apart_by_what_is_in_them() {
        let mut keyring = Keyring::default();
        keyring.add_dockercfg(br#"{"a.io": {"username": "u", "password": "p"}}"#, Some("uid-1")).unwrap();
        keyring.add_dockercfg(br#"{"a.io": {"username": "u", "password": "q"}}"#, Some("uid-2")).unwrap();
        let secrets = keyring.lookup("a.io/x").iter().map(|found| found.secret().unwrap()).collect::<Vec<_>>();
        assert_eq!((secrets[0].uid.as_str(), secrets[1].uid.as_str()), ("uid-1", "uid-2"));
        assert_ne!(secrets[0].hash, secrets[1].hash);
        assert!(!format!("{keyring:?}").contains("\"p\""), "passwords are in no log");
    }

    #[test]
    fn broken_entries_say_so() {
        let mut keyring = Keyring::default();
        assert!(matches!(keyring.add_config_json(b"auths", None), Err(Error::Json(_))));
        assert!(matches!(keyring.add_dockercfg(br#"{"a": {"auth": "bm8"}}"#, None), Err(Error::Auth)));
    }
}
