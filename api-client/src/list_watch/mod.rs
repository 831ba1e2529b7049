//! List-watch: the present state, then every change, forever, with no event lost and none doubled. The decisions are
//! in [`machine`]; this file only asks the server and holds staged objects. It never fails: it waits and tries again.

pub mod machine;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use ::api::meta::ObjectKey;
use machine::{Effect, Failure, Input, Machine, Next, State};
use tracing::{debug, warn};

use crate::watch::{Event, Events};
use crate::{Api, Backoff, Error, ListParams, Object, Revision, WatchParams};

/// Objects per page where a server can't stream the initial state.
const PAGE_OBJECTS: u32 = 500;
/// How long the server is asked to keep a watch; each watch gets up to twice that, so that they don't end together.
const WATCH_TIMEOUT_SECONDS: u32 = 300;
/// Grace after which a watch that should have ended counts as a dead connection.
const WATCH_GRACE_SECONDS: u32 = 30;
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(30);

/// One thing a list-watch tells its reader.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery<T> {
    /// This is everything there is, as of `revision`; it replaces all that was delivered before.
    Replaced {
        items: Vec<T>,
        revision: Revision,
    },
    /// Added or modified.
    Applied(T),
    Deleted(T),
    /// Nothing else changed up to `revision`.
    Progress(Revision),
}

pub struct ListWatch<T> {
    api: Api<T>,
    params: ListParams,
    machine: Machine,
    events: Option<Events<T>>,
    staged: BTreeMap<ObjectKey, T>,
    backoff: Backoff,
    /// An outage is told once, not at every attempt.
    failing: bool,
    pause: Option<Duration>,
    deadline: tokio::time::Instant,
}

/// Objects that came with an input.
enum Cargo<T> {
    None,
    Items(Vec<T>),
    Applied(T),
    Deleted(T),
}

impl<T: Object> ListWatch<T> {
    pub fn new(api: Api<T>, params: ListParams) -> Self {
        Self {
            api,
            params,
            machine: Machine::new(true),
            events: None,
            staged: BTreeMap::new(),
            backoff: Backoff::new(BACKOFF_BASE, BACKOFF_CAP),
            failing: false,
            pause: None,
            deadline: tokio::time::Instant::now(),
        }
    }

