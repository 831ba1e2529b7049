//! Counts and durations of requests. A series is found by a lock and a hash, then counted with atomics.
//!
//! Invariant: labels come from the catalogue and fixed lists, never from what a client makes up, so the number of series
//! is bounded whatever is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use api::catalogue::Catalogue;

use super::text::Text;
use crate::request::RequestInfo;

/// Upper bounds in seconds, upstream's.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Far more than rows times verbs times codes in use; beyond it new series are not counted.
const SERIES_MAX: usize = 20_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Labels {
    verb: &'static str,
    group: Box<str>,
    version: Box<str>,
    resource: Box<str>,
    subresource: Box<str>,
    scope: &'static str,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

impl Histogram {
    fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub struct Requests {
    durations: RwLock<HashMap<Labels, Arc<Histogram>>>,
    counts: RwLock<HashMap<(Labels, u16), Arc<AtomicU64>>>,
    /// Reading and changing requests under way; watches and streams are not among them.
    in_flight: [AtomicI64; 2],
}

/// A request under way, counted until it is dropped.
pub struct InFlight<'r>(Option<&'r AtomicI64>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.0 {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Requests {
    pub fn begin(&self, info: &RequestInfo) -> InFlight<'_> {
        if long_running(info) {
            return InFlight(None);
        }
        let changes = matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        let counter = &self.in_flight[usize::from(changes)];
        counter.fetch_add(1, Ordering::Relaxed);
        InFlight(Some(counter))
    }

    /// Counts an answered request.
    pub fn observe(&self, catalogue: &Catalogue, info: &RequestInfo, code: u16, took: Duration) {
        let labels = labels(catalogue, info);
        if !long_running(info)
            && let Some(histogram) = series(&self.durations, &labels)
        {
            histogram.observe(took);
        }
        if let Some(count) = series(&self.counts, &(labels, code)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn write(&self, text: &mut Text) {
        let name = "apiserver_request_total";
        text.family(
            name,
            "counter",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        for ((labels, code), count) in &*self.counts.read().unwrap_or_else(PoisonError::into_inner) {
            let code = code.to_string();
            let mut all = labels.list();
            all.push(("code", &code));
            text.sample(name, &all, count.load(Ordering::Relaxed) as f64);
        }
        let name = "apiserver_request_duration_seconds";
        text.family(
            name,
            "histogram",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        for (labels, histogram) in &*self.durations.read().unwrap_or_else(PoisonError::into_inner) {
            write_histogram(text, name, &labels.list(), histogram);
        }
        let name = "apiserver_current_inflight_requests";
        text.family(name, "gauge", "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.");
        for (kind, counter) in ["readOnly", "mutating"].iter().zip(&self.in_flight) {
            text.sample(name, &[("request_kind", kind)], counter.load(Ordering::Relaxed) as f64);
        }
    }
}

impl Labels {
    fn list(&self) -> Vec<(&str, &str)> {
        vec![
            ("component", "apiserver"),
            ("dry_run", ""),
            ("group", &self.group),
            ("resource", &self.resource),
            ("scope", self.scope),
            ("subresource", &self.subresource),
            ("verb", self.verb),
            ("version", &self.version),
        ]
    }
}

fn write_histogram(text: &mut Text, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
    let bucket_name = format!("{name}_bucket");
    let mut below = 0;
    let mut sample = |bound: &str, count: u64| {
        let mut all = labels.to_vec();
        all.push(("le", bound));
        text.sample(&bucket_name, &all, count as f64);
    };
    for (bound, bucket) in BUCKETS.iter().zip(&histogram.buckets) {
        below += bucket.load(Ordering::Relaxed);
        sample(&bound.to_string(), below);
    }
    let count = histogram.count.load(Ordering::Relaxed);
    sample("+Inf", count);
    let sum = histogram.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
    text.sample(&format!("{name}_sum"), labels, sum);
    text.sample(&format!("{name}_count"), labels, count as f64);
}

/// The series of `key`, made at first sight; none when there are too many.
fn series<K: Clone + Eq + std::hash::Hash, V: Default>(map: &RwLock<HashMap<K, Arc<V>>>, key: &K) -> Option<Arc<V>> {
    if let Some(found) = map.read().unwrap_or_else(PoisonError::into_inner).get(key) {
        return Some(Arc::clone(found));
    }
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    if map.len() >= SERIES_MAX && !map.contains_key(key) {
        return None;
    }
    Some(Arc::clone(map.entry(key.clone()).or_default()))
}

fn long_running(info: &RequestInfo) -> bool {
    info.verb == "watch" || matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
}

fn labels(catalogue: &Catalogue, info: &RequestInfo) -> Labels {
    let row = catalogue.find(&info.group, &info.version, &info.resource).filter(|_| info.resource_request);
    let Some(row) = row else {
        let (empty, scope) = (Box::<str>::default(), "");
        let (group, version, resource, subresource) = (empty.clone(), empty.clone(), empty.clone(), empty);
        return Labels { verb: verb(&info.verb), group, version, resource, subresource, scope };
    };
    let scope = if !info.name.is_empty() {
        "resource"
    } else if info.namespace.is_empty() {
        "cluster"
    } else {
        "namespace"
    };
    let subresource = row.subresource(&info.subresource).map_or("", |sub| sub.name.as_str());
    Labels {
        verb: verb(&info.verb),
        group: row.group.as_str().into(),
        version: row.version.as_str().into(),
        resource: row.plural.as_str().into(),
        subresource: subresource.into(),
        scope,
    }
}

fn verb(verb: &str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "post" => "POST",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    fn info(path: &str) -> RequestInfo {
        RequestInfo::parse(&http::Method::GET, path, &Query::parse("")).unwrap()
    }

    #[test]
    fn what_clients_make_up_adds_no_series() {
        let (requests, catalogue) = (Requests::default(), Catalogue::builtin());
        for index in 0..1_000 {
            let made_up = info(&format!("/apis/g{index}/v1/r{index}"));
            requests.observe(&catalogue, &made_up, 404, Duration::from_millis(1));
        }
        assert_eq!(requests.counts.read().unwrap().len(), 1);
        requests.observe(&catalogue, &info("/api/v1/namespaces/ns/pods/p"), 200, Duration::from_millis(1));
        let mut text = Text::default();
        requests.write(&mut text);
        let text = String::from_utf8(text.into_bytes()).unwrap();
        let sample = r#"apiserver_request_total{component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1",code="200"} 1"#;
        assert!(text.contains(sample), "{text}");
        assert!(text.contains(r#"verb="GET",version="v1",le="0.005"} 1"#), "{text}");
    }

    #[test]
    fn requests_under_way_are_counted_while_they_are() {
        let requests = Requests::default();
        let one = requests.begin(&info("/api/v1/pods"));
        assert_eq!(requests.in_flight[0].load(Ordering::Relaxed), 1);
        drop(one);
        assert_eq!(requests.in_flight[0].load(Ordering::Relaxed), 0);
    }
}
