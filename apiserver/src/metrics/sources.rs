//! Metrics that other parts of the process keep. They are asked when somebody reads `/metrics`; the server knows
//! nothing of them but their text.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::text::Text;

type Source = Box<dyn Fn() -> String + Send + Sync>;

/// Sources of metrics in Prometheus' text format. Clones are the same list.
#[derive(Clone, Default)]
pub struct Sources(Arc<Mutex<Vec<Source>>>);

impl Sources {
    /// Adds a source. What it gives is complete lines, its families its own.
    pub fn add(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    pub(super) fn write(&self, text: &mut Text) {
        for source in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text.lines(&source());
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}
