//! How many replicas a metric asks for (upstream's `ReplicaCalculator`). Pure. Values are in thousandths.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// A pod younger than this may use much only because it starts (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that was never ready within this time after its start has not become unready
/// (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// What was measured of one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    pub value: i64,
    pub timestamp: Timestamp,
    pub window: SignedDuration,
}

pub type Measures = BTreeMap<String, Measure>;

/// How far from the target a metric may be without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn within(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The target's pods and the moment they are looked at.
pub struct Pods<'a> {
    pub pods: &'a [Value],
    pub now: Timestamp,
    /// The metric is cpu, which starting pods use more of than they will.
    pub cpu: bool,
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

fn ready(pod: &Value) -> Option<&Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Ready")
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

impl Pods<'_> {
    fn group(&self, measures: &Measures) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            let deleting = pod["metadata"].get("deletionTimestamp").is_some_and(|t| !t.is_null());
            let own = name(pod).to_owned();
            if deleting || phase == "Failed" {
                groups.ignored.insert(own);
            } else if phase == "Pending" {
                groups.unready.insert(own);
            } else if let Some(measure) = measures.get(&own) {
                if self.cpu && self.is_starting(pod, measure) {
                    groups.unready.insert(own);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(own);
            }
        }
        groups
    }

    fn is_starting(&self, pod: &Value, measure: &Measure) -> bool {
        let (Some(condition), Some(start)) = (ready(pod), time(&pod["status"]["startTime"])) else { return true };
        let changed = time(&condition["lastTransitionTime"]).unwrap_or_default();
        let unready = condition["status"] == "False";
        if start + CPU_INITIALIZATION > self.now {
            return unready || measure.timestamp < changed + measure.window;
        }
        unready && start + INITIAL_READINESS > changed
    }

    fn count_ready(&self) -> Result<usize, String> {
        if self.pods.is_empty() {
            let why = "no pods returned by selector while calculating replica count";
            return Err(format!("unable to calculate ready pods: {why}"));
        }
        let is_ready =
            |pod: &&Value| pod["status"]["phase"] == "Running" && ready(pod).is_some_and(|c| c["status"] == "True");
        Ok(self.pods.iter().filter(is_ready).count())
    }

    /// The replicas that `ratio` (of the use measured to the target) asks for, and what was measured of ready pods. A
    /// pod without a measure counts as what speaks against a change: `full` when shrinking, nothing when growing.
    fn by_ratio(
        &self,
        mut measures: Measures,
        current: i32,
        tolerances: Tolerances,
        ratio: impl Fn(&Measures) -> Result<f64, String>,
        full: impl Fn(&str) -> i64,
    ) -> Result<(i32, Measures), String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        let groups = self.group(&measures);
        measures.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
        if measures.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".into());
        }
        let measured = measures.clone();
        let first = ratio(&measures)?;
        let grows_with_unready = !groups.unready.is_empty() && first > 1.0;
        if !grows_with_unready && groups.missing.is_empty() {
            let wanted = if tolerances.within(first) { current } else { ceil(first * groups.ready as f64) };
            return Ok((wanted, measured));
        }
        let mut assume = |name: &String, value: i64| {
            let measure = Measure { value, timestamp: self.now, window: SignedDuration::ZERO };
            measures.insert(name.clone(), measure);
        };
        if first < 1.0 {
            groups.missing.iter().for_each(|name| assume(name, full(name)));
        } else if first > 1.0 {
            groups.missing.iter().for_each(|name| assume(name, 0));
        }
        if grows_with_unready {
            groups.unready.iter().for_each(|name| assume(name, 0));
        }
        let second = ratio(&measures)?;
        let turned = (first < 1.0 && second > 1.0) || (first > 1.0 && second < 1.0);
        if tolerances.within(second) || turned {
            return Ok((current, measured));
        }
        let wanted = ceil(second * measures.len() as f64);
        let against = (second < 1.0 && wanted > current) || (second > 1.0 && wanted < current);
        Ok((if against { current } else { wanted }, measured))
    }

    /// For an average value per pod; gives the average measured, too.
    pub fn by_average(
        &self,
        measures: Measures,
        current: i32,
        target: i64,
        tolerances: Tolerances,
    ) -> Result<(i32, i64), String> {
        let ratio = |measures: &Measures| Ok(average(measures) as f64 / target as f64);
        let (wanted, measured) = self.by_ratio(measures, current, tolerances, ratio, |_| target)?;
        Ok((wanted, average(&measured)))
    }

    /// For a share of what pods request; gives the percentage and the average measured, too.
    pub fn by_utilization(
        &self,
        measures: Measures,
        current: i32,
        target: i32,
        requests: &BTreeMap<String, i64>,
        tolerances: Tolerances,
    ) -> Result<(i32, i32, i64), String> {
        let percent = |measures: &Measures| utilization(measures, requests).map(|(percent, _)| percent);
        let ratio = |measures: &Measures| Ok(f64::from(percent(measures)?) / f64::from(target));
        let full = |name: &str| requests.get(name).copied().unwrap_or_default() * i64::from(target.max(100)) / 100;
        let (wanted, measured) = self.by_ratio(measures, current, tolerances, ratio, full)?;
        let (percent, average) = utilization(&measured, requests)?;
        Ok((wanted, percent, average))
    }

    /// For a value that all pods together bring about.
    pub fn by_value(&self, current: i32, usage: i64, target: i64, tolerances: Tolerances) -> Result<i32, String> {
        let ratio = usage as f64 / target as f64;
        if current == 0 {
            return Ok(ceil(ratio));
        }
        if tolerances.within(ratio) {
            return Ok(current);
        }
        Ok(ceil(ratio * self.count_ready()? as f64))
    }
}