    /// The next delivery. Cancelling it may repeat a request, but loses nothing.
    pub async fn next(&mut self) -> Delivery<T> {
        loop {
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
                self.pause = None;
            }
            let (input, cargo) = self.perform().await;
            if let Some(delivery) = self.take(input, cargo) {
                return delivery;
            }
        }
    }

    /// A delivery that already arrived, without waiting; for batching.
    pub fn ready(&mut self) -> Option<Delivery<T>> {
        while self.pause.is_none() {
            let event = self.events.as_mut()?.buffered()?;
            let (input, cargo) = self.read_event(Some(event));
            if let Some(delivery) = self.take(input, cargo) {
                return Some(delivery);
            }
        }
        None
    }

    async fn perform(&mut self) -> (Input, Cargo<T>) {
        match self.machine.next() {
            Next::List { continue_token, paged } => {
                let limit = if paged { PAGE_OBJECTS } else { 0 };
                let params = ListParams { limit, continue_token, ..self.params.clone() };
                match self.api.list(&params).await {
                    Ok(page) => {
                        let input = Input::Page { revision: page.revision, continue_token: page.continue_token };
                        (input, Cargo::Items(page.items))
                    }
                    Err(e) => (self.failed("list", &e), Cargo::None),
                }
            }
            Next::OpenStream => {
                let params = WatchParams { initial_events: true, ..self.watch_params() };
                (self.open(params).await, Cargo::None)
            }
            Next::OpenWatch { from } => {
                let params = WatchParams { from: Some(from), ..self.watch_params() };
                (self.open(params).await, Cargo::None)
            }
            Next::Read => {
                let Some(events) = self.events.as_mut() else { return (Input::Closed, Cargo::None) };
                match tokio::time::timeout_at(self.deadline, events.next()).await {
                    Ok(event) => self.read_event(event),
                    Err(_) => {
                        warn!(resource = %self.api.resource().qualified(), "watch outlived its time; connection is dead");
                        (Input::Failed(Failure::Other), Cargo::None)
                    }
                }
            }
        }
    }

    fn watch_params(&mut self) -> WatchParams {
        let seconds = WATCH_TIMEOUT_SECONDS + (rand::random::<f64>() * f64::from(WATCH_TIMEOUT_SECONDS)) as u32;
        let limit = Duration::from_secs(u64::from(seconds + WATCH_GRACE_SECONDS));
        self.deadline = tokio::time::Instant::now() + limit;
        WatchParams { timeout_seconds: seconds, ..WatchParams::default() }
    }

    async fn open(&mut self, params: WatchParams) -> Input {
        match self.api.watch(&self.params, &params).await {
            Ok(events) => {
                self.events = Some(events);
                Input::Opened
            }
            Err(e) => self.failed("watch", &e),
        }
    }

    fn read_event(&mut self, event: Option<Result<Event<T>, Error>>) -> (Input, Cargo<T>) {
        match event {
            None => (Input::Closed, Cargo::None),
            Some(Ok(Event::Added(object) | Event::Modified(object))) => {
                (Input::Changed { revision: object.revision() }, Cargo::Applied(object))
            }
            Some(Ok(Event::Deleted(object))) => {
                (Input::Changed { revision: object.revision() }, Cargo::Deleted(object))
            }
            Some(Ok(Event::Bookmark { revision, initial_events_end })) => {
                (Input::Bookmark { revision, initial_events_end }, Cargo::None)
            }
            Some(Ok(Event::Error(status))) => (self.failed("watch", &Error::Status(status)), Cargo::None),
            Some(Err(e)) => (self.failed("watch", &e), Cargo::None),
        }
    }

    fn failed(&mut self, verb: &str, error: &Error) -> Input {
        let failure = classify(error, self.machine.state());
        let resource = self.api.resource().qualified();
        match failure {
            Failure::Other if !self.failing => warn!(%resource, verb, %error, "list-watch failed; will try again"),
            _ => debug!(%resource, verb, %error, "list-watch starts over"),
        }
        self.failing |= failure == Failure::Other;
        Input::Failed(failure)
    }

    fn take(&mut self, input: Input, cargo: Cargo<T>) -> Option<Delivery<T>> {
        let step = self.machine.step(input);
        if step.healthy {
            if std::mem::take(&mut self.failing) {
                debug!(resource = %self.api.resource().qualified(), "list-watch works again");
            }
            self.backoff.reset();
        }
        if step.wait {
            self.pause = Some(self.backoff.next(rand::random()));
        }
        if self.machine.next() != Next::Read {
            self.events = None;
        }
        match step.effect {
            Effect::Nothing | Effect::Drop => None,
            Effect::Progress(revision) => Some(Delivery::Progress(revision)),
            Effect::Abandon => {
                self.staged.clear();
                None
            }
            Effect::Stage => {
                self.stage(cargo);
                None
            }
            Effect::Commit(revision) => {
                self.stage(cargo);
                let items = std::mem::take(&mut self.staged).into_values().collect();
                Some(Delivery::Replaced { items, revision })
            }
            Effect::Apply => match cargo {
                Cargo::Applied(mut object) => {
                    object.trim();
                    Some(Delivery::Applied(object))
                }
                Cargo::Deleted(object) => Some(Delivery::Deleted(object)),
                Cargo::Items(_) | Cargo::None => None,
            },
        }
    }

    fn stage(&mut self, cargo: Cargo<T>) {
        match cargo {
            Cargo::None => {}
            Cargo::Deleted(object) => {
                self.staged.remove(&object.key());
            }
            Cargo::Applied(object) => self.stage_one(object),
            Cargo::Items(items) => items.into_iter().for_each(|object| self.stage_one(object)),
        }
    }

    fn stage_one(&mut self, mut object: T) {
        object.trim();
        self.staged.insert(object.key(), object);
    }
}

/// 410 starts over; a refusal of the request's form (400, 422) tries the older one. Upstream's server on an etcd before
/// 3.4.25 refuses initial events inside the watch, as an internal error.
fn classify(error: &Error, state: &State) -> Failure {
    match error.status().map(|s| (s.code, s.reason.as_str())) {
        Some((500, _)) if *state == State::Streaming => Failure::Unsupported,
        Some((410, _) | (_, "Expired" | "Gone")) => Failure::Gone,
        Some((400 | 422, _)) => Failure::Unsupported,
        _ => Failure::Other,
    }
}
