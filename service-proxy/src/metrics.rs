//! Metrics under upstream's names (`pkg/proxy/metrics`), so that dashboards and alerts work unchanged. Those of other
//! modes than nftables are not among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IpFamily {
    ip_family: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Policy {
    traffic_policy: &'static str,
    ip_family: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// What a transaction was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    Full,
    Partial,
}

/// Clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    sync: Family<IpFamily, Histogram>,
    full: Family<IpFamily, Histogram>,
    partial: Family<IpFamily, Histogram>,
    last: Family<IpFamily, Seconds>,
    last_queued: Family<IpFamily, Seconds>,
    programming: Family<IpFamily, Histogram>,
    endpoints_pending: Gauge<i64, AtomicI64>,
    endpoints_total: Counter,
    services_pending: Gauge<i64, AtomicI64>,
    services_total: Counter,
    failures: Family<IpFamily, Counter>,
    cleanup_failures: Family<IpFamily, Counter>,
    healthz: Family<Code, Counter>,
    livez: Family<Code, Counter>,
    no_local_endpoints: Family<Policy, Gauge>,
    flows: Family<IpFamily, Histogram>,
    flows_deleted: Family<IpFamily, Counter>,
}

fn family(ipv6: bool) -> IpFamily {
    IpFamily { ip_family: family_name(ipv6) }
}

fn family_name(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

/// A millisecond, doubled fourteen times.
fn sync_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// Half a minute in fine steps, up to five minutes in coarse ones.
fn programming_histogram() -> Histogram {
    let steps = |first: u32, step: u32, count: u32| (0..count).map(move |n| f64::from(first + n * step));
    Histogram::new([0.25, 0.5].into_iter().chain(steps(1, 1, 59)).chain(steps(60, 5, 12)).chain(steps(120, 30, 7)))
}

impl Default for Metrics {
    fn default() -> Self {
        let sync = || Family::new_with_constructor(sync_histogram as fn() -> Histogram);
        Self(Arc::new(Families {
            sync: sync(),
            full: sync(),
            partial: sync(),
            last: Family::default(),
            last_queued: Family::default(),
            programming: Family::new_with_constructor(programming_histogram),
            endpoints_pending: Gauge::default(),
            endpoints_total: Counter::default(),
            services_pending: Gauge::default(),
            services_total: Counter::default(),
            failures: Family::default(),
            cleanup_failures: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
            no_local_endpoints: Family::default(),
            flows: sync(),
            flows_deleted: Family::default(),
        }))
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    #[rustfmt::skip]
    pub fn register(&self, registry: &mut Registry) {
        let f = &*self.0;
        let registry = registry.sub_registry_with_prefix("kubeproxy");
        registry.register("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds", f.sync.clone());
        registry.register("sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs", f.full.clone());
        registry.register("sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs", f.partial.clone());
        registry.register("sync_proxy_rules_last_timestamp_seconds", "The last time proxy rules were successfully synced", f.last.clone());
        registry.register("sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync of proxy rules was queued", f.last_queued.clone());
        registry.register("network_programming_duration_seconds", "In Cluster Network Programming Latency in seconds", f.programming.clone());
        registry.register("sync_proxy_rules_endpoint_changes_pending", "Pending proxy rules Endpoint changes", f.endpoints_pending.clone());
        registry.register("sync_proxy_rules_endpoint_changes", "Cumulative proxy rules Endpoint changes", f.endpoints_total.clone());
        registry.register("sync_proxy_rules_service_changes_pending", "Pending proxy rules Service changes", f.services_pending.clone());
        registry.register("sync_proxy_rules_service_changes", "Cumulative proxy rules Service changes", f.services_total.clone());
        registry.register("sync_proxy_rules_nftables_sync_failures", "Cumulative proxy nftables sync failures", f.failures.clone());
        registry.register("sync_proxy_rules_nftables_cleanup_failures", "Cumulative proxy nftables cleanup failures", f.cleanup_failures.clone());
        registry.register("proxy_healthz", "Cumulative proxy healthz HTTP status", f.healthz.clone());
        registry.register("proxy_livez", "Cumulative proxy livez HTTP status", f.livez.clone());
        registry.register("sync_proxy_rules_no_local_endpoints_total", "Number of services with a Local traffic policy and no endpoints", f.no_local_endpoints.clone());
        registry.register("conntrack_reconciler_sync_duration_seconds", "ReconcileConntrackFlowsLatency latency in seconds", f.flows.clone());
        registry.register("conntrack_reconciler_deleted_entries", "Cumulative conntrack flows deleted by conntrack reconciler", f.flows_deleted.clone());
    }

    pub(crate) fn endpoints_changed(&self) {
        self.0.endpoints_total.inc();
        self.0.endpoints_pending.inc();
    }

    pub(crate) fn services_changed(&self) {
        self.0.services_total.inc();
        self.0.services_pending.inc();
    }

    pub(crate) fn queued(&self) {
        let now = seconds(Timestamp::now());
        for ipv6 in [false, true] {
            self.0.last_queued.get_or_create(&family(ipv6)).set(now);
        }
    }

    /// What waited is being worked on.
    pub(crate) fn taken(&self) {
        self.0.endpoints_pending.set(0);
        self.0.services_pending.set(0);
    }

    pub(crate) fn synced(&self, ipv6: bool, what: Sync, took: Duration) {
        let (family, took) = (family(ipv6), took.as_secs_f64());
        let kind = if what == Sync::Full { &self.0.full } else { &self.0.partial };
        self.0.sync.get_or_create(&family).observe(took);
        kind.get_or_create(&family).observe(took);
        self.0.last.get_or_create(&family).set(seconds(Timestamp::now()));
    }

    pub(crate) fn failed(&self, ipv6: bool) {
        self.0.failures.get_or_create(&family(ipv6)).inc();
    }

    pub(crate) fn cleanup_failed(&self) {
        self.0.cleanup_failures.get_or_create(&family(false)).inc();
    }

    /// How long an endpoint's change took from its cause to the kernel.
    pub(crate) fn programmed(&self, ipv6: bool, since: Timestamp) {
        let took = Timestamp::now().duration_since(since).as_secs_f64().max(0.0);
        self.0.programming.get_or_create(&family(ipv6)).observe(took);
    }

    pub(crate) fn asked(&self, is_healthz: bool, is_good: bool) {
        let counter = if is_healthz { &self.0.healthz } else { &self.0.livez };
        counter.get_or_create(&Code { code: if is_good { "200" } else { "503" } }).inc();
    }

    pub(crate) fn no_local_endpoints(&self, ipv6: bool, internal: usize, external: usize) {
        for (traffic_policy, count) in [("internal", internal), ("external", external)] {
            let policy = Policy { traffic_policy, ip_family: family_name(ipv6) };
            self.0.no_local_endpoints.get_or_create(&policy).set(count as i64);
        }
    }

    pub(crate) fn flows_cleaned(&self, ipv6: bool, deleted: usize, took: Duration) {
        self.0.flows.get_or_create(&family(ipv6)).observe(took.as_secs_f64());
        self.0.flows_deleted.get_or_create(&family(ipv6)).inc_by(deleted as u64);
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_microsecond() as f64 / 1e6
}
