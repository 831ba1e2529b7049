//! A watch on etcd: one stream, made again from the last delivered revision whenever it breaks.
//! Invariant: `after` moves only with events that were delivered, or with a progress notice, which etcd sends on the
//! same ordered stream; so a new stream neither skips nor repeats.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{EventType, WatchOptions, WatchResponse};
use futures_util::stream;
use tokio::time::{sleep, timeout};

use super::base::Base;
use super::endpoints::{BACKOFF_MAX, BACKOFF_MIN};
use super::failure::{Failure, FailureKind};
use super::{Shared, first_key, header_number, is_empty, record};
use crate::{Batch, Change, Error, Event, Record, Result, Revision, Span, WatchStream};

/// For finding out how far etcd is compacted.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

struct Watcher {
    shared: Arc<Shared>,
    span: Span,
    after: Revision,
    /// Known from the first connection on.
    base: Base,
    stream: Option<(usize, etcd_client::WatchStream)>,
    has_connected: bool,
    backoff: Duration,
}

pub(super) fn watch(shared: Arc<Shared>, span: Span, after: Revision) -> WatchStream {
    // There is nothing to deliver, ever.
    if is_empty(&span) {
        return WatchStream::new(stream::pending());
    }
    let watcher = Watcher {
        shared,
        span,
        after,
        base: Base::default(),
        stream: None,
        has_connected: false,
        backoff: BACKOFF_MIN,
    };
    WatchStream::new(stream::unfold(watcher, |mut watcher| async move {
        let batch = watcher.next().await;
        Some((batch, watcher))
    }))
}

/// Where etcd is compacted to, known to be behind `requested`: only a watch that cannot start is told.
/// `None` if etcd gives no answer; the figure is for people, not worth a second try.
pub(super) async fn compacted(shared: &Shared, requested: Revision) -> Option<Revision> {
    let base = shared.base().await.ok()?;
    let (_, member) = shared.endpoints.current();
    let options = WatchOptions::new().with_start_revision(base.number(requested).max(1));
    let probe = async {
        let mut stream = member.watch().watch("\0", Some(options)).await.ok()?;
        while let Ok(Some(response)) = stream.message().await {
            if response.canceled() {
                return Some(base.revision(response.compact_revision()));
            }
        }
        None
    };
    timeout(PROBE_TIMEOUT, probe).await.ok().flatten()
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            let (place, mut stream) = match self.stream.take() {
                Some(stream) => stream,
                None => self.connect().await?,
            };
            let failure = match stream.message().await {
                Ok(Some(response)) if response.canceled() => {
                    drop(stream);
                    self.canceled(&response)?
                }
                Ok(Some(response)) => {
                    self.stream = Some((place, stream));
                    self.backoff = BACKOFF_MIN;
                    match self.batch(&response) {
                        Some(batch) => return Ok(batch),
                        None => continue,
                    }
                }
                Ok(None) => "etcd closed the stream".to_owned(),
                Err(error) => self.fatal(Failure::of("watch", &error))?,
            };
            self.pause(place, &failure).await;
        }
    }

    /// A stream from behind `after`; tries until there is one.
    async fn connect(&mut self) -> Result<(usize, etcd_client::WatchStream)> {
        loop {
            let (place, member) = self.shared.endpoints.current();
            if self.has_connected {
                self.check_history().await?;
            }
            match self.shared.base().await {
                Ok(base) => self.base = base,
                Err(Error::Unavailable { detail, .. }) => {
                    self.pause(place, &detail).await;
                    continue;
                }
                Err(error) => return Err(error),
            }
            // From before a restore: etcd says that its first revision is compacted.
            let start = self.base.number(self.after.next()).max(1);
            let mut options = WatchOptions::new().with_start_revision(start).with_progress_notify();
            options = match &self.span.end {
                Some(end) => options.with_range(&end[..]),
                None => options.with_from_key(),
            };
            match member.watch().watch(&first_key(&self.span.start)[..], Some(options)).await {
                Ok(stream) => {
                    self.has_connected = true;
                    return Ok((place, stream));
                }
                Err(error) => {
                    let detail = self.fatal(Failure::of("watch", &error))?;
                    self.pause(place, &detail).await;
                }
            }
        }
    }

    /// After a lost connection the cluster may be another one: restored from a backup that lacks what we have seen.
    /// Its revisions would come again with other contents, and we would wait for ours to be passed.
    async fn check_history(&self) -> Result<()> {
        match self.shared.current_revision().await {
            Ok(current) if current < self.after => Err(Error::Future { requested: self.after, current }),
            // Not reachable yet: the stream will not be, either, and is tried again.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn pause(&mut self, place: usize, detail: &str) {
        tracing::warn!(after = %self.after, detail, "etcd watch interrupted, trying again");
        self.shared.endpoints.leave(place);
        sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Why the stream is made again, or the error that ends the watch.
    fn fatal(&self, failure: Failure) -> Result<String> {
        match failure.kind {
            FailureKind::NotSent | FailureKind::Unknown => Ok(failure.detail),
            _ => Err(self.shared.error(failure, None, Some(self.after))),
        }
    }

    fn canceled(&self, response: &WatchResponse) -> Result<String> {
        if response.compact_revision() > 0 {
            let compacted = self.shared.learn_compacted(self.base.revision(response.compact_revision()));
            return Err(Error::Compacted { requested: self.after, compacted });
        }
        Ok(format!("etcd cancelled the watch: {}", response.cancel_reason()))
    }

    fn batch(&mut self, response: &WatchResponse) -> Option<Batch> {
        let base = self.base;
        let events: Vec<Event> = response.events().iter().filter_map(|found| event(found, base)).collect();
        let progress = match events.last() {
            Some(last) => last.revision,
            // The answer to the request itself carries the newest revision while history is still to come.
            None if response.created() => return None,
            None => base.revision(header_number(response.header())),
        };
        if progress <= self.after {
            return None;
        }
        self.after = progress;
        Some(Batch { events, progress })
    }
}

fn event(event: &etcd_client::Event, base: Base) -> Option<Event> {
    let found = event.kv()?;
    let revision = base.revision(found.mod_revision());
    let change = match event.event_type() {
        EventType::Put => {
            let record: Record = record(found.clone(), base);
            return Some(Event { revision, key: record.key.clone(), change: Change::Put(record) });
        }
        EventType::Delete => Change::Delete,
    };
    Some(Event { revision, key: Bytes::copy_from_slice(found.key()), change })
}
