//! What is known about a pod on this node, and how containers are remembered. Plain values: `plan` and `status` decide
//! from them, the owner keeps them up to date from containerd's answers and events.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceRequirements;
use sha2::{Digest, Sha256};

use super::{PodId, admit::Rejection, resize::Pending};

/// Something that failed and is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Failures in a row.
    pub count: u32,
    pub failed_at: Timestamp,
    pub at: Timestamp,
    pub message: String,
}

impl Retry {
    /// Doubles from `first` to `last` with each failure in a row.
    pub fn after(
        before: Option<&Retry>,
        now: Timestamp,
        message: String,
        first: SignedDuration,
        last: SignedDuration,
    ) -> Self {
        let count = before.map_or(1, |retry| retry.count.saturating_add(1));
        let doubled = first.checked_mul(1 << (count - 1).min(16)).unwrap_or(last);
        Self { count, failed_at: now, at: now + doubled.min(last), message }
    }

    /// Whether it is time to try again: also when the clock was set back since, or an hour could be added to the wait.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.at <= now || now < self.failed_at
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    #[default]
    Absent,
    Failed(Retry),
    Ready {
        addresses: Vec<IpAddr>,
        ready_at: Timestamp,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    #[default]
    Unprepared,
    Failed(Retry),
    Ready,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// With what `imageID` shows.
    Present { image_id: String },
    /// Being pulled; with how it failed before, if it did.
    Pulling { failed: Option<(&'static str, Retry)> },
    /// `reason` is the waiting reason: `ErrImagePull`, `RegistryUnavailable`, `ErrImageNeverPull`, `ImageInspectError`,
    /// `InvalidImageName`.
    Failed { reason: &'static str, retry: Retry },
}

/// A start that failed before there was a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// `CreateContainerConfigError` or `CreateContainerError`.
    pub reason: &'static str,
    pub retry: Retry,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// No postStart hook, or it has run.
    #[default]
    Done,
    Pending,
    Running,
}

/// All attempts to run one container of the pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub latest: Option<Attempt>,
    /// The one before, ended.
    pub previous: Option<Attempt>,
    pub start_failure: Option<StartFailure>,
    pub post_start: Hook,
    /// The startup probe has passed, or there is none. Of the latest attempt.
    pub started: bool,
    /// The readiness probe passes, or there is none. Of the latest attempt.
    pub ready: bool,
    /// A liveness or startup probe gave the latest attempt up, or its postStart hook failed.
    pub condemned: Option<Condemned>,
    /// A stop is under way, and must be over by then.
    pub stopping: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condemned {
    pub message: String,
    pub grace_seconds: Option<i64>,
}

/// One container in containerd.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub id: String,
    /// Also the restart count of the container when it runs.
    pub number: u32,
    /// What the wait before the next attempt will be.
    pub backoff_seconds: u32,
    pub created_at: Timestamp,
    /// Of what must not change while a container runs; see `definition_hash`.
    pub hash: String,
    pub image: String,
    pub image_id: String,
    /// What it was given of the node. `None`: nobody noted it, so it stands for what the pod asks.
    pub resources: Option<ResourceRequirements>,
    pub state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Running { started_at: Timestamp, pid: u32 },
    Exited(Exited),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exited {
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    pub message: String,
    /// `None` when it never ran.
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    /// The task is gone and the exit stands in the record's labels.
    pub settled: bool,
}

impl Attempt {
    pub fn exited(&self) -> Option<&Exited> {
        match &self.state {
            State::Exited(exited) => Some(exited),
            State::Running { .. } => None,
        }
    }
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }
}

impl Series {
    pub fn is_running(&self) -> bool {
        self.latest.as_ref().is_some_and(Attempt::is_running)
    }
    pub fn exited(&self) -> Option<&Exited> {
        self.latest.as_ref().and_then(Attempt::exited)
    }
}

/// The pod ends although its containers would go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub since: Timestamp,
    /// Containers may take until then.
    pub deadline: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    pub sandbox: Sandbox,
    pub volumes: Volumes,
    /// When the contents of prepared volumes are brought up to date; `None` when they never change.
    pub refresh_at: Option<Timestamp>,
    /// By the text of the container's `image` field.
    pub images: BTreeMap<String, Image>,
    /// By container name, init and ephemeral ones included.
    pub containers: BTreeMap<String, Series>,
    /// When this node first saw the pod; `status.startTime`.
    pub started_at: Option<Timestamp>,
    /// Set when the pod is deleted, gone from the server, or past its deadline.
    pub ending: Option<Ending>,
    /// `activeDeadlineSeconds` has passed.
    pub expired: bool,
    /// The server has no such pod any more: nothing can be reported.
    pub gone: bool,
    /// Phase was already `Succeeded` or `Failed` when this agent started: nothing runs again.
    pub terminal: bool,
    /// This node does not take the pod.
    pub rejected: Option<Rejection>,
    /// The pod asks for other resources than it has, and does not get them now.
    pub resize_pending: Option<Pending>,
    /// Running containers could not be given what is allocated to them.
    pub resize_failure: Option<Retry>,
    /// Network, namespaces, volumes and cgroup were released for good.
    pub torn_down: bool,
    pub containers_removed: bool,
    pub cleanup_failure: Option<Retry>,
}

impl Observed {
    pub fn series(&self, container: &str) -> Option<&Series> {
        self.containers.get(container)
    }
    /// The newest attempt of a container.
    pub fn latest(&self, container: &str) -> Option<&Attempt> {
        self.series(container)?.latest.as_ref()
    }
    pub fn any_running(&self) -> bool {
        self.containers.values().any(Series::is_running)
    }
    pub fn addresses(&self) -> &[IpAddr] {
        match &self.sandbox {
            Sandbox::Ready { addresses, .. } => addresses,
            _ => &[],
        }
    }
}

/// A container whose definition hashes differently is replaced. Only name and image count: other fields either cannot
/// change or take effect while it runs.
pub fn definition_hash(name: &str, image: &str) -> String {
    let digest = Sha256::digest(format!("{name}\0{image}").as_bytes());
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of an attempt follows from what it is: a repeated step finds what the interrupted one made.
pub fn container_id(pod: &PodId, container: &str, number: u32) -> String {
    let digest = Sha256::digest(format!("{}\0{container}\0{number}", pod.uid).as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Label keys of container records. The first four are those of other Kubernetes runtimes, for tools that read them.
pub mod label {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER: &str = "io.kubernetes.container.name";
    /// Several agents may share a containerd.
    pub const NODE: &str = "keelson.io/node";
    pub const NUMBER: &str = "keelson.io/attempt";
    pub const BACKOFF: &str = "keelson.io/backoff-seconds";
    pub const CREATED_AT: &str = "keelson.io/created-at";
    pub const HASH: &str = "keelson.io/hash";
    pub const IMAGE: &str = "keelson.io/image";
    pub const IMAGE_ID: &str = "keelson.io/image-id";
    /// As JSON. Follows a resize in place.
    pub const RESOURCES: &str = "keelson.io/resources";
    /// Tells a container that never ran from one that a reboot ended.
    pub const BOOT_ID: &str = "keelson.io/boot-id";
    pub const TTY: &str = "keelson.io/tty";
    pub const STDIN: &str = "keelson.io/stdin";
    pub const POST_START_DONE: &str = "keelson.io/post-start-done";
    pub const EXIT_CODE: &str = "keelson.io/exit-code";
    pub const EXIT_REASON: &str = "keelson.io/exit-reason";
    pub const EXIT_MESSAGE: &str = "keelson.io/exit-message";
    pub const STARTED_AT: &str = "keelson.io/started-at";
    pub const FINISHED_AT: &str = "keelson.io/finished-at";
}

/// containerd refuses labels whose key and value are longer than 4096 bytes together.
const MESSAGE_LABEL_BYTES_MAX: usize = 4000;

/// What is written when an attempt has ended.
pub fn exit_labels(exited: &Exited) -> HashMap<String, String> {
    let mut message = exited.message.clone();
    let mut end = message.len().min(MESSAGE_LABEL_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    let mut labels = HashMap::from([
        (label::EXIT_CODE.to_owned(), exited.code.to_string()),
        (label::EXIT_REASON.to_owned(), exited.reason.clone()),
        (label::EXIT_MESSAGE.to_owned(), message),
        (label::FINISHED_AT.to_owned(), exited.finished_at.to_string()),
    ]);
    if let Some(started_at) = exited.started_at {
        labels.insert(label::STARTED_AT.to_owned(), started_at.to_string());
    }
    labels
}

/// Labels of a new attempt.
pub fn attempt_labels(pod: &PodId, node: &str, container: &str, attempt: &Attempt) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (label::POD_NAME.to_owned(), pod.name.clone()),
        (label::POD_NAMESPACE.to_owned(), pod.namespace.clone()),
        (label::POD_UID.to_owned(), pod.uid.clone()),
        (label::CONTAINER.to_owned(), container.to_owned()),
        (label::NODE.to_owned(), node.to_owned()),
        (label::NUMBER.to_owned(), attempt.number.to_string()),
        (label::BACKOFF.to_owned(), attempt.backoff_seconds.to_string()),
        (label::CREATED_AT.to_owned(), attempt.created_at.to_string()),
        (label::HASH.to_owned(), attempt.hash.clone()),
        (label::IMAGE.to_owned(), attempt.image.clone()),
        (label::IMAGE_ID.to_owned(), attempt.image_id.clone()),
    ]);
    if let Some(text) = attempt.resources.as_ref().and_then(|given| serde_json::to_string(given).ok()) {
        labels.insert(label::RESOURCES.to_owned(), text);
    }
    labels
}

/// The attempt a record stands for, as far as labels tell: one without an exit counts as running. `None` when the
/// record is not one of ours.
pub fn attempt(id: &str, labels: &HashMap<String, String>) -> Option<Attempt> {
    let text = |key: &str| labels.get(key).cloned();
    let time = |key: &str| labels.get(key).and_then(|text| text.parse::<Timestamp>().ok());
    let created_at = time(label::CREATED_AT)?;
    let state = match text(label::EXIT_CODE).and_then(|code| code.parse().ok()) {
        None => State::Running { started_at: created_at, pid: 0 },
        Some(code) => State::Exited(Exited {
            code,
            reason: text(label::EXIT_REASON).unwrap_or_default(),
            message: text(label::EXIT_MESSAGE).unwrap_or_default(),
            started_at: time(label::STARTED_AT),
            finished_at: time(label::FINISHED_AT).unwrap_or(created_at),
            settled: true,
        }),
    };
    Some(Attempt {
        id: id.to_owned(),
        number: text(label::NUMBER)?.parse().ok()?,
        backoff_seconds: text(label::BACKOFF)?.parse().ok()?,
        created_at,
        hash: text(label::HASH)?,
        image: text(label::IMAGE)?,
        image_id: text(label::IMAGE_ID)?,
        resources: labels.get(label::RESOURCES).and_then(|text| serde_json::from_str(text).ok()),
        state,
    })
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{Attempt, Exited, PodId, Retry, State, attempt, attempt_labels, exit_labels};

    #[test]
    fn an_attempt_survives_in_its_labels() {
        let pod = PodId { namespace: "shop".into(), name: "web".into(), uid: "u1".into() };
        let at: Timestamp = "2026-01-02T03:04:05.5Z".parse().unwrap();
        let mut before = Attempt {
            id: "c1".into(),
            number: 3,
            backoff_seconds: 40,
            created_at: at,
            hash: "h".into(),
            image: "app:v1".into(),
            image_id: "sha256:1".into(),
            resources: Some(serde_json::from_str(r#"{"limits":{"cpu":"1"}}"#).unwrap()),
            state: State::Running { started_at: at, pid: 0 },
        };
        let mut labels = attempt_labels(&pod, "n1", "main", &before);
        assert_eq!(attempt("c1", &labels), Some(before.clone()));
        before.state = State::Exited(Exited {
            code: 137,
            reason: "OOMKilled".into(),
            message: "ä".repeat(3000),
            started_at: Some(at),
            finished_at: at,
            settled: true,
        });
        labels.extend(exit_labels(before.exited().unwrap()));
        let after = attempt("c1", &labels).unwrap();
        assert_eq!(after.exited().unwrap().code, 137);
        assert_eq!(after.exited().unwrap().message, "ä".repeat(2000));
    }

    #[test]
    fn retries_double_up_to_their_limit() {
        let now = Timestamp::UNIX_EPOCH;
        let (first, last) = (SignedDuration::from_secs(10), SignedDuration::from_secs(300));
        let mut waits = Vec::new();
        let mut retry: Option<Retry> = None;
        for _ in 0..7 {
            let next = Retry::after(retry.as_ref(), now, String::new(), first, last);
            waits.push(next.at.as_second());
            retry = Some(next);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    }
}
