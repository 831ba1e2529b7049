//! Events as one watcher sees them: selected, in its form and version.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use api::catalogue::Resource;
use api::status::Status;

use crate::cache::Item;
use crate::cache::item::{EventKind, FRAME_TAIL};
use crate::cache::ring::Event;
use crate::convert;
use crate::encode::{Form, Forms, json_bytes};
use crate::verbs::{Selection, Target};

pub struct Encoder {
    selection: Selection,
    resource: Arc<Resource>,
    storage: Arc<Resource>,
    form: Form,
    /// See [`convert::read`].
    rewrites: bool,
    /// Cached frames are sent as they are.
    plain: bool,
    namespace: String,
    /// No table was sent yet.
    first: bool,
}

impl Encoder {
    pub fn new(target: &Target, selection: Selection) -> Result<Self, Status> {
        let identity = Forms::new(&target.resource, &target.form)?.is_identity();
        Ok(Self {
            selection,
            resource: Arc::clone(&target.resource),
            storage: Arc::clone(&target.storage),
            form: target.form.clone(),
            plain: identity && target.is_plain(),
            rewrites: target.facts.as_ref().is_some_and(|facts| facts.rewrites),
            namespace: target.namespace().to_owned(),
            first: true,
        })
    }

    fn selects(&self, key: &str, item: &Item) -> bool {
        let lies_in = self.namespace.is_empty() || key.split_once('/').is_some_and(|(n, _)| n == self.namespace);
        lies_in && self.selection.matches(&self.resource, key, item)
    }

    /// The frame for an event, if this watcher gets one: an object that enters or leaves the selection is added or
    /// deleted, whatever happened to it.
    pub fn event(&mut self, event: &Event) -> Option<Bytes> {
        let before = event.previous.as_ref().filter(|item| self.selects(&event.key, item));
        let after = event.kind != EventKind::Deleted && self.selects(&event.key, &event.item);
        match (before, after) {
            (None, false) => None,
            (None, true) => Some(self.frame(EventKind::Added, &event.item, event.kind)),
            (Some(_), true) => Some(self.frame(EventKind::Modified, &event.item, event.kind)),
            (Some(_), false) if event.kind == EventKind::Deleted => {
                Some(self.frame(EventKind::Deleted, &event.item, event.kind))
            }
            // Left the selection: shown as it last was in it.
            (Some(last), false) => {
                let gone = last.deleted(event.revision());
                Some(self.frame(EventKind::Deleted, &gone, EventKind::Deleted))
            }
        }
    }

    /// An object of the present state.
    pub fn initial(&mut self, item: &Item, out: &mut Vec<u8>) {
        if self.plain {
            out.extend_from_slice(EventKind::Added.frame_head());
            out.extend_from_slice(item.json_slice());
            out.extend_from_slice(FRAME_TAIL);
        } else {
            out.extend_from_slice(&self.frame(EventKind::Added, item, EventKind::Modified));
        }
    }

    /// `native` is the kind under which the item's own frame is cached.
    fn frame(&mut self, kind: EventKind, item: &Item, native: EventKind) -> Bytes {
        if self.plain && kind == native {
            return item.frame().clone();
        }
        if self.plain {
            return [kind.frame_head(), item.json_slice(), FRAME_TAIL].concat().into();
        }
        let object = convert::read(&self.resource, &self.storage, self.rewrites, item.value());
        self.written(kind.name(), &object)
    }

    fn written(&mut self, kind: &str, object: &Value) -> Bytes {
        let forms = Forms::new(&self.resource, &self.form);
        let converted = forms.ok().and_then(|forms| forms.of_event(object, self.first));
        self.first = false;
        json_bytes(&json!({"type": kind, "object": converted.as_ref().unwrap_or(object)}), false).into()
    }

    /// A bookmark: everything up to `revision` has been sent.
    pub fn bookmark(&mut self, revision: u64, ends_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object =
            json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
        self.written("BOOKMARK", &object)
    }

    /// The last frame of a watch that cannot go on.
    pub fn error(status: &Status) -> Bytes {
        json_bytes(&json!({"type": "ERROR", "object": status.to_json()}), false).into()
    }
}
