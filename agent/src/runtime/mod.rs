//! containerd through its native API: one handle for all of it. Every call carries the namespace header, every call has
//! a deadline, and every error names the call and the object.
//!
//! Nothing here knows pods; `pod` decides and this module does.

pub mod container;
pub mod content;
pub mod events;
pub mod exec;
pub mod image;
pub mod import;
pub mod lease;
pub mod namespace;
pub mod options;
pub mod plugin;
mod shim;
pub mod snapshot;
pub mod task;
pub mod unpack;

use std::{path::Path, sync::Arc, time::Duration};

use containerd_client::services::v1::version_client::VersionClient;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

pub use container::{Container, NewContainer};
pub use exec::{Exec, ExecRequest};
pub use image::Image;
pub use namespace::Contents;
pub use task::{Exit, Io, Task, TaskState};

/// Longest a single call may take. Task creation under load is the slow one (about 3 s for 32 at once on two cores);
/// past this limit the call fails and the pod's owner tries again.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("address of containerd {address:?} is no socket path")]
    Address { address: String },
    #[error("containerd namespace {namespace:?} is no header value")]
    Namespace { namespace: String },
    #[error("{call} {object}: {}", status.message())]
    Call { call: &'static str, object: String, status: Box<tonic::Status> },
    #[error("{call} {object}: the answer lacks {field}")]
    Answer { call: &'static str, object: String, field: &'static str },
    #[error("{action} {path}")]
    Io { action: &'static str, path: String, source: std::io::Error },
    #[error("read {what} {digest}")]
    Json { what: &'static str, digest: String, source: serde_json::Error },
    #[error("{what}: {problem}")]
    Invalid { what: String, problem: String },
}

impl Error {
    fn code(&self) -> Option<tonic::Code> {
        match self {
            Error::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(tonic::Code::NotFound)
    }
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(tonic::Code::AlreadyExists)
    }
    /// Bytes that are not what their digest says.
    pub fn is_wrong_content(&self) -> bool {
        self.code() == Some(tonic::Code::FailedPrecondition)
    }
    /// Another writer has the same unfinished blob open.
    pub fn is_locked(&self) -> bool {
        matches!(self, Error::Call { status, .. }
            if status.code() == tonic::Code::Unavailable && status.message().contains("locked"))
    }
    /// containerd does not answer; nothing is known about the object.
    pub fn is_unavailable(&self) -> bool {
        // A broken connection surfaces as Unknown "transport error" from tonic, not as Unavailable.
        matches!(self, Error::Call { status, .. }
            if status.code() == tonic::Code::Unavailable
                || (status.code() == tonic::Code::Unknown && std::error::Error::source(&**status).is_some()))
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Turns a tonic result into ours; `call` is the verb, `object` what it was about.
pub(crate) fn answered<T>(
    result: std::result::Result<tonic::Response<T>, tonic::Status>,
    call: &'static str,
    object: &str,
) -> Result<T> {
    result.map(tonic::Response::into_inner).map_err(|status| Error::Call {
        call,
        object: object.to_owned(),
        status: Box::new(status),
    })
}

/// "Already gone" is success for everything that removes.
pub(crate) fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
    /// What calls through this handle create is kept by this lease.
    lease: Option<MetadataValue<Ascii>>,
}

struct Inner {
    channel: Channel,
    address: String,
    namespace: MetadataValue<Ascii>,
    snapshotter: String,
    oci_runtime: String,
    images: image::Memory,
}

impl Runtime {
    /// A handle that connects on first use and reconnects by itself. `oci_runtime` `None` chooses by the host.
    pub fn new(address: &Path, namespace: &str, snapshotter: &str, oci_runtime: Option<&str>) -> Result<Self> {
        let address = address.to_string_lossy().into_owned();
        let channel = Endpoint::from_shared(format!("unix://{address}"))
            .map_err(|_| Error::Address { address: address.clone() })?
            .connect_lazy();
        let namespace = namespace.parse().map_err(|_| Error::Namespace { namespace: namespace.to_owned() })?;
        let oci_runtime = oci_runtime.map_or_else(options::choose_binary, str::to_owned);
        let inner = Inner {
            channel,
            address,
            namespace,
            snapshotter: snapshotter.to_owned(),
            oci_runtime,
            images: image::Memory::default(),
        };
        Ok(Self { inner: Arc::new(inner), lease: None })
    }

    pub(crate) fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream_request(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    /// For calls that last as long as somebody listens.
    pub(crate) fn stream_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", self.inner.namespace.clone());
        if let Some(lease) = &self.lease {
            request.metadata_mut().insert("containerd-lease", lease.clone());
        }
        request
    }

    pub fn namespace(&self) -> &str {
        self.inner.namespace.to_str().unwrap_or_default()
    }
    pub fn snapshotter(&self) -> &str {
        &self.inner.snapshotter
    }
    pub fn oci_runtime(&self) -> &str {
        &self.inner.oci_runtime
    }
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// containerd's version, `1.6.20` or the like; also the test whether it answers.
    pub async fn version(&self) -> Result<String> {
        let result = VersionClient::new(self.channel()).version(self.request(())).await;
        Ok(answered(result, "connect to containerd at", self.address())?.version)
    }
}
