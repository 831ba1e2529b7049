//! Runs controllers: connects inputs to queues, waits for the caches, gives keys to workers, and ends with the token.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api_client::events::Recorder;
use api_client::{Client, ObjectKey};
use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::inputs::{Input, Inputs, waker};
use super::metrics::QueueMetrics;
use super::queue::{Ended, Queue};
use super::{Caches, Controller, Done, Error, Metrics, RESYNC_PERIOD, Work};

/// How soon a forgetful engine runs a key again that has written.
const FORGETFUL_PAUSE: Duration = Duration::from_millis(1);

/// What all controllers of a process share.
#[derive(Clone)]
pub struct Engine {
    pub client: Client,
    pub caches: Caches,
    pub recorder: Recorder,
    pub metrics: Metrics,
    /// See [`crate::Options::forgetful`].
    pub forgetful: bool,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

impl Engine {
    /// Starts a controller; its tasks belong to the engine's tracker.
    pub fn start(&self, controller: Arc<dyn Controller>) {
        let mut inputs = Inputs::default();
        controller.inputs(&mut inputs);
        let running = Arc::new(Running::new(self.clone(), controller));
        self.tasks.spawn(async move { running.run(inputs.inputs).await });
    }
}

/// One controller at work.
struct Running {
    engine: Engine,
    controller: Arc<dyn Controller>,
    queue: Arc<Queue>,
    metrics: QueueMetrics,
    recorder: Recorder,
}

impl Running {
    fn new(engine: Engine, controller: Arc<dyn Controller>) -> Self {
        let queue = Arc::<Queue>::default();
        let metrics = engine.metrics.queue(controller.queue(), &queue);
        let recorder = engine.recorder.named(controller.name());
        Self { engine, controller, queue, metrics, recorder }
    }

    async fn run(self: Arc<Self>, inputs: Vec<Input>) {
        let shutdown = self.engine.shutdown.clone();
        let mut synced = Vec::new();
        let mut keys = Vec::new();
        for input in inputs {
            let (metrics, queue) = (self.metrics.clone(), self.queue.clone());
            let added = move || metrics.added(queue.read(|core| core.depth()));
            (input.connect)(waker(self.queue.clone(), added));
            synced.push((input.synced)());
            if input.primary {
                keys.push(input.keys);
            }
        }
        if shutdown.run_until_cancelled(join_all(synced)).await.is_none() {
            return;
        }
        debug!(controller = self.controller.name(), "caches synced");
        let resync = self.resync(keys);
        let dispatch = self.clone().dispatch();
        // Both run until the token ends them.
        shutdown.run_until_cancelled(futures_util::future::join(resync, dispatch)).await;
    }

    async fn resync(&self, keys: Vec<Box<dyn Fn() -> Vec<ObjectKey> + Send + Sync>>) {
        loop {
            // Controllers started together should not resync together.
            tokio::time::sleep(RESYNC_PERIOD.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
            for key in keys.iter().flat_map(|keys| keys()) {
                self.queue.add(key);
            }
        }
    }

    async fn dispatch(self: Arc<Self>) {
        let workers = Arc::new(Semaphore::new(self.controller.workers()));
        loop {
            let Ok(permit) = workers.clone().acquire_owned().await else { return };
            let (key, waited) = self.queue.take().await;
            self.metrics.taken(self.queue.read(|core| core.depth()), waited);
            let this = self.clone();
            self.engine.tasks.spawn(async move { this.process(key, permit).await });
        }
    }

    /// Runs one key. It stays single-flight until the caches have seen what it wrote; the worker is free before.
    async fn process(&self, key: ObjectKey, permit: OwnedSemaphorePermit) {
        // Also when the reconcile panics, the key must not count as running for ever.
        let mut guard = Guard { queue: self.queue.clone(), key: key.clone(), ended: Ended::Failed };
        let work = Work {
            controller: self.controller.name(),
            client: self.engine.client.clone(),
            caches: self.engine.caches.clone(),
            outputs: self.controller.outputs(),
            recorder: self.recorder.clone(),
            unseen: Mutex::default(),
        };
        let started = Instant::now();
        let reconcile = self.controller.reconcile(&key, &work);
        let Some(result) = self.engine.shutdown.run_until_cancelled(reconcile).await else { return };
        self.metrics.worked(started.elapsed(), result.is_err());
        drop(permit);
        guard.ended = self.ended(&key, result, started.elapsed());
        if self.engine.forgetful {
            if work.wrote() && guard.ended == Ended::Settled {
                guard.ended = Ended::After(FORGETFUL_PAUSE);
            }
            return;
        }
        // A stopped engine waits for nothing.
        self.engine.shutdown.run_until_cancelled(work.seen()).await;
    }

    fn ended(&self, key: &ObjectKey, result: Result<Done, Error>, took: Duration) -> Ended {
        let controller = self.controller.name();
        match result {
            Ok(done) => {
                debug!(controller, %key, ?took, ?done, "reconciled");
                match done {
                    Done::Settled => Ended::Settled,
                    // Without a pause it would be a loop, should what it waits for not come.
                    Done::After(delay) if delay.is_zero() => Ended::Failed,
                    Done::After(delay) => Ended::After(delay),
                    Done::Later => Ended::Failed,
                }
            }
            Err(error) if error.is_namespace_ending() => {
                debug!(controller, %key, %error, "nothing left to do");
                Ended::Settled
            }
            Err(error) if error.is_race() => {
                debug!(controller, %key, %error, "lost a race; will look again");
                Ended::Failed
            }
            Err(error) => {
                warn!(controller, %key, %error, "reconcile failed; will try again");
                Ended::Failed
            }
        }
    }
}

struct Guard {
    queue: Arc<Queue>,
    key: ObjectKey,
    ended: Ended,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.queue.done(&self.key, self.ended);
    }
}
