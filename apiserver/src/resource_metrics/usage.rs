//! What nodes say of their use (the kubelet's `/stats/summary`), and the rates between two such answers. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// A container that started between two looks counts from its start, once it has run this long.
const FRESH_FOR: SignedDuration = SignedDuration::from_millis(500);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Summary {
    node: NodeStats,
    pods: Vec<PodStats>,
}

/// Its start is told by its clock and wanders with it, so it is not read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStats {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStats {
    pod_ref: PodRef,
    containers: Vec<ContainerStats>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
struct PodRef {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStats {
    name: String,
    start_time: Option<Timestamp>,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Cpu {
    time: Timestamp,
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Memory {
    working_set_bytes: Option<u64>,
}

/// Counters at one moment, by the node's clock.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Timestamp,
    started: Option<Timestamp>,
    cpu_ns: u64,
    memory_bytes: u64,
}

impl Reading {
    fn of(started: Option<Timestamp>, cpu: Option<&Cpu>, memory: Option<&Memory>) -> Option<Self> {
        let (cpu, memory) = (cpu?, memory?);
        Some(Self {
            at: cpu.time,
            started,
            cpu_ns: cpu.usage_core_nano_seconds?,
            memory_bytes: memory.working_set_bytes?,
        })
    }

    /// The use since `older`; since its own start for what is younger than that. `None` when it can't be told yet.
    fn since(&self, older: Option<&Self>) -> Option<Measured> {
        let same = |older: &&Self| older.cpu_ns <= self.cpu_ns && older.started == self.started;
        let (from, before) = match older.filter(same) {
            Some(older) => (older.at, older.cpu_ns),
            None => (self.started.filter(|started| self.at.duration_since(*started) >= FRESH_FOR)?, 0),
        };
        let window = self.at.duration_since(from);
        let nanoseconds = u128::try_from(window.as_nanos()).ok().filter(|ns| *ns > 0)?;
        let nanocores = u128::from(self.cpu_ns - before) * 1_000_000_000 / nanoseconds;
        let nanocores = u64::try_from(nanocores).unwrap_or(u64::MAX);
        Some(Measured { at: self.at, window, nanocores, memory_bytes: self.memory_bytes })
    }
}

/// One answer of a node.
#[derive(Debug, Default)]
pub struct Sample {
    node: Option<Reading>,
    /// By namespace and name.
    pods: HashMap<(String, String), Pod>,
}

#[derive(Debug)]
struct Pod {
    uid: String,
    containers: Vec<(String, Option<Reading>)>,
}

impl From<Summary> for Sample {
    fn from(summary: Summary) -> Self {
        let NodeStats { cpu, memory } = summary.node;
        let pods = summary.pods.into_iter().map(|pod| {
            let reading = |c: &ContainerStats| Reading::of(c.start_time, c.cpu.as_ref(), c.memory.as_ref());
            let containers = pod.containers.into_iter().map(|c| (c.name.clone(), reading(&c))).collect();
            let PodRef { namespace, name, uid } = pod.pod_ref;
            ((namespace, name), Pod { uid, containers })
        });
        Self { node: Reading::of(None, cpu.as_ref(), memory.as_ref()), pods: pods.collect() }
    }
}

/// Two answers of a node, and what was used between them.
#[derive(Clone, Debug)]
pub struct Window {
    pub older: Arc<Sample>,
    pub newer: Arc<Sample>,
}

impl Window {
    pub fn node(&self) -> Option<Measured> {
        self.newer.node?.since(self.older.node.as_ref())
    }

    /// A pod's containers. `None` unless all are known: a sum without one would mislead.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Vec<(&str, Measured)>> {
        let key = (namespace.to_owned(), name.to_owned());
        let pod = self.newer.pods.get(&key).filter(|pod| !pod.containers.is_empty())?;
        let before = self.older.pods.get(&key).filter(|before| before.uid == pod.uid);
        let older = |name: &str| before?.containers.iter().find(|(n, _)| n == name)?.1.as_ref();
        pod.containers.iter().map(|(name, reading)| Some((name.as_str(), (*reading)?.since(older(name))?))).collect()
    }
}

/// The use of one node or container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub at: Timestamp,
    pub window: SignedDuration,
    nanocores: u64,
    memory_bytes: u64,
}

impl Measured {
    /// As a list of resources, in the units of upstream's metrics-server.
    pub fn usage(&self) -> Value {
        json!({"cpu": format!("{}n", self.nanocores), "memory": format!("{}Ki", self.memory_bytes / 1024)})
    }

    /// In the form of Go's durations.
    pub fn window_text(&self) -> String {
        format!("{:.3}s", self.window.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// Containers as `name cpu_ms started`, looked at after so many seconds.
    fn sample(second: i64, uid: &str, containers: &[(&str, u64, i64)]) -> Arc<Sample> {
        let time = |second: i64| (Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)).to_string();
        let stats = |cpu_ms: u64| {
            json!({
                "cpu": {"time": time(second), "usageCoreNanoSeconds": cpu_ms * 1_000_000},
                "memory": {"time": time(second), "workingSetBytes": 4 << 20},
            })
        };
        let container = |(name, cpu_ms, started): &(&str, u64, i64)| {
            let mut container = stats(*cpu_ms);
            container["name"] = (*name).into();
            container["startTime"] = time(*started).into();
            container
        };
        let mut node = stats(1000 * u64::try_from(second).unwrap());
        node["nodeName"] = "n1".into();
        let containers: Vec<Value> = containers.iter().map(container).collect();
        let pod = json!({"podRef": {"namespace": "a", "name": "p", "uid": uid}, "containers": containers});
        let summary: Summary = serde_json::from_value(json!({"node": node, "pods": [pod]})).unwrap();
        Arc::new(summary.into())
    }

    fn check(older: &Arc<Sample>, newer: &Arc<Sample>, expected: Expect) {
        let window = Window { older: older.clone(), newer: newer.clone() };
        let shown = match window.pod("a", "p") {
            None => "unknown".to_owned(),
            Some(containers) => containers
                .iter()
                .map(|(name, m)| format!("{name} {} {} in {}", m.usage()["cpu"], m.usage()["memory"], m.window_text()))
                .collect::<Vec<_>>()
                .join("; "),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn rates_are_taken_between_two_answers() {
        let older = sample(100, "u", &[("c", 2000, 50), ("d", 10, 50)]);
        let newer = sample(110, "u", &[("c", 7000, 50), ("d", 10, 50)]);
        check(&older, &newer, expect![[r#"c "500000000n" "4096Ki" in 10.000s; d "0n" "4096Ki" in 10.000s"#]]);
        let node = Window { older: older.clone(), newer: newer.clone() }.node().unwrap();
        assert_eq!(node.usage()["cpu"], "1000000000n");
        check(&newer, &newer, expect!["unknown"]);
        let gone = Window { older, newer }.pod("a", "other").is_none();
        assert!(gone);
    }

    #[test]
    fn what_started_in_between_counts_from_its_start() {
        let older = sample(100, "u", &[("c", 9000, 50)]);
        let restarted = sample(110, "u", &[("c", 1000, 108)]);
        check(&older, &restarted, expect![[r#"c "500000000n" "4096Ki" in 2.000s"#]]);
        let just_now = sample(110, "u", &[("c", 1000, 110)]);
        check(&older, &just_now, expect!["unknown"]);
        // Another pod of the name.
        let other = sample(110, "v", &[("c", 9500, 50)]);
        check(&older, &other, expect![[r#"c "158333333n" "4096Ki" in 60.000s"#]]);
    }
}
