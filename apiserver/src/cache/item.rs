//! One version of one object as the cache holds it: its final JSON bytes, ready to be sent, and what selectors need.
//!
//! The bytes are kept as a whole watch frame, `{"type":"MODIFIED","object":{"kind":…,"apiVersion":…,"metadata":…}}`,
//! so that the frame, the object and the object without its type (as items of built-in lists are) are slices of one
//! allocation. Stored values carry no resourceVersion; it is spliced in here.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::extract::Extract;

/// How an event changes a watcher's view; the `type` of a watch frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// What precedes the object in a frame of this kind.
    pub fn frame_head(self) -> &'static [u8] {
        match self {
            Self::Added => br#"{"type":"ADDED","object":"#,
            Self::Modified => br#"{"type":"MODIFIED","object":"#,
            Self::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }
}

/// What follows the object in a frame.
pub const FRAME_TAIL: &[u8] = b"}\n";

const METADATA: &[u8] = br#","metadata":{"#;
const RESOURCE_VERSION: &[u8] = br#""resourceVersion":""#;
/// The fields of metadata that are written first, in this order (upstream's); the resourceVersion follows them.
const LEADING: [&str; 4] = ["name", "generateName", "namespace", "uid"];

#[derive(Debug, thiserror::Error)]
#[error("decode the stored object: {0}")]
pub struct Error(#[from] serde_json::Error);

pub struct Item {
    frame: Bytes,
    /// Where the object begins in the frame.
    object: u32,
    /// Where `"metadata"` begins in the frame.
    metadata: u32,
    /// Where the digits of the resourceVersion begin in the frame.
    version: u32,
    revision: u64,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[(&'static str, Box<str>)]>,
}

impl Item {
    /// From a stored value and the revision that wrote it.
    pub fn new(stored: &[u8], revision: u64, kind: EventKind, extract: Option<&Extract>) -> Result<Self, Error> {
        let canonical;
        let (stored, metadata) = match metadata_offset(stored) {
            Some(offset) => (stored, offset),
            None => {
                canonical = encode(&serde_json::from_slice(stored)?);
                let offset = metadata_offset(&canonical).expect("encode() writes the head that is looked for");
                (&canonical[..], offset)
            }
        };
        let (labels, fields) = selectable(stored, extract)?;
        let head = kind.frame_head();
        let mut frame = Vec::with_capacity(head.len() + stored.len() + 48);
        frame.extend_from_slice(head);
        let first = metadata + METADATA.len();
        let at = first + leading_bytes(&stored[first..]);
        frame.extend_from_slice(&stored[..at]);
        if at > first {
            frame.push(b',');
        }
        frame.extend_from_slice(RESOURCE_VERSION);
        let version = frame.len();
        frame.extend_from_slice(revision.to_string().as_bytes());
        frame.push(b'"');
        if at == first && stored[at] != b'}' {
            frame.push(b',');
        }
        frame.extend_from_slice(&stored[at..]);
        frame.extend_from_slice(FRAME_TAIL);
        Ok(Self {
            frame: shrunk(frame),
            object: head.len() as u32,
            metadata: (head.len() + metadata + 1) as u32,
            version: version as u32,
            revision,
            labels,
            fields,
        })
    }

    /// This object as its deletion event shows it: the last state under the revision of the deletion.
    pub fn deleted(&self, revision: u64) -> Self {
        let head = EventKind::Deleted.frame_head();
        let (object, version) = (self.object as usize, self.version as usize);
        let mut frame = Vec::with_capacity(self.frame.len() + 8);
        frame.extend_from_slice(head);
        frame.extend_from_slice(&self.frame[object..version]);
        frame.extend_from_slice(revision.to_string().as_bytes());
        frame.extend_from_slice(&self.frame[version + decimal_len(self.revision)..]);
        let moved = |offset: u32| offset - self.object + head.len() as u32;
        Self {
            frame: shrunk(frame),
            object: head.len() as u32,
            metadata: moved(self.metadata),
            version: moved(self.version),
            revision,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
        }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }
    /// The watch frame under the kind of event that made this version.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }
    /// The whole object.
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.object as usize..self.frame.len() - FRAME_TAIL.len())
    }
    /// The whole object, borrowed.
    pub fn json_slice(&self) -> &[u8] {
        &self.frame[self.object as usize..self.frame.len() - FRAME_TAIL.len()]
    }
    /// The object from `"metadata"` to its closing brace: with `{` before it, an item of a list of one kind.
    pub fn untyped(&self) -> &[u8] {
        &self.frame[self.metadata as usize..self.frame.len() - FRAME_TAIL.len()]
    }
    /// Decodes the object. Reads of JSON never need it; writes, tables and other versions do.
    pub fn value(&self) -> Value {
        serde_json::from_slice(self.json_slice()).expect("an item's bytes were decoded when it was made")
    }
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v)
    }
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(k, v)| (&**k, &**v))
    }
    /// A selectable field beyond name and namespace, as extracted for the resource.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| *k == name).map(|(_, v)| &**v)
    }
    /// Bytes held by this version.
    pub fn size(&self) -> usize {
        self.frame.len() + size_of::<Self>()
    }
}

