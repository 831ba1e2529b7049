//! The declared inputs of a controller: which caches it reads, and which keys a change of an object wakes.

use std::sync::Arc;

use api_client::{Cache, Change, Object, ObjectKey};
use futures_util::future::{BoxFuture, FutureExt};

use super::queue::Queue;

/// Puts a key into a controller's queue.
pub type Waker = Arc<dyn Fn(ObjectKey) + Send + Sync>;

/// Collects inputs; the engine connects them to the queue.
#[derive(Default)]
pub struct Inputs {
    pub(super) inputs: Vec<Input>,
}

pub(super) struct Input {
    /// `pods` or `deployments.apps`.
    pub(super) resource: String,
    pub(super) primary: bool,
    pub(super) connect: Box<dyn FnOnce(Waker) + Send>,
    pub(super) synced: Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
    /// Keys to visit on resync; only the primary input has them.
    pub(super) keys: Box<dyn Fn() -> Vec<ObjectKey> + Send + Sync>,
}

impl Inputs {
    /// The objects that the controller's keys name. All of them are visited on resync.
    pub fn primary<T: Object>(&mut self, cache: &Cache<T>) {
        let all = cache.clone();
        let keys = move || all.snapshot().keys().cloned().collect();
        self.push(cache, true, Box::new(keys), |change, wake| wake(change.key.clone()));
    }

    /// Like [`Inputs::primary`], but only the changes that `worth` names wake their key, and on resync only the objects
    /// whose appearance it names are visited.
    pub fn primary_when<T: Object>(
        &mut self,
        cache: &Cache<T>,
        worth: impl Fn(&Change<T>) -> bool + Send + Sync + 'static,
    ) {
        let (all, worth) = (cache.clone(), Arc::new(worth));
        let appears = worth.clone();
        let keys = move || {
            let snapshot = all.snapshot();
            let changes = snapshot.iter().map(|o| Change { key: o.key(), old: None, new: Some(o.clone()) });
            changes.filter(|change| appears(change)).map(|change| change.key).collect()
        };
        self.push(cache, true, Box::new(keys), move |change, wake| {
            if worth(change) {
                wake(change.key.clone());
            }
        });
    }

    /// Objects whose changes wake the keys that `map` names.
    pub fn watch<T: Object>(
        &mut self,
        cache: &Cache<T>,
        map: impl Fn(&Change<T>, &dyn Fn(ObjectKey)) + Send + Sync + 'static,
    ) {
        self.push(cache, false, Box::new(Vec::new), map);
    }

    /// Objects that are read without waking anything.
    pub fn read<T: Object>(&mut self, cache: &Cache<T>) {
        self.push(cache, false, Box::new(Vec::new), |_, _| {});
    }

    /// A source of keys other than a cache. `connect` gets what wakes a key; `synced` returns when all keys that exist
    /// were woken.
    pub fn source(
        &mut self,
        resource: &str,
        connect: impl FnOnce(Waker) + Send + 'static,
        synced: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        self.inputs.push(Input {
            resource: resource.to_owned(),
            primary: false,
            connect: Box::new(connect),
            synced: Box::new(synced),
            keys: Box::new(Vec::new),
        });
    }

    fn push<T: Object>(
        &mut self,
        cache: &Cache<T>,
        primary: bool,
        keys: Box<dyn Fn() -> Vec<ObjectKey> + Send + Sync>,
        map: impl Fn(&Change<T>, &dyn Fn(ObjectKey)) + Send + Sync + 'static,
    ) {
        let observed = cache.clone();
        let synced = cache.clone();
        self.inputs.push(Input {
            resource: api::status::qualified(T::GROUP, T::PLURAL),
            primary,
            connect: Box::new(move |wake| observed.observe(move |change| map(change, &*wake))),
            synced: Box::new(move || {
                let cache = synced.clone();
                async move { cache.synced().await }.boxed()
            }),
            keys,
        });
    }
}

/// A waker into `queue`.
pub(super) fn waker(queue: Arc<Queue>, added: impl Fn() + Send + Sync + 'static) -> Waker {
    Arc::new(move |key| {
        if queue.add(key) {
            added();
        }
    })
}
