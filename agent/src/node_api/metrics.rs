//! `/metrics` and `/metrics/resource` in Prometheus' text form. The second is what metrics-server reads.

use std::fmt::Write;

use http::{HeaderValue, StatusCode};
use jiff::Timestamp;

use super::{
    answer::{self, Answer},
    handler::Handler,
};
use crate::cgroup::{Usage, usage};

const TEXT_FORM: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A family of samples under one name.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    lines: String,
}

impl Family {
    fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self { name, kind, help, lines: String::new() }
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        let labels = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let time = at.map(|at| format!(" {}", at.as_millisecond())).unwrap_or_default();
        // Writing to a String cannot fail.
        let _infallible = writeln!(self.lines, "{}{labels} {value}{time}", self.name);
    }
}

fn answer(families: impl IntoIterator<Item = Family>) -> Answer {
    let mut text = String::new();
    for Family { name, kind, help, lines } in families {
        if !lines.is_empty() {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
    }
    answer::with_body(StatusCode::OK, TEXT_FORM, answer::full(text))
}

/// The agent itself.
pub fn agent(handler: &Handler) -> Answer {
    let mut pods = Family::new("kubelet_running_pods", "gauge", "Number of pods that have a running container");
    let mut containers = Family::new("kubelet_running_containers", "gauge", "Number of containers by state");
    let mut node = Family::new("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    let mut memory = Family::new("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
    let mut files = Family::new("process_open_fds", "gauge", "Number of open file descriptors.");
    let views = handler.shared.views.list();
    let running = |view: &crate::pod::PodView| view.containers.values().filter(|one| one.pid.is_some()).count();
    pods.sample(&[], views.iter().filter(|view| running(view) > 0).count() as f64, None);
    let (all, up) = views.iter().fold((0, 0), |(all, up), view| (all + view.containers.len(), up + running(view)));
    containers.sample(&[("container_state", "running")], up as f64, None);
    containers.sample(&[("container_state", "exited")], (all - up) as f64, None);
    node.sample(&[("node", &handler.shared.node_name)], 1.0, None);
    if let Ok(process) = procfs::process::Process::myself() {
        if let Ok(stat) = process.stat() {
            memory.sample(&[], (stat.rss * procfs::page_size()) as f64, None);
        }
        if let Ok(count) = process.fd_count() {
            files.sample(&[], count as f64, None);
        }
    }
    answer([pods, containers, node, memory, files])
}

/// CPU and memory of the node, its pods and their containers.
pub fn resource(handler: &Handler) -> Answer {
    let now = Timestamp::now();
    let cpu = |name| Family::new(name, "counter", "Cumulative cpu time consumed in core-seconds");
    let memory = |name| Family::new(name, "gauge", "Current working set in bytes");
    let mut node = (cpu("node_cpu_usage_seconds_total"), memory("node_memory_working_set_bytes"));
    let mut pods = (cpu("pod_cpu_usage_seconds_total"), memory("pod_memory_working_set_bytes"));
    let mut containers = (cpu("container_cpu_usage_seconds_total"), memory("container_memory_working_set_bytes"));
    let start_help = "Start time of the container since unix epoch in seconds";
    let mut starts = Family::new("container_start_time_seconds", "gauge", start_help);
    let error_help = "1 if there was an error while getting container metrics, 0 otherwise";
    let mut errors = Family::new("resource_scrape_error", "gauge", error_help);
    let put = |families: &mut (Family, Family), labels: &[(&str, &str)], usage: Option<Usage>| {
        if let Some(usage) = usage {
            families.0.sample(labels, usage.cpu_ns as f64 / 1e9, Some(now));
            families.1.sample(labels, usage.working_set_bytes as f64, Some(now));
        }
    };
    put(&mut node, &[], usage::machine());
    for view in handler.shared.views.list() {
        let pod = [("namespace", view.id.namespace.as_str()), ("pod", view.id.name.as_str())];
        let mut cgroup = None;
        for (name, container) in view.containers.iter().filter(|(_, container)| container.pid.is_some()) {
            let labels = [("container", name.as_str()), pod[0], pod[1]];
            put(&mut containers, &labels, handler.shared.cgroups.usage(&container.cgroup));
            if let Some(at) = container.started_at {
                starts.sample(&labels, at.as_millisecond() as f64 / 1e3, None);
            }
            cgroup = container.cgroup.rsplit_once('/').map(|(pod, _)| pod);
        }
        if let Some(cgroup) = cgroup {
            put(&mut pods, &pod, handler.shared.cgroups.usage(cgroup));
        }
    }
    errors.sample(&[], 0.0, None);
    answer([node.0, node.1, pods.0, pods.1, containers.0, containers.1, starts, errors])
}
