//! The engine: runs controllers. A controller declares what it reads (and how that maps to keys) and what it writes;
//! the engine owns queues, workers, backoff, resync and shutdown. A reconcile receives only a key and is
//! level-triggered: it must be right whatever woke it, and safe to stop anywhere.

mod ages;
mod caches;
pub mod graph;
mod inputs;
mod metrics;
mod queue;
mod run;
mod work;

use std::time::Duration;

use api_client::ObjectKey;
use async_trait::async_trait;

pub use ages::{Ages, Clock};
pub use caches::{Cached, Caches};
pub use inputs::{Inputs, Waker};
pub use metrics::Metrics;
pub use queue::{Core, Ended, Queue};
pub use run::Engine;
pub use work::Work;

/// All keys are visited on this period, should an event ever have been lost on the way to a queue.
pub const RESYNC_PERIOD: Duration = Duration::from_secs(600);
/// Keys of one controller that run at a time, where it doesn't say otherwise.
pub const WORKERS: usize = 8;

/// A controller: one kind of decision, taken per key.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Upstream's name of the controller.
    fn name(&self) -> &'static str;

    /// Upstream's name of its work queue, the label of the queue's metrics.
    fn queue(&self) -> &'static str {
        self.name().strip_suffix("-controller").unwrap_or(self.name())
    }

    /// Declares the caches it reads and how their changes map to keys.
    fn inputs(&self, inputs: &mut Inputs);

    /// The resources it writes.
    fn outputs(&self) -> &'static [Output];

    fn workers(&self) -> usize {
        WORKERS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error>;
}

/// How a reconcile ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing to do until something changes.
    Settled,
    /// Look again after this long.
    After(Duration),
    /// Something is awaited that nothing tells of: look again, with pauses that grow like those after failures.
    Later,
}

impl Done {
    /// `After` the delay where there is one.
    pub fn after(delay: Option<Duration>) -> Self {
        delay.map_or(Self::Settled, Self::After)
    }
}

/// A resource a controller writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub group: &'static str,
    /// Plural name, with `/subresource` for a subresource; `*` for any resource, `*/scale` for any scale.
    pub resource: &'static str,
    /// Whether other controllers write it, too.
    pub shared: bool,
}

impl Output {
    /// No other controller writes this.
    pub const fn exclusive(group: &'static str, resource: &'static str) -> Self {
        Self { group, resource, shared: false }
    }

    /// Several controllers write this, each its own objects or fields.
    pub const fn shared(group: &'static str, resource: &'static str) -> Self {
        Self { group, resource, shared: true }
    }

    fn covers(&self, group: &str, resource: &str, subresource: &str) -> bool {
        if self.resource == "*" {
            return true;
        }
        let (own_resource, own_subresource) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        let fits = |own: &str, other: &str| own == "*" || own == other;
        fits(self.group, group) && fits(own_resource, resource) && own_subresource == subresource
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] api_client::Error),
    #[error("controller {controller} did not declare that it writes {group}/{resource}")]
    Undeclared { controller: &'static str, group: String, resource: String },
    /// The namespace is being deleted: nothing can be created in it any more, and nothing needs to be.
    #[error("namespace {namespace} is being deleted; {kind} not created")]
    NamespaceEnds { kind: &'static str, namespace: String },
    /// The object can't be acted on as it is; a change of it is waited for.
    #[error("{object}: {why}")]
    Object { object: String, why: String },
}

impl Error {
    /// An optimistic-concurrency conflict or a vanished object: normal, and solved by looking again.
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Api(e) if e.is_conflict() || e.is_not_found() || e.is_already_exists())
    }

    /// Something was to be created in a namespace that is being deleted, by what the cache or the server knows. The
    /// engine takes it for a good end: trying again can't help, and whatever is in the namespace goes.
    pub fn is_namespace_ending(&self) -> bool {
        matches!(self, Self::NamespaceEnds { .. }) || matches!(self, Self::Api(e) if e.is_namespace_terminating())
    }
}
