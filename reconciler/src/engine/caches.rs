//! One cache per kind for the whole process, shared by all controllers.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api_client::{Cache, Client, Index, ListParams, Object};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An object type that is cached, with the orders its readers need.
pub trait Cached: Object {
    const INDEXES: &'static [Index<Self>] = &[];

    /// Which objects of the kind.
    fn params() -> ListParams {
        ListParams::default()
    }
}

/// The caches of a process, started when first asked for.
#[derive(Clone)]
pub struct Caches(Arc<Shared>);

struct Shared {
    client: Client,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    started: Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>,
}

impl Caches {
    pub fn new(client: Client, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self(Arc::new(Shared { client, tasks, shutdown, started: Mutex::default() }))
    }

    /// The tracker that the process's tasks belong to.
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// The cache of all objects of a kind.
    pub fn get<T: Cached>(&self) -> Cache<T> {
        let mut started = self.0.started.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = started.entry(TypeId::of::<T>()).or_insert_with(|| {
            let api = self.0.client.api::<T>();
            let shutdown = self.0.shutdown.clone();
            Box::new(Cache::<T>::start_indexed(api, T::params(), T::INDEXES, &self.0.tasks, shutdown))
        });
        cache.downcast_ref::<Cache<T>>().expect("the map is keyed by the type").clone()
    }

    /// The cache of a kind, if a controller reads it.
    pub fn started<T: Object>(&self) -> Option<Cache<T>> {
        let started = self.0.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.get(&TypeId::of::<T>())?.downcast_ref::<Cache<T>>().cloned()
    }
}
