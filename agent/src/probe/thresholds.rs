//! When to probe, and when a streak means something. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use super::Kind;

/// First pause of a readiness probe that has not passed yet; doubled up to the period. A container that starts in
/// 50 ms should not be unready for ten seconds because it was asked once too early.
const EAGER_PAUSE: Duration = Duration::from_millis(50);

/// A probe's numbers, with upstream's defaults (`SetDefaults_Probe`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Timing {
    pub fn of(probe: &Probe) -> Self {
        let number = |given: Option<i32>, default: u32| {
            given.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default)
        };
        let seconds = |given, default| Duration::from_secs(number(given, default).into());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: number(probe.success_threshold, 1),
            failure_threshold: number(probe.failure_threshold, 3),
        }
    }
}

/// The present streak.
#[derive(Debug, Default)]
pub struct Counts {
    passing: bool,
    streak: u32,
    attempts: u32,
    has_passed: bool,
}

impl Counts {
    /// Counts one outcome; `Some` when the streak just reached its threshold.
    pub fn count(&mut self, passed: bool, timing: &Timing) -> Option<bool> {
        self.attempts = self.attempts.saturating_add(1);
        if passed != self.passing || self.streak == 0 {
            self.passing = passed;
            self.streak = 0;
        }
        self.streak = self.streak.saturating_add(1);
        self.has_passed |= passed;
        let threshold = if passed { timing.success_threshold } else { timing.failure_threshold };
        (self.streak == threshold).then_some(passed)
    }

    /// How long to wait before the next attempt.
    pub fn pause(&self, kind: Kind, timing: &Timing) -> Duration {
        if kind != Kind::Readiness || self.has_passed {
            return timing.period;
        }
        EAGER_PAUSE.saturating_mul(1 << self.attempts.saturating_sub(1).min(16)).min(timing.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streak_is_reported_once_when_it_reaches_its_threshold() {
        let timing = Timing { success_threshold: 2, failure_threshold: 3, ..Timing::of(&Probe::default()) };
        let mut counts = Counts::default();
        let outcomes = [true, true, true, false, false, true, false, false, false, false];
        let verdicts: Vec<Option<bool>> = outcomes.iter().map(|passed| counts.count(*passed, &timing)).collect();
        let expected = [None, Some(true), None, None, None, None, None, None, Some(false), None];
        assert_eq!(verdicts, expected);
    }

    #[test]
    fn only_a_readiness_probe_that_never_passed_is_eager() {
        let timing = Timing::of(&Probe::default());
        let mut counts = Counts::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            counts.count(false, &timing);
            pauses.push(counts.pause(Kind::Readiness, &timing).as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
        assert_eq!(counts.pause(Kind::Startup, &timing), timing.period);
        counts.count(true, &timing);
        assert_eq!(counts.pause(Kind::Readiness, &timing), timing.period);
    }
}
