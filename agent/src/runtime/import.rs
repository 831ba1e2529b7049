//! Import of image archives: OCI layouts and `docker save` tars, plain or gzip-compressed.
//!
//! An archive is read by position, never held in memory: a first pass lists its entries, later ones copy them. Digests
//! are checked by containerd on every write, so a damaged archive fails before an image name appears.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use containerd_client::types::Descriptor;
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Error, Result, Runtime,
    content::{JSON_BYTES_MAX, references},
    image::{IMPORTED, PINNED, digest, hex, is_index},
};
use crate::image::name::Name;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Annotations that carry the image's name in an OCI layout, best first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Indexes may point to indexes; deeper nesting than this is refused.
const INDEX_DEPTH_MAX: usize = 4;

/// One image of docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Runtime {
    /// Imports all images of an archive and unpacks those that fit this machine. Returns their names.
    pub async fn import_images(&self, file: &Path) -> Result<Vec<String>> {
        let path = file.to_owned();
        let archive = tokio::task::spawn_blocking(move || Archive::open(&path))
            .await
            .unwrap_or_else(|panic| Err(invalid("archive", panic.to_string())))?;
        // Where nothing listens, the error says on which socket.
        self.version().await?;
        let leased = self.leased("import").await?;
        let imported = leased.import_archive(&archive).await;
        leased.end_lease().await?;
        imported
    }

    async fn import_archive(&self, archive: &Archive) -> Result<Vec<String>> {
        let targets = if archive.entries.contains_key("index.json") {
            self.copy_layout(archive).await?
        } else if archive.entries.contains_key("manifest.json") {
            self.copy_saved(archive).await?
        } else {
            return Err(invalid("archive", "neither index.json (OCI) nor manifest.json (docker) in it"));
        };
        let mut names = Vec::new();
        for (name, target) in targets {
            // Pinned: no registry could bring it back after garbage collection.
            let labels = [(IMPORTED, "true"), PINNED].map(|(key, value)| (key.to_owned(), value.to_owned()));
            self.put_image(&name, target, labels.into()).await?;
            if let Some(image) = self.find_image(&name).await? {
                self.unpack_image(&image).await?;
            }
            names.push(name);
        }
        if names.is_empty() {
            return Err(invalid("archive", "no image in it has a name"));
        }
        Ok(names)
    }

    /// An OCI layout: blobs are copied as they are.
    async fn copy_layout(&self, archive: &Archive) -> Result<Vec<(String, Descriptor)>> {
        let index: ImageIndex = archive.json("index.json")?;
        let docker_names = self.docker_names(archive)?;
        let mut targets = Vec::new();
        for manifest in index.manifests() {
            let media_type = manifest.media_type().to_string();
            let digest = manifest.digest().to_string();
            self.copy_tree(archive, &media_type, &digest, INDEX_DEPTH_MAX).await?;
            let target = Descriptor {
                media_type,
                digest: digest.clone(),
                size: manifest.size() as i64,
                ..Descriptor::default()
            };
            let annotations = manifest.annotations().clone().unwrap_or_default();
            let named =
                NAME_ANNOTATIONS.iter().find_map(|key| annotations.get(*key)).filter(|name| name.contains([':', '/']));
            let names = match named {
                Some(name) => vec![name.clone()],
                None => docker_names.get(&archive.config_of(&digest)?).cloned().unwrap_or_default(),
            };
            for name in names {
                targets.push((full_name(&name)?, target.clone()));
            }
        }
        Ok(targets)
    }

    /// Newer `docker save` writes both forms; the names are then in `manifest.json`, by config.
    fn docker_names(&self, archive: &Archive) -> Result<HashMap<String, Vec<String>>> {
        if !archive.entries.contains_key("manifest.json") {
            return Ok(HashMap::new());
        }
        let saved: Vec<Saved> = archive.json("manifest.json")?;
        let digest_of =
            |path: &str| format!("sha256:{}", path.rsplit('/').next().unwrap_or_default().trim_end_matches(".json"));
        Ok(saved.into_iter().map(|image| (digest_of(&image.config), image.repo_tags.unwrap_or_default())).collect())
    }

    /// Copies an index or manifest with all below it, children first so that labels never name what is missing.
    fn copy_tree<'a>(
        &'a self,
        archive: &'a Archive,
        media_type: &'a str,
        digest: &'a str,
        depth: usize,
    ) -> futures_util::future::BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let path = blob_path(digest);
            let mut children = Vec::new();
            if is_index(media_type) {
                if depth == 0 {
                    return Err(invalid("archive", "indexes are nested too deeply"));
                }
                let index: ImageIndex = archive.json(&path)?;
                for child in index.manifests() {
                    let child_digest = child.digest().to_string();
                    // An archive for one platform may leave the others out.
                    if archive.entries.contains_key(&blob_path(&child_digest)) {
                        self.copy_tree(archive, child.media_type().as_ref(), &child_digest, depth - 1).await?;
                        children.push(child_digest);
                    }
                }
            } else {
                let manifest: ImageManifest = archive.json(&path)?;
                for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
                    let blob_digest = blob.digest().to_string();
                    self.copy_blob(archive, &blob_path(&blob_digest), &blob_digest, HashMap::new()).await?;
                    children.push(blob_digest);
                }
            }
            self.copy_blob(archive, &path, digest, references(&children)).await
        })
    }

    async fn copy_blob(
        &self,
        archive: &Archive,
        path: &str,
        digest: &str,
        labels: HashMap<String, String>,
    ) -> Result<()> {
        let entry = archive.entry(path)?;
        self.write_blob(digest, entry.size, archive.reader(path)?, labels).await
    }

    /// `docker save` without a layout: the manifest is made here from config and layers.
    async fn copy_saved(&self, archive: &Archive) -> Result<Vec<(String, Descriptor)>> {
        let saved: Vec<Saved> = archive.json("manifest.json")?;
        let mut targets = Vec::new();
        for image in saved {
            let config = archive.bytes(&image.config)?;
            serde_json::from_slice::<ImageConfiguration>(&config).map_err(|source| Error::Json {
                what: "image config",
                digest: image.config.clone(),
                source,
            })?;
            let config_digest = digest(&config);
            let mut layers = Vec::new();
            for path in &image.layers {
                let entry = archive.entry(path)?;
                let (layer_digest, gzip) = archive.digest(path)?;
                self.copy_blob(archive, path, &layer_digest, HashMap::new()).await?;
                let media_type = if gzip { format!("{OCI_LAYER}+gzip") } else { OCI_LAYER.to_owned() };
                layers.push(serde_json::json!({"mediaType": media_type, "digest": layer_digest, "size": entry.size}));
            }
            let size = config.len() as u64;
            self.write_blob(&config_digest, size, std::io::Cursor::new(config), HashMap::new()).await?;
            let manifest = serde_json::json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": size},
                "layers": layers,
            })
            .to_string()
            .into_bytes();
            let children = std::iter::once(config_digest)
                .chain(layers.iter().filter_map(|layer| layer["digest"].as_str().map(str::to_owned)))
                .collect::<Vec<_>>();
            let target = Descriptor {
                media_type: OCI_MANIFEST.to_owned(),
                digest: digest(&manifest),
                size: manifest.len() as i64,
                ..Descriptor::default()
            };
            let size = manifest.len() as u64;
            self.write_blob(&target.digest, size, std::io::Cursor::new(manifest), references(&children)).await?;
            for name in image.repo_tags.unwrap_or_default() {
                targets.push((full_name(&name)?, target.clone()));
            }
        }
        Ok(targets)
    }
}