/// For a value that is divided among the pods there are; gives its share per pod, too.
pub fn by_share(replicas: i32, usage: i64, target: i64, tolerances: Tolerances) -> (i32, i64) {
    let ratio = usage as f64 / (target as f64 * f64::from(replicas));
    let wanted = if tolerances.within(ratio) { replicas } else { ceil(usage as f64 / target as f64) };
    (wanted, (usage as f64 / f64::from(replicas)).ceil() as i64)
}

fn ceil(value: f64) -> i32 {
    // Saturates.
    value.ceil() as i32
}

fn average(measures: &Measures) -> i64 {
    let total: i64 = measures.values().map(|m| m.value).fold(0, i64::saturating_add);
    total / i64::try_from(measures.len().max(1)).unwrap_or(1)
}

fn utilization(measures: &Measures, requests: &BTreeMap<String, i64>) -> Result<(i32, i64), String> {
    let known = measures.iter().filter_map(|(name, m)| Some((m.value, *requests.get(name)?)));
    let (mut used, mut requested, mut count) = (0i64, 0i64, 0i64);
    for (value, request) in known {
        (used, requested, count) = (used + value, requested + request, count + 1);
    }
    if requested == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    Ok((i32::try_from(used * 100 / requested).unwrap_or(i32::MAX), used / count))
}

