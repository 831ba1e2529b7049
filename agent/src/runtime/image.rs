//! Images on the node: found by name or id, resolved to the manifest of this machine's platform.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use containerd_client::{
    services::v1::{
        CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as Record, ListImagesRequest,
        UpdateImageRequest, images_client::ImagesClient,
    },
    types::Descriptor,
};
use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};
use sha2::{Digest, Sha256};

use super::{Error, Result, Runtime, answered, gone_is_fine};
use crate::image::{
    access::{self, Access},
    name::{Name, is_image_id},
    platform,
};

/// Set on image records that came from an archive: no registry ever gave their digest.
pub const IMPORTED: &str = "keelson.io/imported";
/// Keeps an image from garbage collection; containerd's own label for it.
pub const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// Resolved images by the digest they start from. Contents never change, so entries never expire; the number of
/// images on a node bounds it, as those that are removed are forgotten.
pub(super) type Memory = Mutex<HashMap<String, Arc<Resolved>>>;

/// What follows from a target digest alone.
pub struct Resolved {
    /// The image's id: digest of its config.
    pub id: String,
    pub layers: Vec<Descriptor>,
    pub diff_ids: Vec<String>,
    /// Name of the snapshot that holds all layers.
    pub chain_id: String,
    pub config: ImageConfiguration,
    pub size: u64,
}

#[derive(Clone)]
pub struct Image {
    /// Key in the image store.
    pub name: String,
    /// What `imageID` of a container status shows.
    pub image_id: String,
    pub target: String,
    pub resolved: Arc<Resolved>,
    /// Which pods may use it without asking its registry.
    pub access: Access,
}

/// An image record as lists show it.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub name: String,
    /// The image's id: digest of its config.
    pub id: String,
    pub target: String,
    pub size: i64,
    pub pinned: bool,
}

impl Runtime {
    fn images(&self) -> ImagesClient<tonic::transport::Channel> {
        ImagesClient::new(self.channel())
    }

