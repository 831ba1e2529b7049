//! `/stats/summary`: what the node and its pods use, read when asked for.
//!
//! A rate of CPU use needs two readings: it is told from the second request on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    answer::{self, Answer},
    handler::Handler,
};
use crate::{
    cgroup::{Usage, usage},
    pod::PodView,
};

/// Readings closer together keep the rate told before: the counters' grain would show.
const APART: SignedDuration = SignedDuration::from_secs(1);

/// The last reading per cgroup, with the rate it gave.
#[derive(Clone, Default)]
pub struct Rates(Arc<Mutex<HashMap<String, Reading>>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Timestamp,
    cpu_ns: u64,
    /// Nanoseconds of CPU per second.
    rate: Option<u64>,
}

impl Rates {
    /// One round of readings: what is not read in it is forgotten.
    fn round(&self) -> Round<'_> {
        Round { last: self.0.lock().unwrap_or_else(PoisonError::into_inner), fresh: HashMap::new() }
    }
}

struct Round<'a> {
    last: std::sync::MutexGuard<'a, HashMap<String, Reading>>,
    fresh: HashMap<String, Reading>,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        *self.last = std::mem::take(&mut self.fresh);
    }
}

impl Round<'_> {
    fn rate(&mut self, name: &str, cpu_ns: u64, at: Timestamp) -> Option<u64> {
        let reading = match self.last.get(name) {
            Some(last) if at.duration_since(last.at) < APART => *last,
            Some(last) => {
                let nanoseconds = at.duration_since(last.at).as_nanos();
                let used = u128::from(cpu_ns.saturating_sub(last.cpu_ns));
                let rate = used.saturating_mul(1_000_000_000) / nanoseconds.unsigned_abs().max(1);
                Reading { at, cpu_ns, rate: u64::try_from(rate).ok() }
            }
            None => Reading { at, cpu_ns, rate: None },
        };
        self.fresh.insert(name.to_owned(), reading);
        reading.rate
    }
}

pub fn summary(handler: &Handler) -> Answer {
    let now = Timestamp::now();
    let mut round = handler.rates.round();
    let mut pods = handler.shared.views.list();
    pods.sort_by(|a, b| a.id.cmp(&b.id));
    let pods = pods.iter().map(|view| pod(handler, view, &mut round, now)).collect::<Vec<_>>();
    let mut node = json!({"nodeName": handler.shared.node_name, "startTime": started_at(now).to_string()});
    if let (Some(usage), Some(node)) = (usage::machine(), node.as_object_mut()) {
        put_usage(node, "/", &usage, memory_total(), &mut round, now);
    }
    answer::json(&json!({"node": node, "pods": pods}))
}

fn pod(handler: &Handler, view: &PodView, round: &mut Round<'_>, now: Timestamp) -> Value {
    let cgroups = &handler.shared.cgroups;
    let mut containers = Vec::new();
    let mut cgroup = None;
    for (name, container) in view.containers.iter().filter(|(_, container)| container.pid.is_some()) {
        let mut object = Map::new();
        object.insert("name".into(), name.as_str().into());
        if let Some(at) = container.started_at {
            object.insert("startTime".into(), at.to_string().into());
        }
        if let Some(usage) = cgroups.usage(&container.cgroup) {
            put_usage(&mut object, &container.cgroup, &usage, None, round, now);
        }
        containers.push(Value::Object(object));
        cgroup = container.cgroup.rsplit_once('/').map(|(pod, _)| pod.to_owned());
    }
    let mut object = Map::new();
    let id = &view.id;
    object.insert("podRef".into(), json!({"name": id.name, "namespace": id.namespace, "uid": id.uid}));
    if let Some(at) = &view.status.start_time {
        object.insert("startTime".into(), at.0.to_string().into());
    }
    object.insert("containers".into(), containers.into());
    if let Some(cgroup) = cgroup
        && let Some(usage) = cgroups.usage(&cgroup)
    {
        put_usage(&mut object, &cgroup, &usage, None, round, now);
    }
    Value::Object(object)
}

fn put_usage(
    object: &mut Map<String, Value>,
    name: &str,
    usage: &Usage,
    memory_total: Option<u64>,
    round: &mut Round<'_>,
    now: Timestamp,
) {
    let time = now.to_string();
    let mut cpu = json!({"time": time, "usageCoreNanoSeconds": usage.cpu_ns});
    if let Some(rate) = round.rate(name, usage.cpu_ns, now) {
        cpu["usageNanoCores"] = rate.into();
    }
    let mut memory = json!({
        "time": time,
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    if let Some(total) = memory_total {
        memory["availableBytes"] = total.saturating_sub(usage.working_set_bytes).into();
    }
    object.insert("cpu".into(), cpu);
    object.insert("memory".into(), memory);
}

/// When the machine started.
fn started_at(now: Timestamp) -> Timestamp {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split('.').next().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    now - SignedDuration::from_secs(seconds)
}

fn memory_total() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::Rates;

    #[test]
    fn a_rate_comes_with_the_second_reading_and_is_kept_for_a_while() {
        let rates = Rates::default();
        let at = |ms: i64| Timestamp::UNIX_EPOCH + SignedDuration::from_millis(ms);
        assert_eq!(rates.round().rate("a", 0, at(0)), None);
        assert_eq!(rates.round().rate("a", 1_000_000_000, at(2000)), Some(500_000_000));
        assert_eq!(rates.round().rate("a", 1_000_000_001, at(2010)), Some(500_000_000));
        // A cgroup that was not read in a round is forgotten.
        drop(rates.round());
        assert_eq!(rates.round().rate("a", 0, at(9000)), None);
    }
}