/// What each pod requests of a resource, or one of its containers (`calculateRequests`).
pub fn requests(pods: &[Value], container: &str, resource: &str) -> Result<BTreeMap<String, i64>, String> {
    let amount = |list: &Value| Some(Quantity::parse(list["requests"][resource].as_str()?).ok()?.milli_value());
    let mut requests = BTreeMap::new();
    for pod in pods {
        let (own, spec) = (name(pod), &pod["spec"]);
        let by_pod = container.is_empty() && spec["resources"]["requests"].as_object().is_some_and(|r| !r.is_empty());
        if by_pod {
            let missing = || format!("missing pod-level request for {resource} in Pod {own}");
            requests.insert(own.to_owned(), amount(&spec["resources"]).ok_or_else(missing)?);
            continue;
        }
        let main = spec["containers"].as_array().into_iter().flatten();
        let sidecars = spec["initContainers"].as_array().into_iter().flatten();
        let all = main.chain(sidecars.filter(|c| c["restartPolicy"] == "Always"));
        let counted: Vec<&Value> = all.filter(|c| container.is_empty() || c["name"] == container).collect();
        if counted.is_empty() && !container.is_empty() {
            return Err(format!("container {container} not found in Pod {own}"));
        }
        let mut total = 0;
        for one in counted {
            let of = one["name"].as_str().unwrap_or_default();
            let missing = || format!("missing request for {resource} in container {of} of Pod {own}");
            total += amount(&one["resources"]).ok_or_else(missing)?;
        }
        requests.insert(own.to_owned(), total);
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TOLERANCES: Tolerances = Tolerances { down: 0.1, up: 0.1 };

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    /// `VALUE`, `VALUE starting`, `none` (no measure), `pending`, `failed`.
    fn pods(texts: &[&str]) -> (Vec<Value>, Measures) {
        let (mut pods, mut measures) = (Vec::new(), Measures::new());
        for (number, text) in texts.iter().enumerate() {
            let name = format!("p{number}");
            let words: Vec<&str> = text.split_whitespace().collect();
            let phase = match words[0] {
                "pending" => "Pending",
                "failed" => "Failed",
                _ => "Running",
            };
            let starting = words.contains(&"starting");
            let start = if starting { "2026-01-01T11:59:00Z" } else { "2026-01-01T11:00:00Z" };
            let status = if starting { "False" } else { "True" };
            let condition = json!({"type": "Ready", "status": status, "lastTransitionTime": start});
            let container = json!({"name": "c", "resources": {"requests": {"cpu": "1"}}});
            pods.push(json!({
                "metadata": {"name": name}, "spec": {"containers": [container]},
                "status": {"phase": phase, "startTime": start, "conditions": [condition]},
            }));
            if let Ok(value) = words[0].parse() {
                measures.insert(name, Measure { value, timestamp: now(), window: SignedDuration::from_secs(60) });
            }
        }
        (pods, measures)
    }

    fn check(texts: &[&str], target: i32, expected: Result<(i32, i32), &str>) {
        let (pods, measures) = pods(texts);
        let requests = requests(&pods, "", "cpu").unwrap();
        let looked = Pods { pods: &pods, now: now(), cpu: true };
        let current = i32::try_from(texts.len()).unwrap();
        let found = looked.by_utilization(measures, current, target, &requests, TOLERANCES);
        let found = found.map(|(wanted, percent, _)| (wanted, percent));
        assert_eq!(found, expected.map_err(str::to_owned), "{texts:?}");
    }

    #[test]
    fn utilization_asks_for_replicas() {
        check(&["500", "500", "500"], 30, Ok((5, 50)));
        check(&["300", "310", "320"], 30, Ok((3, 31)));
        check(&["100", "100", "100", "100"], 50, Ok((1, 10)));
        // Growing: pods that start or wait count as using nothing.
        check(&["900", "900", "900 starting"], 50, Ok((4, 90)));
        check(&["900", "900", "pending"], 50, Ok((4, 90)));
        check(&["600", "600", "pending", "pending"], 50, Ok((4, 60)));
        // Shrinking: pods without a measure count as using all they request.
        check(&["100", "100", "none", "none"], 50, Ok((4, 10)));
        check(&["100", "100", "100", "none"], 50, Ok((3, 10)));
        check(&["100", "failed"], 10, Ok((2, 10)));
        check(&["pending"], 50, Err("did not receive metrics for targeted pods (pods might be unready)"));
    }

    #[test]
    fn values_and_shares() {
        let (pods, measures) = pods(&["20000", "10000", "30000"]);
        let looked = Pods { pods: &pods, now: now(), cpu: false };
        assert_eq!(looked.by_average(measures, 3, 15_000, TOLERANCES), Ok((4, 20_000)));
        assert_eq!(looked.by_value(3, 33_000, 20_000, TOLERANCES), Ok(5));
        assert_eq!(looked.by_value(3, 21_000, 20_000, TOLERANCES), Ok(3));
        assert_eq!(looked.by_value(0, 33_000, 20_000, TOLERANCES), Ok(2));
        assert_eq!(by_share(3, 8_600, 2_000, TOLERANCES), (5, 2_867));
        assert_eq!(by_share(4, 8_600, 2_000, TOLERANCES), (4, 2_150));
    }

    #[test]
    fn requests_must_be_there() {
        let (mut pods, _) = pods(&["1"]);
        assert_eq!(requests(&pods, "", "memory"), Err("missing request for memory in container c of Pod p0".into()));
        assert_eq!(requests(&pods, "x", "cpu"), Err("container x not found in Pod p0".into()));
        pods[0]["spec"]["resources"] = json!({"requests": {"cpu": "3"}});
        assert_eq!(requests(&pods, "", "cpu").unwrap()["p0"], 3000);
        assert_eq!(requests(&pods, "c", "cpu").unwrap()["p0"], 1000);
    }
}