    /// The image a container's `image` field names, if it is on the node with all that describes it.
    pub async fn find_image(&self, reference: &str) -> Result<Option<Image>> {
        if is_image_id(reference) {
            return self.find_image_by_id(reference).await;
        }
        let name = Name::parse(reference).map_err(|error| Error::Invalid {
            what: format!("Failed to apply default image tag {reference:?}"),
            problem: error.to_string(),
        })?;
        let Some(record) = self.image_record(&name.full()).await? else { return Ok(None) };
        match self.resolve(record).await {
            // A pull brings back what is missing.
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    async fn image_record(&self, full: &str) -> Result<Option<Record>> {
        let request = GetImageRequest { name: full.to_owned() };
        match answered(self.images().get(self.request(request)).await, "get image", full) {
            Ok(found) => Ok(found.image),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn find_image_by_id(&self, id: &str) -> Result<Option<Image>> {
        for record in self.image_records().await? {
            match self.resolve(record).await {
                Ok(image) if image.resolved.id == id => return Ok(Some(image)),
                // An image of another platform, or one whose content is gone, is not the one we look for.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }

    async fn image_records(&self) -> Result<Vec<Record>> {
        let result = self.images().list(self.request(ListImagesRequest::default())).await;
        Ok(answered(result, "list images", self.namespace())?.images)
    }

    pub async fn list_images(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for record in self.image_records().await? {
            let name = record.name.clone();
            let pinned = record.labels.get(PINNED.0).is_some_and(|value| value == PINNED.1);
            match self.resolve(record).await {
                Ok(image) => listed.push(Listed {
                    name,
                    id: image.resolved.id.clone(),
                    target: image.target,
                    size: image.resolved.size as i64,
                    pinned,
                }),
                Err(error) => tracing::debug!(name, %error, "image left out of the node's list"),
            }
        }
        Ok(listed)
    }

    /// Creates the record or points an existing one to the new target.
    pub(super) async fn put_image(
        &self,
        name: &str,
        target: Descriptor,
        labels: HashMap<String, String>,
    ) -> Result<()> {
        let image = Record { name: name.to_owned(), labels, target: Some(target), ..Record::default() };
        let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
        match answered(self.images().create(self.request(create)).await, "create image", name) {
            Err(error) if error.is_already_exists() => {}
            other => return other.map(drop),
        }
        let update = UpdateImageRequest { image: Some(image), update_mask: None, source_date_epoch: None };
        answered(self.images().update(self.request(update)).await, "update image", name).map(drop)
    }

    /// Names a pulled image. The name of its digest outlives the tag, which may move on to another image. An image of
    /// the same content that was here already keeps what it was: imported, or open to more pods.
    pub async fn put_pulled(&self, name: &Name, target: Descriptor, access: &Access) -> Result<()> {
        for full in [name.at(&target.digest), name.full()] {
            let before = self.image_record(&full).await?;
            let same = before.filter(|before| before.target.as_ref().is_some_and(|old| old.digest == target.digest));
            let (access, was) = match same {
                Some(record) => {
                    let known = Access::of(record.labels.get(access::LABEL).map(String::as_str));
                    (known.clone().joined(access.clone()), Some(known))
                }
                None => (access.clone(), None),
            };
            if was.as_ref() == Some(&access) {
                continue;
            }
            let labels = access.label().map(|label| (access::LABEL.to_owned(), label));
            self.put_image(&full, target.clone(), labels.into_iter().collect()).await?;
        }
        Ok(())
    }

    /// Removes one name. With the last one of an image containerd collects its content, before this returns if `wait`.
    pub async fn delete_image(&self, name: &str, wait: bool) -> Result<()> {
        let request = DeleteImageRequest { name: name.to_owned(), sync: wait, ..DeleteImageRequest::default() };
        gone_is_fine(answered(self.images().delete(self.stream_request(request)).await, "delete image", name))
    }

    /// Nothing is remembered of an image that is gone.
    pub fn forget_image(&self, target: &str) {
        self.inner.images.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    async fn resolve(&self, record: Record) -> Result<Image> {
        let target = record.target.unwrap_or_default();
        let known = self.inner.images.lock().unwrap_or_else(PoisonError::into_inner).get(&target.digest).cloned();
        let resolved = match known {
            Some(resolved) => resolved,
            None => {
                let resolved = Arc::new(self.resolve_target(&target).await?);
                let mut images = self.inner.images.lock().unwrap_or_else(PoisonError::into_inner);
                images.insert(target.digest.clone(), resolved.clone());
                resolved
            }
        };
        let image_id = match Name::parse(&record.name) {
            Ok(name) if !record.labels.contains_key(IMPORTED) => format!("{}@{}", name.repository, target.digest),
            _ => resolved.id.clone(),
        };
        let access = Access::of(record.labels.get(access::LABEL).map(String::as_str));
        Ok(Image { name: record.name, image_id, target: target.digest, resolved, access })
    }

    pub async fn resolve_target(&self, target: &Descriptor) -> Result<Resolved> {
        let manifest_digest = if is_index(&target.media_type) {
            let index: ImageIndex = self.read_json("image index", &target.digest).await?;
            let chosen = platform::choose(&index, platform::architecture()).ok_or_else(|| Error::Invalid {
                what: format!("image index {}", target.digest),
                problem: format!("no match for platform in manifest: linux/{}", platform::architecture()),
            })?;
            chosen.digest().to_string()
        } else {
            target.digest.clone()
        };
        let manifest: ImageManifest = self.read_json("image manifest", &manifest_digest).await?;
        let config_digest = manifest.config().digest().to_string();
        let config: ImageConfiguration = self.read_json("image config", &config_digest).await?;
        let layers = manifest
            .layers()
            .iter()
            .map(|layer| Descriptor {
                media_type: layer.media_type().to_string(),
                digest: layer.digest().to_string(),
                size: layer.size() as i64,
                ..Descriptor::default()
            })
            .collect::<Vec<_>>();
        let diff_ids = config.rootfs().diff_ids().clone();
        if diff_ids.len() != layers.len() || layers.is_empty() {
            return Err(Error::Invalid {
                what: format!("image {config_digest}"),
                problem: format!("{} layers but {} diff ids", layers.len(), diff_ids.len()),
            });
        }
        let size = layers.iter().map(|layer| layer.size as u64).sum::<u64>() + manifest.config().size();
        let chain_id = chain_ids(&diff_ids).pop().unwrap_or_default();
        Ok(Resolved { id: config_digest, layers, diff_ids, chain_id, config, size })
    }
}

pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

/// Names of the snapshots under an image: each is the digest of the one below and the layer's diff id.
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => digest(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::{chain_ids, digest};

    #[test]
    fn a_chain_id_digests_the_chain_below_and_the_layer() {
        let (a, b) = (digest(b"a"), digest(b"b"));
        assert_eq!(chain_ids(&[a.clone(), b.clone()]), [a.clone(), digest(format!("{a} {b}").as_bytes())]);
    }
}