/// An allocation of exactly the frame's size: items live long.
fn shrunk(mut frame: Vec<u8>) -> Bytes {
    frame.shrink_to_fit();
    Bytes::from(frame)
}

fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

/// Labels, and the fields for field selectors where the resource has any.
#[allow(clippy::type_complexity, reason = "used once, private, and named by the doc comment")]
fn selectable(
    stored: &[u8],
    extract: Option<&Extract>,
) -> Result<(Box<[(Box<str>, Box<str>)]>, Box<[(&'static str, Box<str>)]>), Error> {
    let head: Head = serde_json::from_slice(stored)?;
    let labels = head.metadata.labels.unwrap_or_default();
    let labels = labels.into_iter().map(|(k, v)| (k.into_owned().into(), v.into_owned().into())).collect();
    let fields = match extract {
        Some(extract) if extract.has_fields() => {
            let object: Value = serde_json::from_slice(stored)?;
            extract.fields(&object).into_iter().map(|(name, value)| (name, value.into())).collect()
        }
        _ => Box::default(),
    };
    Ok((labels, fields))
}

/// The part of an object that every selector may look at; the rest is skipped, not decoded.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: HeadMetadata<'a>,
}

#[derive(Deserialize)]
struct HeadMetadata<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// Where `,"metadata":{` begins, if the value begins as [`encode`] writes it.
fn metadata_offset(stored: &[u8]) -> Option<usize> {
    let rest = stored.strip_prefix(br#"{"kind":""#)?;
    let rest = &rest[rest.iter().position(|b| *b == b'"')?..];
    let rest = rest.strip_prefix(br#"","apiVersion":""#)?;
    let rest = &rest[rest.iter().position(|b| *b == b'"')? + 1..];
    rest.starts_with(METADATA).then_some(stored.len() - rest.len())
}

/// How many bytes at the beginning of metadata are [`LEADING`] fields with string values.
fn leading_bytes(metadata: &[u8]) -> usize {
    let mut end = 0;
    for field in LEADING {
        let rest = &metadata[end..];
        let rest = if end > 0 { rest.strip_prefix(b",").unwrap_or(b"") } else { rest };
        let value = rest.strip_prefix(b"\"").and_then(|r| r.strip_prefix(field.as_bytes()));
        let Some(value) = value.and_then(|r| r.strip_prefix(b"\":\"")) else { continue };
        let Some(length) = string_bytes(value) else { break };
        end = metadata.len() - value.len() + length + 1;
    }
    end
}

/// Length of the string whose opening quote precedes `text`; `None` when it does not end.
fn string_bytes(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| match (escaped, byte) {
        (true, _) => {
            escaped = false;
            false
        }
        (false, b'\\') => {
            escaped = true;
            false
        }
        (false, byte) => *byte == b'"',
    })
}

/// The stored form of an object: kind, apiVersion, metadata first, as upstream writes them, and no resourceVersion.
pub fn encode(object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let empty = Value::String(String::new());
    out.extend_from_slice(br#"{"kind":"#);
    write(&mut out, object.get("kind").unwrap_or(&empty));
    out.extend_from_slice(br#","apiVersion":"#);
    write(&mut out, object.get("apiVersion").unwrap_or(&empty));
    out.extend_from_slice(METADATA);
    if let Some(metadata) = object.get("metadata").and_then(Value::as_object) {
        let leading = LEADING.iter().filter_map(|field| metadata.get_key_value(*field));
        let others = metadata.iter().filter(|(key, _)| *key != "resourceVersion" && !LEADING.contains(&key.as_str()));
        write_members(&mut out, leading.chain(others));
    }
    out.push(b'}');
    let typed = ["apiVersion", "kind", "metadata"];
    for (key, value) in object.as_object().into_iter().flatten().filter(|(key, _)| !typed.contains(&key.as_str())) {
        out.push(b',');
        write_members(&mut out, std::iter::once((key, value)));
    }
    out.push(b'}');
    out
}

fn write_members<'a>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, key);
        out.push(b':');
        write(out, value);
    }
}

fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("JSON values have string keys, and a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"app": "x"}}, "spec": {"n": 1}})
    }

    #[test]
    fn slices_are_the_object_with_its_revision() {
        let item = Item::new(&encode(&pod()), 12, EventKind::Added, None).unwrap();
        let mut want = pod();
        want["metadata"]["resourceVersion"] = "12".into();
        assert_eq!(item.value(), want);
        let frame: Value = serde_json::from_slice(item.frame()).unwrap();
        assert_eq!(frame, json!({"type": "ADDED", "object": want}));
        let untyped: Value = serde_json::from_slice(&[b"{", item.untyped()].concat()).unwrap();
        assert_eq!(untyped["metadata"]["resourceVersion"], "12");
        assert!(untyped.get("kind").is_none());
        assert_eq!(item.label("app"), Some("x"));
    }

    #[test]
    fn a_deletion_shows_the_last_state_under_its_own_revision() {
        let item = Item::new(&encode(&pod()), 99, EventKind::Added, None).unwrap().deleted(100);
        let frame: Value = serde_json::from_slice(item.frame()).unwrap();
        assert_eq!(frame["type"], "DELETED");
        assert_eq!(frame["object"]["metadata"]["resourceVersion"], "100");
        assert_eq!(item.value()["spec"]["n"], 1);
        assert_eq!(item.deleted(101).value()["metadata"]["resourceVersion"], "101");
    }

    #[test]
    fn the_resource_version_follows_the_leading_fields() {
        let check = |metadata: Value, want: &str| {
            let stored = encode(&json!({"kind": "K", "apiVersion": "v1", "metadata": metadata}));
            let item = Item::new(&stored, 5, EventKind::Added, None).unwrap();
            assert_eq!(std::str::from_utf8(item.untyped()).unwrap(), format!(r#""metadata":{{{want}}}}}"#));
        };
        check(json!({}), r#""resourceVersion":"5""#);
        check(json!({"labels": {}}), r#""resourceVersion":"5","labels":{}"#);
        check(json!({"name": "a\"b"}), r#""name":"a\"b","resourceVersion":"5""#);
        check(
            json!({"annotations": {}, "uid": "u", "namespace": "n", "name": "a\\"}),
            r#""name":"a\\","namespace":"n","uid":"u","resourceVersion":"5","annotations":{}"#,
        );
    }

    #[test]
    fn foreign_encodings_and_empty_metadata_are_read() {
        let foreign = br#"{"kind":"X","metadata":{"resourceVersion":"7"},"apiVersion":"a/v1","data":{"metadata":{}}}"#;
        let item = Item::new(foreign, 3, EventKind::Modified, None).unwrap();
        let want =
            json!({"apiVersion": "a/v1", "kind": "X", "metadata": {"resourceVersion": "3"}, "data": {"metadata": {}}});
        assert_eq!(item.value(), want);
        assert!(Item::new(b"\x00", 3, EventKind::Modified, None).is_err());
    }
}
