//! Pulls under way. Pods that want the same image with the same credentials share one pull; it goes on as long as anybody
//! waits for it, and ends with its lease given back when nobody does.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Error, Locks, Progress, Request};
use crate::{
    image::{chain, credentials::Credential, name::Name},
    runtime::{Image, Runtime},
};

/// Why an image did not come, as a container's status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `ErrImagePull` or `RegistryUnavailable`.
    pub reason: &'static str,
    /// Of the event.
    pub message: String,
    /// Of the status, which names the image again when the registry is unavailable.
    pub status: String,
}

/// An image that came.
#[derive(Clone)]
pub struct Pulled {
    pub image: Image,
    /// Without the wait for its turn.
    pub took: Duration,
}

type Outcome = Result<Pulled, Failure>;
type Key = (String, Vec<Credential>);

/// All pulls of an agent.
pub struct Pulls {
    runtime: Runtime,
    registries: PathBuf,
    turns: Arc<Semaphore>,
    locks: Arc<Locks>,
    running: Mutex<HashMap<Key, Weak<Flight>>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// One pull; it is given up when the last of these is dropped.
pub struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    progress: Arc<Progress>,
    given_up: CancellationToken,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.given_up.cancel();
    }
}

impl Flight {
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    pub async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let given_up = || Failure::of("", &Error::GivenUp);
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(given_up())),
            // The agent is stopping.
            Err(_) => Err(given_up()),
        }
    }
}

impl Failure {
    /// In the kubelet's words, `evalCRIPullErr`.
    fn of(image: &str, error: &Error) -> Self {
        let message = format!("failed to pull and unpack image {image:?}: {}", chain(error));
        if error.is_unavailable() {
            let message = format!("RegistryUnavailable: {message}");
            let told = message.trim_start_matches("RegistryUnavailable");
            let status = format!("image pull failed for {image} because the registry is unavailable{told}");
            return Self { reason: "RegistryUnavailable", message, status };
        }
        Self { reason: "ErrImagePull", status: message.clone(), message }
    }
}

impl Pulls {
    /// `at_once` images are pulled at the same time at most; the others wait for their turn.
    pub fn new(
        runtime: Runtime,
        registries: PathBuf,
        at_once: usize,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(at_once.max(1)));
        Self { runtime, registries, turns, locks: Arc::default(), running: Mutex::default(), tasks, shutdown }
    }

    /// Joins a pull of the image, or begins one.
    pub fn start(&self, name: &Name, credentials: Vec<Credential>) -> Arc<Flight> {
        let key = (name.full(), credentials.clone());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, flight| flight.strong_count() > 0);
        let joined = running.get(&key).and_then(Weak::upgrade).filter(|flight| flight.outcome.borrow().is_none());
        if let Some(flight) = joined {
            return flight;
        }
        let (sender, outcome) = watch::channel(None);
        let given_up = self.shutdown.child_token();
        let flight = Arc::new(Flight { outcome, progress: Arc::default(), given_up: given_up.clone() });
        running.insert(key, Arc::downgrade(&flight));
        let work = Work {
            runtime: self.runtime.clone(),
            registries: self.registries.clone(),
            turns: self.turns.clone(),
            locks: self.locks.clone(),
            progress: flight.progress.clone(),
            name: name.clone(),
            credentials,
        };
        self.tasks.spawn(async move {
            let outcome = given_up.run_until_cancelled(work.run()).await;
            let name = work.name.full();
            let outcome = outcome.unwrap_or_else(|| Err(Failure::of(&name, &Error::GivenUp)));
            // Nobody may be listening any more.
            sender.send_replace(Some(outcome));
        });
        flight
    }
}

/// What the task of a pull owns.
struct Work {
    runtime: Runtime,
    registries: PathBuf,
    turns: Arc<Semaphore>,
    locks: Arc<Locks>,
    progress: Arc<Progress>,
    name: Name,
    credentials: Vec<Credential>,
}

impl Work {
    async fn run(&self) -> Outcome {
        let full = self.name.full();
        let Ok(_turn) = self.turns.acquire().await else { return Err(Failure::of(&full, &Error::GivenUp)) };
        let begun = std::time::Instant::now();
        let request = Request {
            runtime: &self.runtime,
            registries: &self.registries,
            locks: &self.locks,
            name: &self.name,
            credentials: &self.credentials,
            progress: &self.progress,
        };
        match request.pull().await {
            Ok(image) => Ok(Pulled { image, took: begun.elapsed() }),
            Err(error) => Err(Failure::of(&full, &error)),
        }
    }
}
