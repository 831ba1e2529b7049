//! The body of a list: items concatenated from the cache's bytes, in blocks, without holding the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use serde_json::Value;

use crate::body::BoxError;
use crate::cache::Item;

/// Bytes per block handed to the connection.
const BLOCK_BYTES: usize = 64 * 1024;

/// What precedes the items: kind, version and list metadata.
pub struct ListHead {
    pub kind: String,
    pub api_version: String,
    pub resource_version: u64,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

impl ListHead {
    /// `metadata` as a value.
    pub fn metadata(&self) -> Value {
        let mut metadata = serde_json::Map::new();
        metadata.insert("resourceVersion".to_owned(), self.resource_version.to_string().into());
        if !self.continue_token.is_empty() {
            metadata.insert("continue".to_owned(), self.continue_token.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
        Value::Object(metadata)
    }

    fn bytes(&self) -> Bytes {
        format!(
            r#"{{"kind":{},"apiVersion":{},"metadata":{},"items":["#,
            Value::from(self.kind.as_str()),
            Value::from(self.api_version.as_str()),
            self.metadata()
        )
        .into()
    }
}

/// How items are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ItemSource {
    /// Items of built-in lists carry no apiVersion and kind.
    Untyped,
    /// Items of custom resource lists do.
    Typed,
}

impl ItemSource {
    fn size(self, item: &Item) -> usize {
        match self {
            Self::Untyped => item.untyped().len() + 1,
            Self::Typed => item.json_slice().len(),
        }
    }

    fn write(self, item: &Item, out: &mut BytesMut) {
        match self {
            Self::Untyped => {
                out.extend_from_slice(b"{");
                out.extend_from_slice(item.untyped());
            }
            Self::Typed => out.extend_from_slice(item.json_slice()),
        }
    }
}

const TAIL: &[u8] = b"]}\n";

/// A list as an HTTP body of known length.
pub struct ListBody {
    head: Option<Bytes>,
    items: std::vec::IntoIter<Arc<Item>>,
    source: ItemSource,
    first: bool,
    left: u64,
}

impl ListBody {
    pub fn new(head: &ListHead, items: Vec<Arc<Item>>, source: ItemSource) -> Self {
        let head = head.bytes();
        let commas = items.len().saturating_sub(1);
        let bytes: usize = items.iter().map(|item| source.size(item)).sum();
        let left = (head.len() + bytes + commas + TAIL.len()) as u64;
        Self { head: Some(head), items: items.into_iter(), source, first: true, left }
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut block = BytesMut::with_capacity(BLOCK_BYTES.min(self.left as usize));
        if let Some(head) = self.head.take() {
            block.extend_from_slice(&head);
        }
        while block.len() < BLOCK_BYTES {
            let Some(item) = self.items.next() else {
                block.extend_from_slice(TAIL);
                break;
            };
            if !std::mem::take(&mut self.first) {
                block.extend_from_slice(b",");
            }
            self.source.write(&item, &mut block);
        }
        self.left = self.left.saturating_sub(block.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(block.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
