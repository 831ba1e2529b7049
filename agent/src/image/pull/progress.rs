//! How far a pull is, for those who wait for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    layers: AtomicUsize,
    layers_done: AtomicUsize,
}

impl Progress {
    pub(super) fn expect(&self, bytes: u64, layers: usize) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
        self.layers.store(layers, Ordering::Relaxed);
        self.done_bytes.store(0, Ordering::Relaxed);
        self.layers_done.store(0, Ordering::Relaxed);
    }
    pub(super) fn add(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    /// What was fetched has to be fetched again.
    pub(super) fn take_back(&self, bytes: u64) {
        self.done_bytes.fetch_sub(bytes.min(self.done_bytes()), Ordering::Relaxed);
    }
    pub(super) fn layer_done(&self) {
        self.layers_done.fetch_add(1, Ordering::Relaxed);
    }
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (total, done) = (self.total_bytes.load(Ordering::Relaxed), self.done_bytes());
        let (layers, layers_done) = (self.layers.load(Ordering::Relaxed), self.layers_done.load(Ordering::Relaxed));
        if total == 0 {
            return write!(f, "waiting for the registry");
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let percent = done.min(total) * 100 / total;
        write!(f, "{:.1} of {:.1} MiB ({percent}%), {layers_done} of {layers} layers", mib(done.min(total)), mib(total))
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn progress_reads_as_a_sentence() {
        let progress = Progress::default();
        assert_eq!(progress.to_string(), "waiting for the registry");
        progress.expect(10 << 20, 3);
        progress.add(4 << 20);
        progress.layer_done();
        assert_eq!(progress.to_string(), "4.0 of 10.0 MiB (40%), 1 of 3 layers");
        progress.take_back(8 << 20);
        assert_eq!(progress.done_bytes(), 0);
    }
}
