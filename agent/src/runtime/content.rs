//! Blobs in containerd's content store: read small ones whole, write any by stream.

use std::{collections::HashMap, io::Read};

use bytes::Bytes;
use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, ReadContentRequest, StatusRequest, UpdateRequest, WriteAction,
    WriteContentRequest, content_client::ContentClient,
};
use prost_types::FieldMask;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Error, Result, Runtime, answered, gone_is_fine};

/// Manifests, indexes and configs larger than this are refused; registries refuse them at 4 MiB.
pub const JSON_BYTES_MAX: usize = 4 << 20;
/// One message of a content write. gRPC refuses messages above 16 MiB.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of containerd while writing.
const CHUNKS_AHEAD: usize = 2;

impl Runtime {
    fn content(&self) -> ContentClient<tonic::transport::Channel> {
        ContentClient::new(self.channel()).max_decoding_message_size(16 << 20)
    }

    pub async fn read_blob(&self, digest: &str) -> Result<Vec<u8>> {
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let mut stream = answered(self.content().read(self.request(request)).await, "read blob", digest)?;
        let mut blob = Vec::new();
        while let Some(part) = answered(stream.message().await.map(tonic::Response::new), "read blob", digest)? {
            if blob.len() + part.data.len() > JSON_BYTES_MAX {
                return Err(Error::Invalid {
                    what: format!("blob {digest}"),
                    problem: format!("larger than {JSON_BYTES_MAX} bytes"),
                });
            }
            blob.extend_from_slice(&part.data);
        }
        Ok(blob)
    }

    pub(super) async fn read_json<T: DeserializeOwned>(&self, what: &'static str, digest: &str) -> Result<T> {
        let blob = self.read_blob(digest).await?;
        serde_json::from_slice(&blob).map_err(|source| Error::Json { what, digest: digest.to_owned(), source })
    }

    pub async fn blob_exists(&self, digest: &str) -> Result<bool> {
        let request = InfoRequest { digest: digest.to_owned() };
        match answered(self.content().info(self.request(request)).await, "look up blob", digest) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds labels to a blob; the ones that start with `containerd.io/gc.ref.` keep what they name from collection.
    pub async fn label_blob(&self, digest: &str, labels: HashMap<String, String>) -> Result<()> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let request = UpdateRequest {
            info: Some(Info { digest: digest.to_owned(), labels, ..Info::default() }),
            update_mask: Some(FieldMask { paths }),
        };
        answered(self.content().update(self.request(request)).await, "label blob", digest)?;
        Ok(())
    }

    /// Writes `size` bytes from `source` under the digest they must have. Success when the blob is there already.
    pub async fn write_blob(
        &self,
        digest: &str,
        size: u64,
        source: impl Read + Send + 'static,
        labels: HashMap<String, String>,
    ) -> Result<()> {
        if self.blob_exists(digest).await? {
            return if labels.is_empty() { Ok(()) } else { self.label_blob(digest, labels).await };
        }
        let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let reading = tokio::task::spawn_blocking(move || send_chunks(source, size, &chunks));
        let reference = format!("import-{digest}");
        let ingest = Ingest { reference, digest: digest.to_owned(), size, offset: 0, labels };
        let written = self.ingest(ingest, receiver).await;
        let read = reading.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        written?;
        read.map_err(|source| Error::Io { action: "read contents of", path: digest.to_owned(), source })
    }

    /// How much of a blob was written under a reference by a writer that did not come to its end.
    pub async fn ingested(&self, reference: &str) -> Result<u64> {
        let request = StatusRequest { r#ref: reference.to_owned() };
        match answered(self.content().status(self.request(request)).await, "look up ingest", reference) {
            Ok(answer) => Ok(answer.status.map_or(0, |status| status.offset as u64)),
            Err(error) if error.is_not_found() => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Forgets what was written under a reference.
    pub async fn abort_ingest(&self, reference: &str) -> Result<()> {
        let request = AbortRequest { r#ref: reference.to_owned() };
        gone_is_fine(answered(self.content().abort(self.request(request)).await, "abort ingest", reference).map(drop))
    }

    /// Writes chunks as they come. With the last byte the blob is committed, and containerd checks size and digest; when
    /// the chunks end early, what came stays under the reference. Success when the blob is there already.
    pub async fn ingest(&self, ingest: Ingest, chunks: mpsc::Receiver<Bytes>) -> Result<()> {
        let digest = ingest.digest.clone();
        let messages = Messages { next: ingest.offset, ingest, chunks, done: false };
        let stream = futures_util::stream::unfold(messages, |mut messages| async move {
            let message = messages.next().await?;
            Some((message, messages))
        });
        let result = self.content().write(self.stream_request(stream)).await;
        let written = async {
            let mut answers = answered(result, "write blob", &digest)?;
            while answered(answers.message().await.map(tonic::Response::new), "write blob", &digest)?.is_some() {}
            Ok(())
        }
        .await;
        match written {
            Err(error) if Error::is_already_exists(&error) => Ok(()),
            other => other,
        }
    }
}

/// Labels that keep what a manifest or index names from garbage collection.
pub fn references(digests: &[String]) -> HashMap<String, String> {
    let label = |(index, digest): (usize, &String)| (format!("containerd.io/gc.ref.content.{index}"), digest.clone());
    digests.iter().enumerate().map(label).collect()
}

/// A blob being written.
pub struct Ingest {
    /// What the unfinished blob is found by.
    pub reference: String,
    pub digest: String,
    pub size: u64,
    /// Where the first chunk belongs: what `ingested` says, or 0 to begin anew.
    pub offset: u64,
    /// Of the blob.
    pub labels: HashMap<String, String>,
}

/// The messages of one write: chunks at their places, then the commit.
struct Messages {
    ingest: Ingest,
    chunks: mpsc::Receiver<Bytes>,
    next: u64,
    done: bool,
}

impl Messages {
    async fn next(&mut self) -> Option<WriteContentRequest> {
        if self.done {
            return None;
        }
        let ingest = &self.ingest;
        let message = WriteContentRequest {
            action: WriteAction::Write as i32,
            r#ref: ingest.reference.clone(),
            total: ingest.size as i64,
            expected: ingest.digest.clone(),
            offset: self.next as i64,
            ..WriteContentRequest::default()
        };
        if let Some(data) = self.chunks.recv().await {
            self.next += data.len() as u64;
            return Some(WriteContentRequest { data: data.into(), ..message });
        }
        self.done = true;
        let labels = ingest.labels.clone();
        (self.next == ingest.size).then(|| WriteContentRequest {
            action: WriteAction::Commit as i32,
            labels,
            ..message
        })
    }
}

/// Runs on a blocking thread. A receiver that is gone means containerd refused; its answer says why.
fn send_chunks(mut source: impl Read, size: u64, chunks: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut left = size;
    while left > 0 {
        let mut chunk = vec![0; CHUNK_BYTES.min(left as usize)];
        source.read_exact(&mut chunk)?;
        left -= chunk.len() as u64;
        if chunks.blocking_send(Bytes::from(chunk)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
