//! Metrics of the work queues, under upstream's names (`k8s.io/component-base/metrics/prometheus/workqueue`), so that
//! dashboards and alerts work unchanged.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::queue::Queue;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: &'static str,
}

/// Bucket bounds in seconds; upstream's `ExponentialBuckets(10e-9, 10, 12)` from a microsecond on.
const BUCKETS: [f64; 10] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

/// All queues of a process.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    depth: Family<Name, Gauge>,
    adds: Family<Name, Counter>,
    retries: Family<Name, Counter>,
    queue_duration: Family<Name, Histogram>,
    work_duration: Family<Name, Histogram>,
    /// What is running in them is read when somebody asks.
    running: Mutex<Vec<(Name, Weak<Queue>)>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self(Arc::new(Families {
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            queue_duration: Family::new_with_constructor(histogram),
            work_duration: Family::new_with_constructor(histogram),
            running: Mutex::default(),
        }))
    }
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let f = &*self.0;
        registry.register("workqueue_depth", "Current depth of workqueue", f.depth.clone());
        registry.register("workqueue_adds", "Total number of adds handled by workqueue", f.adds.clone());
        registry.register("workqueue_retries", "Total number of retries handled by workqueue", f.retries.clone());
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested",
            f.queue_duration.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes",
            f.work_duration.clone(),
        );
        registry.register_collector(Box::new(Running(self.clone())));
    }

    pub(super) fn queue(&self, name: &'static str, queue: &Arc<Queue>) -> QueueMetrics {
        let name = Name { name };
        let running = &self.0.running;
        running.lock().unwrap_or_else(PoisonError::into_inner).push((name.clone(), Arc::downgrade(queue)));
        QueueMetrics {
            depth: self.0.depth.get_or_create_owned(&name),
            adds: self.0.adds.get_or_create_owned(&name),
            retries: self.0.retries.get_or_create_owned(&name),
            queue_duration: self.0.queue_duration.get_or_create_owned(&name),
            work_duration: self.0.work_duration.get_or_create_owned(&name),
        }
    }
}

/// How long what runs now has been running.
struct Running(Metrics);

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Collector for Running {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let unfinished: Family<Name, Gauge<f64, AtomicU64>> = Family::default();
        let longest: Family<Name, Gauge<f64, AtomicU64>> = Family::default();
        for (name, queue) in self.0.0.running.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let Some(queue) = queue.upgrade() else { continue };
            let now = queue.now();
            let ages = queue.read(|core| core.running().map(|since| now.saturating_sub(since)).collect::<Vec<_>>());
            unfinished.get_or_create(name).set(ages.iter().sum::<Duration>().as_secs_f64());
            longest.get_or_create(name).set(ages.iter().max().copied().unwrap_or_default().as_secs_f64());
        }
        let mut family = |name: &str, help: &str, family: &Family<Name, Gauge<f64, AtomicU64>>| {
            family.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        family(
            "workqueue_unfinished_work_seconds",
            "How many seconds of work has been done that is in progress and hasn't been observed by work_duration",
            &unfinished,
        )?;
        family(
            "workqueue_longest_running_processor_seconds",
            "How many seconds has the longest running processor for workqueue been running",
            &longest,
        )
    }
}

#[derive(Clone)]
pub(super) struct QueueMetrics {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    queue_duration: Histogram,
    work_duration: Histogram,
}

impl QueueMetrics {
    pub(super) fn added(&self, depth: usize) {
        self.adds.inc();
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }
    pub(super) fn taken(&self, depth: usize, waited: Duration) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        self.queue_duration.observe(waited.as_secs_f64());
    }
    pub(super) fn worked(&self, took: Duration, failed: bool) {
        self.work_duration.observe(took.as_secs_f64());
        if failed {
            self.retries.inc();
        }
    }
}
