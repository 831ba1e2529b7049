//! Where the images of a registry are fetched from: containerd's `certs.d` directories, as its documentation describes
//! them (`hosts.toml` with mirrors, or docker's `*.crt`, `*.cert` and `*.key` files).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{Table, Value};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("parse {path}")]
    Parse { path: String, source: Box<toml::de::Error> },
    #[error("{path}: host {host:?} is no address")]
    Address { path: String, host: String },
}

/// One server that may have a registry's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https`, or `http` in plain text.
    pub scheme: &'static str,
    /// Host and port.
    pub authority: String,
    /// Before the repository: `/v2`.
    pub path: String,
    /// May tell which image a tag names.
    pub resolves: bool,
    /// May be asked for content by digest.
    pub pulls: bool,
    /// Sent as `ns` to a mirror, so that it knows whose images are asked for.
    pub namespace: Option<String>,
    pub tls: Tls,
    pub headers: Vec<(String, String)>,
    pub dial_timeout: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM files trusted beside the host's own authorities.
    pub authorities: Vec<PathBuf>,
    /// PEM files of a certificate and its key; they may be one file.
    pub client: Option<(PathBuf, PathBuf)>,
    pub skip_verify: bool,
}

/// `hosts.toml`, or one of its `host` tables.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    override_path: bool,
    header: std::collections::BTreeMap<String, OneOrMore>,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn list(self) -> Vec<String> {
        match self {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(more) => more,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Client {
    File(String),
    Pairs(Vec<OneOrMore>),
}

/// Servers to ask for images of `registry`, best first; the registry itself is the last, unless the file's `server` says
/// otherwise. Read at every pull, so that a change needs no restart.
pub fn endpoints(root: &Path, registry: &str) -> Result<Vec<Endpoint>, Error> {
    let Some(directory) = directories(registry).map(|name| root.join(name)).find(|path| path.is_dir()) else {
        return Ok(vec![default_endpoint(registry)]);
    };
    let file = directory.join("hosts.toml");
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text, &file, registry),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let mut endpoint = default_endpoint(registry);
            endpoint.tls = certificates(&directory)?;
            endpoint.scheme = "https";
            Ok(vec![endpoint])
        }
        Err(source) => Err(Error::Read { path: file.display().to_string(), source }),
    }
}

/// Names of the directory that may be a registry's: `reg_5000_` stands for `reg:5000` where colons are in the way.
fn directories(registry: &str) -> impl Iterator<Item = String> {
    let colonless = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    colonless.into_iter().chain([registry.to_owned(), "_default".to_owned()])
}

/// Docker Hub's registry has another name than its images.
fn server_of(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// The registry under its own name. On this host plain HTTP is expected, on any port but 443; everywhere else TLS.
fn default_endpoint(registry: &str) -> Endpoint {
    let authority = server_of(registry).to_owned();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority.as_str(), ""),
    };
    let plain = is_loopback(host) && !matches!(port, "" | "443");
    Endpoint {
        scheme: if plain { "http" } else { "https" },
        authority,
        path: "/v2".to_owned(),
        resolves: true,
        pulls: true,
        namespace: None,
        tls: Tls::default(),
        headers: Vec::new(),
        dial_timeout: None,
    }
}

pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn parse(text: &str, file: &Path, registry: &str) -> Result<Vec<Endpoint>, Error> {
    let path = || file.display().to_string();
    let wrong = |source| Error::Parse { path: path(), source: Box::new(source) };
    let mut table: Table = text.parse().map_err(wrong)?;
    let mirrors = table.remove("host");
    let server = table.remove("server").and_then(|server| server.as_str().map(str::to_owned));
    let mut endpoints = Vec::new();
    if let Some(Value::Table(mirrors)) = mirrors {
        for (address, host) in mirrors {
            let host: Host = host.try_into().map_err(wrong)?;
            endpoints.push(endpoint(&address, host, file, registry)?);
        }
    }
    let own: Host = Value::Table(table).try_into().map_err(wrong)?;
    let default = default_endpoint(registry);
    let server = server.unwrap_or_else(|| format!("{}://{}", default.scheme, default.authority));
    endpoints.push(endpoint(&server, own, file, registry)?);
    Ok(endpoints)
}

fn endpoint(address: &str, host: Host, file: &Path, registry: &str) -> Result<Endpoint, Error> {
    let (scheme, rest) = match address.split_once("://") {
        Some(("http", rest)) => ("http", rest),
        Some(("https", rest)) => ("https", rest),
        None => ("https", address),
        Some(_) => return Err(Error::Address { path: file.display().to_string(), host: address.to_owned() }),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || authority.parse::<http::uri::Authority>().is_err() {
        return Err(Error::Address { path: file.display().to_string(), host: address.to_owned() });
    }
    let mut path = path.trim_end_matches('/').to_owned();
    if !path.is_empty() {
        path.insert(0, '/');
    }
    if !host.override_path && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    let authority = server_of(authority).to_owned();
    let can = |what: &str| host.capabilities.as_ref().is_none_or(|list| list.iter().any(|one| one == what));
    let below = |name: String| file.parent().unwrap_or(Path::new("/")).join(name);
    let pair = |pair: Vec<String>| {
        let mut files = pair.into_iter().filter(|name| !name.is_empty()).map(below);
        let certificate = files.next()?;
        Some((certificate.clone(), files.next().unwrap_or(certificate)))
    };
    Ok(Endpoint {
        scheme,
        namespace: (authority != server_of(registry)).then(|| registry.to_owned()),
        authority,
        path,
        resolves: can("resolve"),
        pulls: can("pull"),
        tls: Tls {
            authorities: host.ca.map(OneOrMore::list).unwrap_or_default().into_iter().map(below).collect(),
            client: match host.client {
                Some(Client::File(file)) => pair(vec![file]),
                Some(Client::Pairs(pairs)) => pairs.into_iter().next().and_then(|first| pair(first.list())),
                None => None,
            },
            skip_verify: host.skip_verify.unwrap_or(false),
        },
        headers: host
            .header
            .into_iter()
            .flat_map(|(name, values)| values.list().into_iter().map(move |value| (name.clone(), value)))
            .collect(),
        dial_timeout: host.dial_timeout.as_deref().and_then(duration),
    })
}

/// A Go duration in one unit: `500ms`, `3s`, `1m`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number * 60)),
        _ => None,
    }
}

