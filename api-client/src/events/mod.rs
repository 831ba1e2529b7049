//! Event recording: core/v1 events as `kubectl describe` shows them, counted, combined and rate-limited. Recording
//! never waits and never fails its caller; under pressure events are dropped, with a count in the log.

mod correlate;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use correlate::{Correlator, Outcome};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::{Api, Client, Error, Metadata, Object, ObjectKey, Patch};

/// Events waiting to be written; beyond it new ones are dropped.
const WAITING_MAX: usize = 1024;
/// Longest message a server accepts in `core/v1.Event` (`noteLengthLimit`), in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    pub api_version: String,
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

impl ObjectReference {
    pub fn to<T: Object>(object: &T) -> Self {
        let meta = object.metadata();
        Self {
            api_version: T::api_version(),
            kind: T::KIND.to_owned(),
            namespace: meta.namespace().to_owned(),
            name: meta.name().to_owned(),
            uid: meta.uid().to_owned(),
            resource_version: meta.resource_version().to_owned(),
            field_path: String::new(),
        }
    }

    /// One container of a pod: `spec.containers{name}`.
    pub fn at(mut self, field_path: impl Into<String>) -> Self {
        self.field_path = field_path.into();
        self
    }

    fn identity(&self) -> String {
        format!("{}/{}/{}/{}/{}/{}", self.api_version, self.kind, self.namespace, self.name, self.uid, self.field_path)
    }
}

#[derive(Clone, Debug)]
struct Event {
    component: Arc<str>,
    regarding: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
}

/// Records events under one component's name. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    component: Arc<str>,
    sender: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// `component` is shown as the source, such as `deployment-controller`; `host` is the node for node components.
    pub fn start(
        client: &Client,
        component: &str,
        host: &str,
        tasks: &TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writer = Writer { events: client.api(), host: host.to_owned(), correlator: Correlator::default() };
        tasks.spawn(async move { shutdown.run_until_cancelled_owned(writer.run(receiver)).await });
        Self { component: component.into(), sender, dropped: Arc::default() }
    }

    /// A recorder of another component over the same queue.
    pub fn named(&self, component: &str) -> Self {
        Self { component: component.into(), ..self.clone() }
    }

    pub fn normal(&self, regarding: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(regarding, EventType::Normal, reason, message.into());
    }

    pub fn warning(&self, regarding: ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(regarding, EventType::Warning, reason, message.into());
    }

    pub fn record(&self, regarding: ObjectReference, kind: EventType, reason: &str, message: String) {
        let component = self.component.clone();
        let event = Event { component, regarding, kind, reason: reason.to_owned(), message: shorten(message) };
        if self.sender.try_send(event).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                warn!(dropped, limit = WAITING_MAX, "events dropped: the queue is full or closed");
            }
        }
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX - 3).rev().find(|i| message.is_char_boundary(*i)).unwrap_or_default();
        message.truncate(end);
        message.push_str("...");
    }
    message
}

struct Writer {
    events: Api<core::Event>,
    host: String,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Event>) {
        while let Some(event) = receiver.recv().await {
            let now = Timestamp::now();
            let outcome = self.correlator.decide(&event, now.as_second());
            if let Err(error) = self.write(&event, outcome, now).await {
                // Events are best effort; a namespace on its way out refuses them.
                debug!(reason = %event.reason, object = %event.regarding.name, %error, "event not written");
            }
        }
    }

    async fn write(&mut self, event: &Event, outcome: Outcome, now: Timestamp) -> Result<(), Error> {
        match outcome {
            Outcome::Drop => Ok(()),
            Outcome::Create { message } => self.create(event, &message, now).await,
            Outcome::Count { name, count, message } => {
                let key = ObjectKey::new(event_namespace(&event.regarding), name);
                let patch = json!({"count": count, "message": message, "lastTimestamp": seconds(now)});
                match self.events.patch(&key, &Patch::Strategic(patch)).await {
                    // It expired meanwhile.
                    Err(e) if e.is_not_found() => self.create(event, &message, now).await,
                    other => other.map(drop),
                }
            }
        }
    }

    async fn create(&mut self, event: &Event, message: &str, now: Timestamp) -> Result<(), Error> {
        let namespace = event_namespace(&event.regarding);
        let name = event_name(&event.regarding.name, now);
        let mut source = json!({"component": &*event.component});
        if !self.host.is_empty() {
            source["host"] = self.host.as_str().into();
        }
        let object = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": event.regarding,
            "reason": event.reason, "message": message, "type": event.kind.as_str(),
            "source": source, "count": 1,
            "firstTimestamp": seconds(now), "lastTimestamp": seconds(now),
            "reportingComponent": &*event.component, "reportingInstance": self.host,
        });
        self.events.create_value(&object).await?;
        self.correlator.written(event, message, &name);
        Ok(())
    }
}

/// Events of cluster-scoped objects live in `default`, as upstream's recorder puts them.
fn event_namespace(regarding: &ObjectReference) -> &str {
    if regarding.namespace.is_empty() { "default" } else { &regarding.namespace }
}

/// Upstream's form: the object's name and a time in hexadecimal. Nanoseconds keep quick events of one object apart.
fn event_name(object: &str, now: Timestamp) -> String {
    format!("{object}.{:x}", now.as_nanosecond())
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
