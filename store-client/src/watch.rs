//! The stream a watch returns. It pulls: an engine keeps no queue per watcher, so a slow watcher costs nothing until
//! compaction passes it, and then it ends with an error instead of skipping events.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt};

use crate::{Event, Result, Revision};

/// Some whole revisions of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In revision order; empty in a bookmark.
    pub events: Vec<Event>,
    /// Every event of the span up to and including this revision has been delivered with this batch.
    pub progress: Revision,
}

/// Batches in revision order. After an error, or when the store closes, it ends.
pub struct WatchStream {
    inner: Pin<Box<dyn Stream<Item = Result<Batch>> + Send>>,
    ended: bool,
}

impl WatchStream {
    pub(crate) fn new(inner: impl Stream<Item = Result<Batch>> + Send + 'static) -> Self {
        Self { inner: Box::pin(inner), ended: false }
    }

    /// The next batch. Safe to drop: nothing is lost, the next call continues.
    pub async fn next(&mut self) -> Option<Result<Batch>> {
        StreamExt::next(self).await
    }
}

impl Stream for WatchStream {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = self.inner.as_mut().poll_next(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.ended = true;
        }
        polled
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}
