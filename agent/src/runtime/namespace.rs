//! The containerd namespace as a whole: what is in it, and emptying it for good.

use containerd_client::services::v1::{
    DeleteContentRequest, DeleteImageRequest, DeleteNamespaceRequest, DeleteRequest, ListContentRequest,
    ListImagesRequest, ListNamespacesRequest, ListRequest,
    content_client::ContentClient,
    images_client::ImagesClient,
    leases_client::LeasesClient,
    namespaces_client::NamespacesClient,
    snapshots::{ListSnapshotsRequest, snapshots_client::SnapshotsClient},
};

use super::{Result, Runtime, answered, gone_is_fine};

/// Rounds of removing snapshots, each of which frees the parents of those removed; no image has more layers.
const LAYERS_MAX: usize = 128;

/// How much a namespace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub exists: bool,
    pub containers: usize,
    pub images: usize,
    pub snapshots: usize,
    pub blobs: usize,
}

impl Runtime {
    pub async fn contents(&self) -> Result<Contents> {
        if !self.namespace_exists().await? {
            return Ok(Contents::default());
        }
        Ok(Contents {
            exists: true,
            containers: self.list_containers(&[]).await?.len(),
            images: self.image_names().await?.len(),
            snapshots: self.snapshot_keys().await?.len(),
            blobs: self.blob_digests().await?.len(),
        })
    }

    async fn namespace_exists(&self) -> Result<bool> {
        let request = self.request(ListNamespacesRequest { filter: String::new() });
        let result = NamespacesClient::new(self.channel()).list(request).await;
        let listed = answered(result, "list namespaces of", self.address())?.namespaces;
        Ok(listed.iter().any(|namespace| namespace.name == self.namespace()))
    }

    /// Removes images, leases, snapshots and blobs, and the namespace itself. Containers must be gone; with one left,
    /// containerd refuses the last step.
    pub async fn remove_namespace(&self) -> Result<()> {
        if !self.namespace_exists().await? {
            return Ok(());
        }
        for name in self.image_names().await? {
            let request = DeleteImageRequest { name: name.clone(), ..DeleteImageRequest::default() };
            let result = ImagesClient::new(self.channel()).delete(self.request(request)).await;
            gone_is_fine(answered(result, "delete image", &name))?;
        }
        for id in self.lease_ids().await? {
            let request = self.request(DeleteRequest { id: id.clone(), sync: false });
            let result = LeasesClient::new(self.channel()).delete(request).await;
            gone_is_fine(answered(result, "delete lease", &id))?;
        }
        // A snapshot with children is refused; its turn comes when they are gone.
        for _ in 0..LAYERS_MAX {
            let keys = self.snapshot_keys().await?;
            let Some(last) = keys.last() else { break };
            let mut removed = 0;
            for key in &keys {
                removed += usize::from(self.remove_snapshot(key).await.is_ok());
            }
            if removed == 0 {
                // Say why.
                self.remove_snapshot(last).await?;
            }
        }
        for digest in self.blob_digests().await? {
            let request = self.request(DeleteContentRequest { digest: digest.clone() });
            let result = ContentClient::new(self.channel()).delete(request).await;
            gone_is_fine(answered(result, "delete blob", &digest))?;
        }
        let request = DeleteNamespaceRequest { name: self.namespace().to_owned() };
        let result = NamespacesClient::new(self.channel()).delete(self.request(request)).await;
        gone_is_fine(answered(result, "delete namespace", self.namespace()).map(drop))
    }

    async fn image_names(&self) -> Result<Vec<String>> {
        let result = ImagesClient::new(self.channel()).list(self.request(ListImagesRequest::default())).await;
        let images = answered(result, "list images", self.namespace())?.images;
        Ok(images.into_iter().map(|image| image.name).collect())
    }

    async fn lease_ids(&self) -> Result<Vec<String>> {
        let result = LeasesClient::new(self.channel()).list(self.request(ListRequest { filters: Vec::new() })).await;
        Ok(answered(result, "list leases", self.namespace())?.leases.into_iter().map(|lease| lease.id).collect())
    }

    async fn snapshot_keys(&self) -> Result<Vec<String>> {
        let request = ListSnapshotsRequest { snapshotter: self.snapshotter().to_owned(), filters: Vec::new() };
        let result = SnapshotsClient::new(self.channel()).list(self.request(request)).await;
        let mut stream = answered(result, "list snapshots", self.namespace())?;
        let mut keys = Vec::new();
        while let Some(part) = answered(stream.message().await.map(tonic::Response::new), "list snapshots", "")? {
            keys.extend(part.info.into_iter().map(|snapshot| snapshot.name));
        }
        Ok(keys)
    }

    async fn blob_digests(&self) -> Result<Vec<String>> {
        let request = self.request(ListContentRequest { filters: Vec::new() });
        let mut stream = answered(ContentClient::new(self.channel()).list(request).await, "list blobs", "")?;
        let mut digests = Vec::new();
        while let Some(part) = answered(stream.message().await.map(tonic::Response::new), "list blobs", "")? {
            digests.extend(part.info.into_iter().map(|blob| blob.digest));
        }
        Ok(digests)
    }
}
