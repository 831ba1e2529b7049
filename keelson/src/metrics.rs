//! Metrics of the parts of this process, as the API server's `/metrics` shows them beside its own.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// A registry in Prometheus' text format (version 0.0.4). The library writes OpenMetrics, where a counter's family is
/// named without `_total` and an end mark closes the text.
pub fn exposition(registry: &Registry) -> String {
    let mut open_metrics = String::new();
    text::encode(&mut open_metrics, registry).expect("a String takes every write");
    let mut counters: Vec<&str> = Vec::new();
    for line in open_metrics.lines() {
        if let Some((name, "counter")) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            counters.push(name);
        }
    }
    let mut out = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let family = line.strip_prefix("# ").and_then(|rest| rest.split(' ').nth(1));
        match family.filter(|family| counters.contains(family)) {
            Some(family) => out.push_str(&line.replacen(family, &format!("{family}_total"), 1)),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    #[test]
    fn counters_have_their_whole_name_and_nothing_ends_the_text() {
        let mut registry = Registry::default();
        let counter: Counter = Counter::default();
        counter.inc();
        registry.register("workqueue_adds", "Total number of adds", counter);
        registry.register("workqueue_depth", "Current depth", Gauge::<i64>::default());
        let wanted = "# HELP workqueue_adds_total Total number of adds.\n# TYPE workqueue_adds_total counter\n\
                      workqueue_adds_total 1\n# HELP workqueue_depth Current depth.\n# TYPE workqueue_depth gauge\n\
                      workqueue_depth 0\n";
        assert_eq!(exposition(&registry), wanted);
    }
}