fn full_name(name: &str) -> Result<String> {
    Name::parse(name).map(|name| name.full()).map_err(|error| invalid("archive", error.to_string()))
}

fn invalid(what: &str, problem: impl Into<String>) -> Error {
    Error::Invalid { what: what.to_owned(), problem: problem.into() }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Where an entry's bytes lie in the (decompressed) file.
#[derive(Clone, Copy)]
struct Entry {
    offset: u64,
    size: u64,
}

struct Archive {
    file: File,
    path: PathBuf,
    entries: HashMap<String, Entry>,
}

impl Archive {
    fn open(path: &Path) -> Result<Self> {
        let failed = |action| {
            let path = path.display().to_string();
            move |source| Error::Io { action, path, source }
        };
        let mut file = File::open(path).map_err(failed("open archive"))?;
        if is_gzip(&mut file).map_err(failed("read archive"))? {
            file = decompress(file).map_err(failed("decompress archive"))?;
        }
        let entries = list(&mut file).map_err(|source| match source.kind() {
            // The tar reader's own words quote what it read: lines of a text file, or bytes.
            io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                invalid("archive", "not a tar file, plain or gzip-compressed")
            }
            _ => failed("read archive")(source),
        })?;
        Ok(Self { file, path: path.to_owned(), entries })
    }

    fn entry(&self, path: &str) -> Result<Entry> {
        let missing = || invalid("archive", format!("{path} is missing"));
        self.entries.get(path.trim_start_matches("./")).copied().ok_or_else(missing)
    }

    fn reader(&self, path: &str) -> Result<Section> {
        let entry = self.entry(path)?;
        let file = self.file.try_clone().map_err(|source| self.failed(source))?;
        Ok(Section { file, offset: entry.offset, end: entry.offset + entry.size })
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Io { action: "read archive", path: self.path.display().to_string(), source }
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        if self.entry(path)?.size > JSON_BYTES_MAX as u64 {
            return Err(invalid("archive", format!("{path} is larger than {JSON_BYTES_MAX} bytes")));
        }
        let mut bytes = Vec::new();
        self.reader(path)?.read_to_end(&mut bytes).map_err(|source| self.failed(source))?;
        Ok(bytes)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        serde_json::from_slice(&self.bytes(path)?).map_err(|source| Error::Json {
            what: "archive entry",
            digest: path.to_owned(),
            source,
        })
    }

    /// Digest of an entry, and whether it is gzip-compressed.
    fn digest(&self, path: &str) -> Result<(String, bool)> {
        let mut reader = self.reader(path)?;
        let (mut hash, mut chunk, mut gzip) = (Sha256::new(), vec![0; 64 << 10], None);
        loop {
            let count = reader.read(&mut chunk).map_err(|source| self.failed(source))?;
            if count == 0 {
                return Ok((format!("sha256:{}", hex(&hash.finalize())), gzip.unwrap_or(false)));
            }
            gzip.get_or_insert(chunk[..count].starts_with(&GZIP));
            hash.update(&chunk[..count]);
        }
    }

    /// Digest of the config a manifest names; of an index, nothing.
    fn config_of(&self, manifest: &str) -> Result<String> {
        let value: serde_json::Value = self.json(&blob_path(manifest))?;
        Ok(value["config"]["digest"].as_str().unwrap_or_default().to_owned())
    }
}

