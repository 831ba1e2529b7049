//! Debian's docker-registry on loopback, images to put into it, and a proxy before it that counts, cuts and damages.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{PATIENCE, sha256};

pub const USER: &str = "user";
pub const PASSWORD: &str = "secret";
/// bcrypt of it, as the registry wants it.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Gone with the value.
pub struct Registry {
    directory: tempfile::TempDir,
    process: Child,
    pub address: String,
    authorization: Option<String>,
    http: Client<HttpConnector, Full<Bytes>>,
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kr").tempdir_in("/tmp").unwrap()
}

impl Registry {
    pub async fn start(private: bool) -> Self {
        let directory = directory();
        let (data, htpasswd) = (directory.path().join("data"), directory.path().join("htpasswd"));
        std::fs::write(&htpasswd, HTPASSWD).unwrap();
        let auth = if private { json!({"htpasswd": {"realm": "test", "path": htpasswd}}) } else { json!({}) };
        let mut registry = Self::serve(directory, &data, &auth, &json!({})).await;
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        registry.authorization = private.then(|| format!("Basic {login}"));
        registry
    }

    /// The same images over TLS, on another port.
    pub async fn with_tls(&self, certificate: &str, key: &str) -> Self {
        let directory = directory();
        let (certificate_file, key_file) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
        std::fs::write(&certificate_file, certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
        let tls = json!({"certificate": certificate_file, "key": key_file});
        Self::serve(directory, &self.directory.path().join("data"), &json!({}), &tls).await
    }

    async fn serve(directory: tempfile::TempDir, data: &Path, auth: &Value, tls: &Value) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": data}},
            "http": {"addr": address, "tls": tls},
            "auth": auth,
        });
        let file = directory.path().join("config.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string()).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .expect("start docker-registry: it must be installed");
        let http = Client::builder(TokioExecutor::new()).build_http();
        let registry = Self { directory, process, authorization: None, http, address };
        let up = async {
            while TcpStream::connect(&registry.address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, up).await.is_err() {
            let log = std::fs::read_to_string(registry.directory.path().join("log")).unwrap_or_default();
            panic!("docker-registry does not listen: {log}");
        }
        registry
    }

    async fn send(&self, method: &str, url: &str, kind: &str, body: Vec<u8>) -> http::Response<Bytes> {
        let mut request = http::Request::builder().method(method).uri(url).header("content-type", kind);
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let answer = self.http.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        assert!(head.status.is_success(), "{method} {url}: {} {}", head.status, String::from_utf8_lossy(&body));
        http::Response::from_parts(head, body)
    }

    async fn push_blob(&self, repository: &str, blob: &[u8]) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let begun = self.send("POST", &url, "application/octet-stream", Vec::new()).await;
        let location = begun.headers()["location"].to_str().unwrap();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", sha256(blob));
        self.send("PUT", &url, "application/octet-stream", blob.to_vec()).await;
    }

    async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> (String, usize) {
        let bytes = manifest.to_string().into_bytes();
        let kind = manifest["mediaType"].as_str().unwrap();
        let url = format!("http://{}/v2/{repository}/manifests/{reference}", self.address);
        let (digest, size) = (sha256(&bytes), bytes.len());
        let reference_url = if reference.is_empty() { format!("{url}{digest}") } else { url };
        self.send("PUT", &reference_url, kind, bytes).await;
        (digest, size)
    }

    /// Puts a single image under a tag (or only its digest, when that is empty). Returns digest and size of its manifest.
    pub async fn push(&self, repository: &str, tag: &str, image: &TestImage) -> (String, usize) {
        let (config, layers) = (image.config(), &image.layers);
        self.push_blob(repository, &config).await;
        for layer in layers {
            self.push_blob(repository, &layer.blob).await;
        }
        let described = layers
            .iter()
            .map(|layer| json!({"mediaType": layer.kind, "digest": sha256(&layer.blob), "size": layer.blob.len()}));
        let docker = layers.iter().any(|layer| layer.kind.contains("docker"));
        let config_kind = match docker {
            true => "application/vnd.docker.container.image.v1+json",
            false => "application/vnd.oci.image.config.v1+json",
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": if docker { DOCKER_MANIFEST } else { MANIFEST },
            "config": {"mediaType": config_kind, "digest": sha256(&config), "size": config.len()},
            "layers": described.collect::<Vec<_>>(),
        });
        self.push_manifest(repository, tag, &manifest).await
    }

    /// Puts images of several platforms under one tag. Returns the index's digest.
    pub async fn push_index(&self, repository: &str, tag: &str, images: &[TestImage]) -> String {
        let mut manifests = Vec::new();
        for image in images {
            let (digest, size) = self.push(repository, "", image).await;
            let platform = json!({"os": "linux", "architecture": image.architecture});
            manifests.push(json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.push_manifest(repository, tag, &index).await.0
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().expect("kill docker-registry");
        self.process.wait().expect("wait for docker-registry");
    }
}

pub struct Layer {
    kind: &'static str,
    blob: Vec<u8>,
    diff_id: String,
}

impl Layer {
    pub fn plain(tar: &[u8]) -> Self {
        Self { kind: "application/vnd.oci.image.layer.v1.tar", blob: tar.to_vec(), diff_id: sha256(tar) }
    }

    pub fn gzip(tar: &[u8]) -> Self {
        let mut blob = Vec::new();
        let mut encoder = flate2::read::GzEncoder::new(tar, flate2::Compression::fast());
        std::io::Read::read_to_end(&mut encoder, &mut blob).unwrap();
        Self { kind: "application/vnd.oci.image.layer.v1.tar+gzip", blob, diff_id: sha256(tar) }
    }

    /// As docker's own tools write them.
    pub fn docker(tar: &[u8]) -> Self {
        Self { kind: "application/vnd.docker.image.rootfs.diff.tar.gzip", ..Self::gzip(tar) }
    }

    pub fn zstd(tar: &[u8], directory: &Path) -> Self {
        let file = directory.join("layer.tar");
        std::fs::write(&file, tar).unwrap();
        let done = Command::new("zstd").args(["-q", "-c"]).arg(&file).output().expect("zstd must be installed");
        assert!(done.status.success());
        Self { kind: "application/vnd.oci.image.layer.v1.tar+zstd", blob: done.stdout, diff_id: sha256(tar) }
    }

    /// The config says something else of what is in it.
    pub fn with_wrong_diff_id(mut self) -> Self {
        self.diff_id = sha256(b"something else");
        self
    }

    pub fn size(&self) -> u64 {
        self.blob.len() as u64
    }
}

pub struct TestImage {
    pub architecture: &'static str,
    pub layers: Vec<Layer>,
}

impl TestImage {
    pub fn new(layers: Vec<Layer>) -> Self {
        Self { architecture: agent::image::platform::architecture(), layers }
    }

    fn config(&self) -> Vec<u8> {
        let diff_ids = self.layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/tmp"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [],
        });
        config.to_string().into_bytes()
    }
}

