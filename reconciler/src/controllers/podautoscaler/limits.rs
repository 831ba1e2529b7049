//! From the replicas that metrics ask for to those the target gets: stabilization over time, rates of change, and the
//! bounds of the autoscaler. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// The highest recommendation of this time counts when shrinking
/// (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWNSCALE_STABILIZATION_SECONDS: i32 = 300;

/// What is remembered of an autoscaler, in this process.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

/// One decision's circumstances.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    pub current: i32,
    pub min: i32,
    pub max: i32,
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    pub now: Timestamp,
}

/// The outcome, with what the conditions `AbleToScale` and `ScalingLimited` say: reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub replicas: i32,
    pub able: (&'static str, &'static str),
    pub limited: bool,
    pub limit: (&'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

fn ago(now: Timestamp, seconds: i32) -> Timestamp {
    now - SignedDuration::from_secs(i64::from(seconds))
}

fn within(list: &[(Timestamp, i32)], from: Timestamp) -> impl Iterator<Item = i32> {
    list.iter().filter(move |(time, _)| *time > from).map(|(_, value)| *value)
}

impl Memory {
    /// What the target has when the autoscaler first sees it counts as recommended.
    pub fn first_look(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Turns a recommendation into a decision, and remembers it.
    pub fn decide(&mut self, wanted: i32, bounds: &Bounds) -> Decision {
        let (stable, stabilized) = self.stabilize(wanted, bounds);
        let able = if stable == wanted { READY } else { stabilized };
        let (replicas, limit) = match bounds.behavior {
            None => plain_limits(stable, bounds),
            Some(behavior) => self.rate_limits(stable, behavior, bounds),
        };
        Decision { replicas, able, limited: replicas != stable, limit }
    }

    fn stabilize(&mut self, wanted: i32, bounds: &Bounds) -> (i32, (&'static str, &'static str)) {
        let now = bounds.now;
        let window = |rules: Option<&HPAScalingRules>| rules.and_then(|r| r.stabilization_window_seconds);
        let up = window(bounds.behavior.and_then(|b| b.scale_up.as_ref())).unwrap_or_default();
        let down = window(bounds.behavior.and_then(|b| b.scale_down.as_ref()));
        let down = down.unwrap_or(DOWNSCALE_STABILIZATION_SECONDS);
        let highest = within(&self.recommendations, ago(now, down)).fold(wanted, i32::max);
        let lowest = within(&self.recommendations, ago(now, up)).fold(wanted, i32::min);
        self.recommendations.retain(|(time, _)| *time > ago(now, up.max(down)));
        self.recommendations.push((now, wanted));
        if bounds.behavior.is_none() {
            return (highest, DOWN_STABILIZED);
        }
        let stable = bounds.current.max(lowest).min(highest);
        (stable, if wanted >= bounds.current { UP_STABILIZED } else { DOWN_STABILIZED })
    }

    fn rate_limits(
        &self,
        wanted: i32,
        behavior: &HorizontalPodAutoscalerBehavior,
        bounds: &Bounds,
    ) -> (i32, (&'static str, &'static str)) {
        let current = bounds.current;
        if wanted > current {
            let limit = self.limit(behavior.scale_up.as_ref(), true, bounds).max(current);
            let (most, why) = if bounds.max > limit { (limit, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
            if wanted > most {
                return (most, why);
            }
        } else if wanted < current {
            let limit = self.limit(behavior.scale_down.as_ref(), false, bounds).min(current);
            let (least, why) = if bounds.min < limit { (limit, DOWN_LIMIT) } else { (bounds.min, TOO_FEW) };
            if wanted < least {
                return (least, why);
            }
        }
        (wanted, WITHIN)
    }

    /// How far the policies let the count go (`calculateScaleUpLimitWithScalingRules` and its like).
    fn limit(&self, rules: Option<&HPAScalingRules>, up: bool, bounds: &Bounds) -> i32 {
        let select = rules.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return bounds.current;
        }
        let proposals = rules.and_then(|r| r.policies.as_deref()).unwrap_or_default().iter().map(|policy| {
            let from = ago(bounds.now, policy.period_seconds);
            let added: i32 = within(&self.ups, from).sum();
            let removed: i32 = within(&self.downs, from).sum();
            let start = bounds.current - added + removed;
            let share = f64::from(start) * f64::from(policy.value) / 100.0;
            match (policy.type_.as_str(), up) {
                ("Percent", true) => (f64::from(start) + share).ceil() as i32,
                ("Percent", false) => (f64::from(start) - share) as i32,
                (_, true) => start.saturating_add(policy.value),
                (_, false) => start - policy.value,
            }
        });
        // The largest change is the highest count when growing and the lowest when shrinking.
        let limit = if up == (select != "Min") { proposals.max() } else { proposals.min() };
        limit.unwrap_or(if up { i32::MAX } else { i32::MIN })
    }

    /// Remembers a change that was made.
    pub fn scaled(&mut self, from: i32, to: i32, behavior: Option<&HorizontalPodAutoscalerBehavior>, now: Timestamp) {
        let Some(behavior) = behavior else { return };
        let longest = |rules: &Option<HPAScalingRules>| {
            let policies = rules.as_ref().and_then(|r| r.policies.as_deref()).unwrap_or_default();
            policies.iter().map(|p| p.period_seconds).max().unwrap_or_default()
        };
        let keep = longest(&behavior.scale_up).max(longest(&behavior.scale_down));
        let list = if to > from { &mut self.ups } else { &mut self.downs };
        list.retain(|(time, _)| *time > ago(now, keep));
        list.push((now, (to - from).abs()));
    }
}

/// Without a behavior: at most doubling, or four (`convertDesiredReplicasWithRules`).
fn plain_limits(wanted: i32, bounds: &Bounds) -> (i32, (&'static str, &'static str)) {
    let rate = bounds.current.saturating_mul(2).max(4);
    let (most, why) = if bounds.max > rate { (rate, UP_LIMIT) } else { (bounds.max, TOO_MANY) };
    match wanted {
        _ if wanted < bounds.min => (bounds.min, TOO_FEW),
        _ if wanted > most => (most, why),
        _ => (wanted, WITHIN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    /// Recommendations `(second, wanted)` one after the other; each decision is carried out.
    fn check(behavior: Value, current: i32, steps: &[(i64, i32, i32, &str)]) {
        let behavior: Option<HorizontalPodAutoscalerBehavior> = serde_json::from_value(behavior).unwrap();
        let (mut memory, mut current) = (Memory::default(), current);
        for (second, wanted, expected, reason) in steps {
            let now = at(*second);
            let bounds = Bounds { current, min: 1, max: 20, behavior: behavior.as_ref(), now };
            let decision = memory.decide(*wanted, &bounds);
            let why = if decision.limited { decision.limit.0 } else { decision.able.0 };
            assert_eq!((decision.replicas, why), (*expected, *reason), "at {second}");
            if decision.replicas != current {
                memory.scaled(current, decision.replicas, behavior.as_ref(), now);
                current = decision.replicas;
            }
        }
    }

    #[test]
    fn without_a_behavior() {
        check(
            json!(null),
            3,
            &[
                (0, 10, 6, "ScaleUpLimit"),
                (15, 10, 10, "ReadyForNewScale"),
                (30, 50, 20, "TooManyReplicas"),
                // The highest recommendation of five minutes stands.
                (60, 4, 20, "TooManyReplicas"),
                (340, 4, 4, "ReadyForNewScale"),
                (700, 0, 1, "TooFewReplicas"),
            ],
        );
    }

    #[test]
    fn rates_and_windows() {
        let up = json!({
            "stabilizationWindowSeconds": 0, "selectPolicy": "Min",
            "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 100, "periodSeconds": 60}],
        });
        let down = json!({
            "stabilizationWindowSeconds": 30, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        });
        check(
            json!({"scaleUp": up, "scaleDown": down}),
            2,
            &[
                (0, 9, 4, "ScaleUpLimit"),
                // Two a minute, and they have been had.
                (30, 9, 4, "ScaleUpLimit"),
                (61, 9, 6, "ScaleUpLimit"),
                (80, 1, 6, "ScaleDownStabilized"),
                // One below what there was a minute ago, before two were added.
                (95, 1, 3, "ScaleDownLimit"),
                (130, 1, 3, "ScaleDownLimit"),
                (160, 1, 2, "ScaleDownLimit"),
            ],
        );
    }

    #[test]
    fn a_disabled_direction_stays() {
        let rules = json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled", "policies": []});
        check(
            json!({"scaleUp": rules, "scaleDown": rules}),
            5,
            &[(0, 2, 5, "ScaleDownLimit"), (9, 8, 5, "ScaleUpLimit")],
        );
    }
}
