//! Exponential backoff with jitter, as a value: the caller supplies randomness and does the waiting.

use std::time::Duration;

/// Delays that double from `base` to `cap`, each multiplied by 0.5 to 1.5.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// The next delay; `random` is uniform in 0..1.
    pub fn next(&mut self, random: f64) -> Duration {
        let doubled = self.base.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX).max(1));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.cap).mul_f64(0.5 + random.clamp(0.0, 1.0))
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<u128> = (0..6).map(|_| backoff.next(0.5).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 50);
        for _ in 0..100 {
            assert!(backoff.next(1.0) <= Duration::from_millis(1500));
        }
    }
}