/// A layer with one file.
pub fn file_layer(path: &str, contents: &[u8]) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    layer.append_data(&mut header, path, contents).unwrap();
    layer.into_inner().unwrap()
}

/// Bytes that no compression makes smaller.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    });
    next.take(length).collect()
}

/// What a proxy does to what passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// Each connection ends after so many bytes of answers.
    pub cut_after: Option<u64>,
    /// One byte in so many of each connection's answers is another one.
    pub damage_every: Option<u64>,
}

/// Before a registry, as a bad line would be.
pub struct Proxy {
    pub address: String,
    /// Bytes of answers that passed.
    passed: Arc<AtomicU64>,
    fault: Arc<Mutex<Fault>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn before(registry: &Registry, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (passed, fault) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(fault)));
        let (to, count, now) = (registry.address.clone(), passed.clone(), fault.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&to).await.unwrap();
                connections.spawn(pass(client, server, count.clone(), now.clone()));
            }
        });
        Self { address, passed, fault, task }
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: TcpStream, passed: Arc<AtomicU64>, fault: Arc<Mutex<Fault>>) {
    let ((mut client_read, mut client_write), (mut server_read, mut server_write)) =
        (client.into_split(), server.into_split());
    let requests = async { drop(tokio::io::copy(&mut client_read, &mut server_write).await) };
    let answers = async {
        let (mut at, mut buffer) = (0_u64, vec![0; 16 << 10]);
        while let Ok(count @ 1..) = server_read.read(&mut buffer).await {
            let fault = *fault.lock().unwrap();
            let place = fault.damage_every.map(|every| every - 1 - at % every);
            if let Some(byte) = place.and_then(|place| buffer[..count].get_mut(place as usize)) {
                *byte ^= 0xff;
            }
            at += count as u64;
            passed.fetch_add(count as u64, Ordering::Relaxed);
            if client_write.write_all(&buffer[..count]).await.is_err() || fault.cut_after.is_some_and(|end| at >= end) {
                return;
            }
        }
    };
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}
