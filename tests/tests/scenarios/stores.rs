//! The stores that scenarios run on. The embedded one has threads of its own, which a paused clock would not wait for;
//! here every call to it is waited for on the spot, so that its order is the caller's.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use async_trait::async_trait;
use bytes::Bytes;
use store_client::embedded::{self, Embedded};
use store_client::memory::Memory;
use store_client::{Page, Range, Record, Result, Revision, Span, Status, Store, WatchStream};
use tempfile::TempDir;

/// Where files are fastest; scenarios say nothing about a disk's speed.
const FAST: &str = "/dev/shm";

pub enum Stores {
    Memory(Memory),
    Embedded { directory: TempDir, open: Weak<Embedded> },
}

impl Stores {
    pub fn memory() -> Self {
        Self::Memory(Memory::new())
    }

    pub fn embedded() -> std::result::Result<Self, String> {
        let base = Some(PathBuf::from(FAST)).filter(|p| p.is_dir()).unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix("keelson-scenario-").tempdir_in(base);
        Ok(Self::Embedded { directory: directory.map_err(|e| format!("make a directory: {e}"))?, open: Weak::new() })
    }

    /// The store, opened again if it is one that can be closed. Whoever had it must have let go of it.
    pub async fn open(&mut self) -> std::result::Result<Arc<dyn Store>, String> {
        match self {
            Self::Memory(memory) => Ok(Arc::new(memory.clone())),
            Self::Embedded { directory, open } => {
                let mut patience = 1000;
                while open.strong_count() > 0 && patience > 0 {
                    patience -= 1;
                    tokio::task::yield_now().await;
                }
                if open.strong_count() > 0 {
                    return Err("the store is still in use after its server has ended".to_owned());
                }
                let options = embedded::Options::default();
                let store = Embedded::open(directory.path(), options).map_err(|e| format!("open the store: {e}"))?;
                let store = Arc::new(store);
                *open = Arc::downgrade(&store);
                Ok(Arc::new(InStep(store)))
            }
        }
    }
}

/// A store whose every call is over when it returns.
struct InStep(Arc<Embedded>);

#[async_trait]
impl Store for InStep {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>> {
        wait(self.0.get(key))
    }
    async fn range(&self, range: Range) -> Result<Page> {
        wait(self.0.range(range))
    }
    async fn create(&self, key: Bytes, value: Bytes) -> Result<Revision> {
        wait(self.0.create(key, value))
    }
    async fn update(&self, key: Bytes, value: Bytes, expected: Revision) -> Result<Revision> {
        wait(self.0.update(key, value, expected))
    }
    async fn delete(&self, key: Bytes, expected: Revision) -> Result<Revision> {
        wait(self.0.delete(key, expected))
    }
    async fn watch(&self, span: Span, after: Revision) -> Result<WatchStream> {
        wait(self.0.watch(span, after))
    }
    async fn compact(&self, revision: Revision) -> Result<()> {
        wait(self.0.compact(revision))
    }
    async fn current_revision(&self) -> Result<Revision> {
        wait(self.0.current_revision())
    }
    async fn status(&self) -> Result<Status> {
        wait(self.0.status())
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until the future is done and lets this thread sleep between.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    // Tokio would have a busy task yield to others; here there are no others.
    let mut future = pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
