//! Watches of the local engines: a cursor into the engine's history that sleeps until the revision moves.
//! There is no queue per watcher; a watcher reads the history at its own pace.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use tokio::sync::watch;

use crate::{Batch, Error, Event, Result, Revision, Span, WatchStream};

/// A history that can be read from any retained revision.
#[async_trait]
pub(crate) trait History: Send + Sync + 'static {
    /// Some events after `after`, oldest first, and the revision up to which the answer is complete: greater than
    /// `after` unless there is nothing new. Bounded by the engine. [`Error::Compacted`] if `after` is too old.
    async fn read(self: Arc<Self>, after: Revision) -> Result<(Vec<Event>, Revision)>;
}

struct Cursor<H> {
    history: Arc<H>,
    revision: watch::Receiver<Revision>,
    span: Span,
    after: Revision,
}

/// A watch stream over `history`; `revision` announces each newest revision after its events can be read.
pub(crate) fn watch<H: History>(
    history: Arc<H>,
    revision: watch::Receiver<Revision>,
    span: Span,
    after: Revision,
) -> WatchStream {
    let cursor = Cursor { history, revision, span, after };
    WatchStream::new(stream::unfold(cursor, |mut cursor| async move {
        let batch = cursor.next().await;
        Some((batch, cursor))
    }))
}

impl<H: History> Cursor<H> {
    async fn next(&mut self) -> Result<Batch> {
        loop {
            let after = self.after;
            if self.revision.wait_for(|newest| *newest > after).await.is_err() {
                let detail = "the store is closed".to_owned();
                return Err(Error::Unavailable { attempt: format!("watch after revision {after}"), detail });
            }
            let (mut events, progress) = self.history.clone().read(after).await?;
            if progress > after {
                events.retain(|event| self.span.contains(&event.key));
                self.after = progress;
                return Ok(Batch { events, progress });
            }
        }
    }
}
