//! Blobs in containerd's content store: read small ones whole, write any by stream.

use std::{collections::HashMap, io::Read};

use bytes::Bytes;
use containerd_client::services::v1::{
    Info, InfoRequest, ReadContentRequest, UpdateRequest, WriteAction, WriteContentRequest,
    content_client::ContentClient,
};
use prost_types::FieldMask;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{Error, Result, Runtime, answered};

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
        let reference = format!("import-{digest}");
        let (messages, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let head = WriteContentRequest {
            action: WriteAction::Write as i32,
            r#ref: reference.clone(),
            total: size as i64,
            expected: digest.to_owned(),
            ..WriteContentRequest::default()
        };
        let tail = WriteContentRequest { action: WriteAction::Commit as i32, labels, ..head.clone() };
        let reading = tokio::task::spawn_blocking(move || send_chunks(source, size, head, tail, &messages));

        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let message = receiver.recv().await?;
            Some((message, receiver))
        });
        let result = self.content().write(self.stream_request(stream)).await;
        let written = async {
            let mut answers = answered(result, "write blob", digest)?;
            while answered(answers.message().await.map(tonic::Response::new), "write blob", digest)?.is_some() {}
            Ok(())
        }
        .await;
        let read = reading.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        match written {
            Err(error) if Error::is_already_exists(&error) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => read.map_err(|source| Error::Io { action: "read contents of", path: digest.to_owned(), source }),
        }
    }
}

/// Runs on a blocking thread. A receiver that is gone means containerd refused; its answer says why.
fn send_chunks(
    mut source: impl Read,
    size: u64,
    head: WriteContentRequest,
    tail: WriteContentRequest,
    messages: &mpsc::Sender<WriteContentRequest>,
) -> std::io::Result<()> {
    let mut offset = 0;
    while offset < size {
        let mut chunk = vec![0; CHUNK_BYTES.min((size - offset) as usize)];
        source.read_exact(&mut chunk)?;
        let message = WriteContentRequest { offset: offset as i64, data: Bytes::from(chunk).into(), ..head.clone() };
        offset = (message.offset as u64) + message.data.len() as u64;
        if messages.blocking_send(message).is_err() {
            return Ok(());
        }
    }
    let _refused = messages.blocking_send(WriteContentRequest { offset: size as i64, ..tail });
    Ok(())
}