const GZIP: [u8; 2] = [0x1f, 0x8b];

fn is_gzip(file: &mut File) -> std::io::Result<bool> {
    let mut magic = [0; 2];
    let count = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(count == 2 && magic == GZIP)
}

/// Into a file without a name, on disk: archives may be larger than memory.
fn decompress(file: File) -> std::io::Result<File> {
    let nameless = nix::libc::O_TMPFILE;
    let mut plain =
        File::options().read(true).write(true).custom_flags(nameless).mode(0o600).open(std::env::temp_dir())?;
    std::io::copy(&mut flate2::read::MultiGzDecoder::new(file), &mut plain)?;
    plain.seek(SeekFrom::Start(0))?;
    Ok(plain)
}

/// Positions of all files; links (older docker saves repeated layers as links) take the place of what they point to.
fn list(file: &mut File) -> std::io::Result<HashMap<String, Entry>> {
    let (mut entries, mut links) = (HashMap::new(), Vec::new());
    let mut archive = tar::Archive::new(&mut *file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = normal(&entry.path()?);
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                entries.insert(path, Entry { offset: entry.raw_file_position(), size: entry.size() });
            }
            kind @ (tar::EntryType::Symlink | tar::EntryType::Link) => {
                let Some(target) = entry.link_name()? else { continue };
                let base = if kind == tar::EntryType::Symlink { Path::new(&path).parent() } else { None };
                let target = base.map_or_else(|| target.to_path_buf(), |base| base.join(&target));
                links.push((path, normal(&target)));
            }
            _ => {}
        }
    }
    for (path, target) in links {
        if let Some(entry) = entries.get(&target).copied() {
            entries.insert(path, entry);
        }
    }
    Ok(entries)
}

/// Without `.` and with `..` taken back, never leaving the archive.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

/// A range of a file, read by position so that sections do not disturb each other.
struct Section {
    file: File,
    offset: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let want = buffer.len().min((self.end - self.offset) as usize);
        let count = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