/// Docker's way: authorities end in `.crt`; `x.cert` is a client certificate and `x.key` its key.
fn certificates(directory: &Path) -> Result<Tls, Error> {
    let unreadable = |source| Error::Read { path: directory.display().to_string(), source };
    let mut tls = Tls::default();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                tls.client = Some((path, key));
            }
            _ => {}
        }
    }
    tls.authorities.sort();
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Endpoint, default_endpoint, endpoints, parse};

    fn line(endpoint: &Endpoint) -> String {
        let flag = |name: &str, set: bool| if set { format!(" {name}") } else { String::new() };
        format!(
            "{}://{}{}{}{}{}{}",
            endpoint.scheme,
            endpoint.authority,
            endpoint.path,
            flag("resolve", endpoint.resolves),
            flag("pull", endpoint.pulls),
            flag("insecure", endpoint.tls.skip_verify),
            endpoint.namespace.as_ref().map(|of| format!(" for {of}")).unwrap_or_default(),
        )
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
        let text = r#"
            server = "https://docker.io"
            [host."https://z.example.com/hub/"]
              capabilities = ["pull"]
              ca = "ca.pem"
              client = [["c.pem", "c.key"]]
              [host."https://z.example.com/hub/".header]
                x-team = "a"
            [host."http://10.0.0.1:5000/raw"]
              override_path = true
              skip_verify = true
              ca = ["/a.pem", "b.pem"]
              dial_timeout = "500ms"
        "#;
        let found = parse(text, Path::new("/c/docker.io/hosts.toml"), "docker.io").unwrap();
        assert_eq!(
            found.iter().map(line).collect::<Vec<_>>(),
            [
                "https://z.example.com/hub/v2 pull for docker.io",
                "http://10.0.0.1:5000/raw resolve pull insecure for docker.io",
                "https://registry-1.docker.io/v2 resolve pull",
            ]
        );
        assert_eq!(found[0].tls.authorities, [Path::new("/c/docker.io/ca.pem")]);
        assert_eq!(found[0].tls.client.as_ref().unwrap().1, Path::new("/c/docker.io/c.key"));
        assert_eq!(found[0].headers, [("x-team".to_owned(), "a".to_owned())]);
        assert_eq!(found[1].tls.authorities, [Path::new("/a.pem"), Path::new("/c/docker.io/b.pem")]);
        assert_eq!(found[1].dial_timeout, Some(std::time::Duration::from_millis(500)));
    }

    #[test]
    fn without_configuration_the_registry_itself_is_asked() {
        for (registry, expected) in [
            ("docker.io", "https://registry-1.docker.io/v2 resolve pull"),
            ("reg.example.com:5000", "https://reg.example.com:5000/v2 resolve pull"),
            ("localhost:5000", "http://localhost:5000/v2 resolve pull"),
            ("localhost", "https://localhost/v2 resolve pull"),
            ("127.0.0.1:80", "http://127.0.0.1:80/v2 resolve pull"),
        ] {
            assert_eq!(line(&default_endpoint(registry)), expected);
        }
    }

    #[test]
    fn directories_are_found_by_registry_and_by_default() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(root.path().join(name)).unwrap();
            std::fs::write(root.path().join(name).join("hosts.toml"), text).unwrap();
        };
        let lines = |registry: &str| endpoints(root.path(), registry).unwrap().iter().map(line).collect::<Vec<_>>();
        assert_eq!(lines("a.io"), ["https://a.io/v2 resolve pull"]);
        write("_default", "[host.\"https://all\"]");
        write("b.io_5000_", "server = \"http://b.io:5000\"");
        assert_eq!(lines("a.io"), ["https://all/v2 resolve pull for a.io", "https://a.io/v2 resolve pull"]);
        assert_eq!(lines("b.io:5000"), ["http://b.io:5000/v2 resolve pull"]);
        std::fs::create_dir(root.path().join("c.io")).unwrap();
        std::fs::write(root.path().join("c.io/x.crt"), "").unwrap();
        let found = endpoints(root.path(), "c.io").unwrap();
        assert_eq!(found[0].tls.authorities, [root.path().join("c.io/x.crt")]);
        write("d.io", "[host.\"ftp://x\"]");
        assert!(endpoints(root.path(), "d.io").unwrap_err().to_string().contains("ftp://x"));
        write("e.io", "server = [");
        assert!(endpoints(root.path(), "e.io").unwrap_err().to_string().contains("e.io/hosts.toml"));
    }
}
