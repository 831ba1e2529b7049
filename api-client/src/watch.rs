//! One watch response as a sequence of events: newline-separated frames, decoded straight into the type.

use std::marker::PhantomData;

use ::api::status::Status;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::decode_status;
use crate::decode::decode;
use crate::transport::Body;
use crate::{Error, Object, Revision};

/// Largest single frame; an object may have 1.5 MiB in the store, more with its previous fields. Beyond it the watch
/// fails and is resumed.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Marks the bookmark that ends the initial events (`metav1.InitialEventsAnnotationKey`).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Clone, Debug, PartialEq)]
pub enum Event<T> {
    Added(T),
    Modified(T),
    /// The object's last state.
    Deleted(T),
    Bookmark {
        revision: Revision,
        initial_events_end: bool,
    },
    /// The server ends the watch with this failure (410: list again).
    Error(Status),
}

/// The events of one watch request.
pub struct Events<T> {
    body: Body,
    buffer: BytesMut,
    /// `buffer[..scanned]` holds no newline.
    scanned: usize,
    attempted: String,
    of: PhantomData<fn() -> T>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct BookmarkObject {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl<T: Object> Events<T> {
    pub(crate) fn new(body: Body, attempted: String) -> Self {
        Self { body, buffer: BytesMut::new(), scanned: 0, attempted, of: PhantomData }
    }

    /// The next event; `None` when the server ended the watch in good order. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Event<T>, Error>> {
        loop {
            if let Some(event) = self.buffered() {
                return Some(event);
            }
            if self.buffer.len() > FRAME_BYTES_MAX {
                return Some(Err(Error::Limit { attempted: self.attempted.clone(), limit: "FRAME_BYTES_MAX" }));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Err(source) => {
                    return Some(Err(Error::Transport { attempted: self.attempted.clone(), source }));
                }
            }
        }
    }

    /// An event that already arrived, without waiting.
    pub fn buffered(&mut self) -> Option<Result<Event<T>, Error>> {
        loop {
            let newline = match self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
                Some(offset) => self.scanned + offset,
                None => {
                    self.scanned = self.buffer.len();
                    return None;
                }
            };
            let line = self.buffer.split_to(newline).freeze();
            self.buffer.advance(1);
            self.scanned = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(self.decode(&line));
            }
        }
    }

    fn decode(&self, line: &Bytes) -> Result<Event<T>, Error> {
        decode_frame(line, &self.attempted)
            .map_err(|source| Error::Decode { attempted: self.attempted.clone(), source })
    }
}

fn decode_frame<T: Object>(line: &[u8], attempted: &str) -> Result<Event<T>, serde_json::Error> {
    let frame: Frame<'_> = serde_json::from_slice(line)?;
    let raw = frame.object.get();
    let object = raw.as_bytes();
    Ok(match frame.kind {
        "ADDED" => Event::Added(decode(object)?),
        "MODIFIED" => Event::Modified(decode(object)?),
        "DELETED" => Event::Deleted(decode(object)?),
        "BOOKMARK" => {
            let bookmark: BookmarkObject = serde_json::from_str(raw)?;
            Event::Bookmark {
                revision: Revision::parse(&bookmark.metadata.resource_version),
                initial_events_end: bookmark.metadata.annotations.get(INITIAL_EVENTS_END).is_some_and(|v| v == "true"),
            }
        }
        _ => Event::Error(decode_status(500, object, attempted)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PartialObject;
    use http_body_util::StreamBody;
    use hyper::body::Frame as BodyFrame;

    fn events(chunks: &[&'static str]) -> Events<PartialObject> {
        let frames: Vec<_> = chunks.iter().map(|c| Ok(BodyFrame::data(Bytes::from_static(c.as_bytes())))).collect();
        Events::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))), "GET /x".into())
    }

    #[tokio::test]
    async fn frames_split_anywhere_decode_once() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"}}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}"#,
            "\n",
        );
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            let mut events = events(&[a, b]);
            let first = events.next().await.expect("first").expect("decodes");
            assert!(matches!(&first, Event::Added(o) if o.metadata.name == "a"));
            let second = events.next().await.expect("second").expect("decodes");
            assert_eq!(second, Event::Bookmark { revision: Revision(9), initial_events_end: true });
            let third = events.next().await.expect("third").expect("decodes");
            assert!(matches!(third, Event::Error(s) if s.code == 410));
            assert!(events.next().await.is_none());
        }
    }
}
