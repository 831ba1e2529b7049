//! The body of a watch: a cursor that sleeps until its ring has news. It holds no queue of its own.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::watch::Receiver;
use tokio::time::{Duration, Instant, sleep_until};

use api::status::Status;

use super::Start;
use super::encode::Encoder;
use crate::body::{Body, BoxError};
use crate::cache::Item;
use crate::cache::ring::{Channel, Gone};
use crate::server::Server;

/// Bytes of frames handed to the connection at a time.
const BLOCK_BYTES: usize = 64 * 1024;
/// Bookmarks come about this often (upstream's `defaultBookmarkFrequency`), and this long before the end.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

pub struct Stream {
    server: Arc<Server>,
    channel: Arc<Channel>,
    news: Receiver<u64>,
    encoder: Encoder,
    initial: std::vec::IntoIter<(Arc<str>, Arc<Item>)>,
    marks_end: bool,
    /// Events up to here are part of the initial state.
    start: u64,
    /// Events up to here are known to the client.
    after: u64,
    /// Position in the ring; unknown before the first read.
    position: Option<u64>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    ended: bool,
}

impl Stream {
    pub fn new(
        server: &Arc<Server>,
        channel: Arc<Channel>,
        encoder: Encoder,
        start: Start,
        bookmarks: bool,
        deadline: Instant,
    ) -> Self {
        let news = channel.subscribe();
        Self {
            server: Arc::clone(server),
            channel,
            news,
            encoder,
            initial: start.initial.into_iter(),
            marks_end: start.marks_end,
            start: start.after,
            after: start.after,
            position: None,
            bookmarks,
            next_bookmark: next_bookmark(deadline),
            deadline,
            ended: false,
        }
    }

    pub fn into_body(self) -> Body {
        let frames = stream::unfold(self, |mut stream| async move {
            let block = stream.next().await?;
            Some((Ok::<_, BoxError>(Frame::data(block)), stream))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    /// The next block of frames; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(block) = self.initial_block() {
            return Some(block);
        }
        loop {
            // Taken before the ring is read: what is announced later is sent by a later turn.
            let reached = self.server.cache.revision();
            self.news.mark_unchanged();
            match self.read() {
                Ok(Some(block)) => return Some(block),
                Ok(None) => {}
                Err(gone) => return Some(self.fall_off(gone)),
            }
            let wake = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = sleep_until(wake) => {
                    if Instant::now() >= self.deadline {
                        return None;
                    }
                    self.next_bookmark = next_bookmark(self.deadline);
                    return Some(self.encoder.bookmark(reached.max(self.after), false));
                }
                () = self.server.shutdown.cancelled() => return None,
            }
        }
    }

    fn initial_block(&mut self) -> Option<Bytes> {
        let mut block = Vec::new();
        while block.len() < BLOCK_BYTES {
            let Some((_, item)) = self.initial.next() else { break };
            self.encoder.initial(&item, &mut block);
        }
        if self.initial.len() == 0 && std::mem::take(&mut self.marks_end) {
            block.extend_from_slice(&self.encoder.bookmark(self.after, true));
        }
        (!block.is_empty()).then(|| block.into())
    }

    /// Frames of events not yet sent; `None` when there are none.
    fn read(&mut self) -> Result<Option<Bytes>, Gone> {
        let mut position = match self.position {
            Some(position) => position,
            None => self.channel.position_after(self.start)?,
        };
        let mut block: Option<Block> = None;
        loop {
            let events = self.channel.read(position)?;
            if events.is_empty() {
                break;
            }
            for event in events {
                position += 1;
                self.position = Some(position);
                if event.revision() <= self.start {
                    continue;
                }
                self.after = event.revision();
                if let Some(frame) = self.encoder.event(&event) {
                    block = Some(Block::with(block, frame));
                }
                if block.as_ref().is_some_and(|block| block.len() >= BLOCK_BYTES) {
                    return Ok(block.map(Block::bytes));
                }
            }
        }
        self.position = Some(position);
        Ok(block.map(Block::bytes))
    }

    fn fall_off(&mut self, gone: Gone) -> Bytes {
        self.ended = true;
        let message = format!("too old resource version: {} ({})", self.after, gone.oldest);
        Encoder::error(&Status::expired(message))
    }
}

fn next_bookmark(deadline: Instant) -> Instant {
    let now = Instant::now();
    let last = deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now).unwrap_or(deadline);
    (now + BOOKMARK_EVERY).min(last)
}

/// Frames to be sent together. A single one, the usual case, is shared with all watchers and not copied.
enum Block {
    One(Bytes),
    Many(BytesMut),
}

impl Block {
    fn with(block: Option<Self>, frame: Bytes) -> Self {
        match block {
            None => Self::One(frame),
            Some(Self::One(first)) => {
                let mut many = BytesMut::with_capacity(BLOCK_BYTES);
                many.extend_from_slice(&first);
                many.extend_from_slice(&frame);
                Self::Many(many)
            }
            Some(Self::Many(mut many)) => {
                many.extend_from_slice(&frame);
                Self::Many(many)
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(frame) => frame.len(),
            Self::Many(frames) => frames.len(),
        }
    }

    fn bytes(self) -> Bytes {
        match self {
            Self::One(frame) => frame,
            Self::Many(frames) => frames.freeze(),
        }
    }
}
