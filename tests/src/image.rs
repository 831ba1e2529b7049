//! Small container images made from local files: a static busybox and a script, as an OCI layout in one tar archive.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What goes into an image.
pub struct Image<'a> {
    /// Full reference, such as `docker.io/library/hello:1`.
    pub reference: &'a str,
    /// Files: path in the image, content, mode.
    pub files: &'a [(&'a str, &'a str, u32)],
    pub entrypoint: &'a [&'a str],
    pub env: &'a [&'a str],
}

/// The demo: answers every HTTP request on port 8080 with its host name and its version.
pub fn hello(version: &str) -> HelloImage {
    HelloImage { reference: format!("keelson.local/hello:{version}"), version: version.to_owned() }
}

/// See [`hello`].
pub struct HelloImage {
    pub reference: String,
    version: String,
}

impl HelloImage {
    /// Writes the image's archive to `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.with(|image| image.write(path))
    }

    /// Calls `then` with the image.
    pub fn with<T>(&self, then: impl FnOnce(&Image<'_>) -> T) -> T {
        let start = "#!/bin/sh\n\
            mkdir -p /tmp/www\n\
            echo \"hello from $(hostname), version $VERSION\" > /tmp/www/index.html\n\
            echo \"serving on port 8080 as $(hostname), version $VERSION\"\n\
            trap 'echo stopping; exit 0' TERM INT\n\
            httpd -f -p 8080 -h /tmp/www &\n\
            wait\n";
        let version = format!("VERSION={}", self.version);
        let image = Image {
            reference: &self.reference,
            files: &[("start.sh", start, 0o755)],
            entrypoint: &["/start.sh"],
            env: &["PATH=/bin", &version],
        };
        then(&image)
    }
}

/// The blobs of an image.
pub struct Contents {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Image<'_> {
    pub fn contents(&self) -> Result<Contents> {
        let layer = self.layer()?;
        let config = serde_json::to_vec(&json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": self.env },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }))?;
        Ok(Contents { layer, config, manifest })
    }

    /// Writes an OCI image layout (`oci-layout`, `index.json`, `blobs/`) as one tar archive.
    pub fn write(&self, path: &Path) -> Result<()> {
        let Contents { layer, config, manifest } = self.contents()?;
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.reference,
        });
        let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;

        let file = std::fs::File::create(path).with_context(|| format!("create {path:?}"))?;
        let mut archive = tar::Builder::new(std::io::BufWriter::new(file));
        append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        append(&mut archive, "index.json", &index, 0o644)?;
        for blob in [&layer, &config, &manifest] {
            append(&mut archive, &format!("blobs/sha256/{}", hex(blob)), blob, 0o644)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        let busybox = busybox.context("busybox is not installed (package busybox-static)")?;
        let mut layer = tar::Builder::new(Vec::new());
        append(&mut layer, "bin/busybox", &std::fs::read(busybox)?, 0o755)?;
        let applets = crate::process::run(&mut crate::process::command(busybox, ["--list"]))?;
        for applet in applets.lines().filter(|a| *a != "busybox") {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
        for dir in ["tmp", "etc", "proc", "sys", "dev", "root", "var"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_size(0);
            header.set_mode(if dir == "tmp" { 0o1777 } else { 0o755 });
            layer.append_data(&mut header, dir, std::io::empty())?;
        }
        append(
            &mut layer,
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
            0o644,
        )?;
        append(&mut layer, "etc/group", b"root:x:0:\nnobody:x:65534:\n", 0o644)?;
        for (name, content, mode) in self.files {
            append(&mut layer, name, content.as_bytes(), *mode)?;
        }
        Ok(layer.into_inner()?)
    }
}

fn append<W: Write>(archive: &mut tar::Builder<W>, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    archive.append_data(&mut header, name, content).with_context(|| format!("add {name} to the archive"))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

pub(crate) fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Go's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
