//! Layers unpacked into snapshots, one on top of the other, each checked against what the image's config says is in it.

use std::collections::HashMap;

use containerd_client::services::v1::{ApplyRequest, diff_client::DiffClient};

use super::{
    Error, Result, Runtime, answered,
    image::{Image, Resolved, chain_ids},
};

impl Runtime {
    /// Makes sure the image's layers exist as snapshots. Cheap when they do.
    pub async fn unpack_image(&self, image: &Image) -> Result<()> {
        let resolved = &image.resolved;
        if self.snapshot_exists(&resolved.chain_id).await? {
            return Ok(());
        }
        let leased = self.leased("unpack").await?;
        let unpacked = leased.unpack_layers(resolved, |_| std::future::ready(Ok::<(), Error>(()))).await;
        leased.end_lease().await?;
        unpacked
    }

    /// Unpacks each layer as soon as `arrived` says that its blob is there. The caller holds the lease.
    pub async fn unpack_layers<F, E>(
        &self,
        resolved: &Resolved,
        mut arrived: impl FnMut(usize) -> F,
    ) -> std::result::Result<(), E>
    where
        F: Future<Output = std::result::Result<(), E>>,
        E: From<Error>,
    {
        let chain = chain_ids(&resolved.diff_ids);
        // Snapshots of layers that another image brought are taken as they are, from the top down.
        let mut done = 0;
        for (index, chain_id) in chain.iter().enumerate().rev() {
            if self.snapshot_exists(chain_id).await? {
                done = index + 1;
                break;
            }
        }
        for (index, chain_id) in chain.iter().enumerate().skip(done) {
            arrived(index).await?;
            let parent = index.checked_sub(1).map_or("", |below| chain[below].as_str());
            self.unpack_layer(resolved, index, parent, chain_id).await?;
        }
        // The config keeps the snapshots: garbage collection follows image -> manifest -> config -> top snapshot.
        let reference = format!("containerd.io/gc.ref.snapshot.{}", self.snapshotter());
        let top = HashMap::from([(reference, resolved.chain_id.clone())]);
        Ok(self.label_blob(&resolved.id, top).await?)
    }

    async fn unpack_layer(&self, resolved: &Resolved, index: usize, parent: &str, chain_id: &str) -> Result<()> {
        let (layer, diff_id) = (&resolved.layers[index], &resolved.diff_ids[index]);
        let key = format!("extract-{} {chain_id}", uuid::Uuid::new_v4());
        let mounts = self.prepare_layer(&key, parent).await?;
        let request = ApplyRequest { diff: Some(layer.clone()), mounts, ..ApplyRequest::default() };
        // No deadline: a layer may have gigabytes. A containerd that is gone ends the call.
        let applied = DiffClient::new(self.channel()).apply(self.stream_request(request)).await;
        let applied = answered(applied, "unpack layer", &layer.digest).and_then(|answer| {
            let found = answer.applied.unwrap_or_default().digest;
            (found == *diff_id).then_some(()).ok_or_else(|| Error::Invalid {
                what: format!("layer {}", layer.digest),
                problem: format!("wrong diff id {found}, the image's config says {diff_id}"),
            })
        });
        if let Err(error) = applied {
            self.remove_snapshot(&key).await?;
            return Err(error);
        }
        self.commit_snapshot(&key, chain_id).await
    }
}
