//! `/metrics` and `/metrics/slis` in Prometheus' text format, under upstream's names where upstream has the figure.

mod requests;
mod sources;
mod text;

use std::sync::Arc;

use http::{HeaderValue, Response, header};

use crate::body::{self, Body};
use crate::discovery::only_reads;
use crate::endpoint::{Answer, Endpoint, Match};
use crate::health;
use crate::request::Call;
use crate::server::Server;
use crate::version;

pub use requests::{InFlight, Requests};
pub use sources::Sources;
use text::Text;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Ticks per second of the kernel's process times (`sysconf(_SC_CLK_TCK)` on every Linux of today).
const CLOCK_TICKS: f64 = 100.0;

pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint { path: "/metrics", matching: Match::Exact, handler: |server, call, _| all(server, call) },
    Endpoint { path: "/metrics/slis", matching: Match::Exact, handler: |server, call, _| slis(server, call) },
];

fn all(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let mut text = Text::default();
        server.requests.write(&mut text);
        objects(&server, &mut text);
        build(&mut text);
        process(&mut text);
        server.options.metrics.write(&mut text);
        Ok(answer(text))
    })
}

fn slis(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let mut text = Text::default();
        text.family("kubernetes_healthcheck", "gauge", "This metric records the result of a single healthcheck.");
        for (kind, name, healthy) in health::results(&server).await {
            text.sample("kubernetes_healthcheck", &[("name", name), ("type", kind)], f64::from(u8::from(healthy)));
        }
        Ok(answer(text))
    })
}

fn answer(text: Text) -> Response<Body> {
    let mut response = Response::new(body::full(text.into_bytes()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

/// Stored objects by resource, and how far the cache is.
fn objects(server: &Server, text: &mut Text) {
    let name = "apiserver_resource_objects";
    text.family(name, "gauge", "Number of stored objects at the time of last check split by kind.");
    let catalogue = server.catalogue.load();
    for row in catalogue.iter().filter(|row| row.stored && row.version == row.storage_version) {
        let count = server.cache_of(row).snapshot().len();
        text.sample(name, &[("group", &row.group), ("resource", &row.plural)], count as f64);
    }
    let name = "keelson_watch_cache_revision";
    text.family(name, "gauge", "Store revision up to which the watch cache shows every commit.");
    text.sample(name, &[], server.cache.revision() as f64);
}

fn build(text: &mut Text) {
    let name = "kubernetes_build_info";
    text.family(name, "gauge", "A metric with a constant '1' value labeled by version and platform.");
    let labels = [("git_version", version::GIT_VERSION), ("major", version::MAJOR), ("minor", version::MINOR)];
    text.sample(name, &labels, 1.0);
}

/// The process as the kernel sees it; figures that cannot be read are left out.
fn process(text: &mut Text) {
    let Some(stat) = std::fs::read_to_string("/proc/self/stat").ok() else { return };
    // The command name, in parentheses, may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok());
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            text.family(name, kind, help);
            text.sample(name, &[], value);
        }
    };
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) / CLOCK_TICKS);
    gauge("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    let resident = resident.map(|kib: f64| kib * 1024.0);
    gauge("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
    let files = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "gauge", "Number of open file descriptors.", files);
    gauge("process_threads", "gauge", "Number of threads.", field(17));
}
