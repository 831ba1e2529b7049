//! `/healthz`, `/livez` and `/readyz`, with single checks below them; texts and parameters as upstream's `healthz`.
//!
//! Checks are cheap: they look at flags and at the cache, except for `etcd`, which asks the store.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use tokio::sync::watch;

use api::status::Status;

use crate::body::{self, Body};
use crate::endpoint::{Answer, Endpoint, Match};
use crate::request::Call;
use crate::server::Server;

/// How long the store may take to answer before the server counts as unhealthy.
const STORE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What must have been done once before the server is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    SystemNamespaces = 1,
    RbacBootstrapRoles = 2,
    PriorityClasses = 4,
    FlowConfiguration = 8,
}

impl Hook {
    const ALL: [Hook; 4] =
        [Hook::SystemNamespaces, Hook::RbacBootstrapRoles, Hook::PriorityClasses, Hook::FlowConfiguration];
}

/// Which hooks are done: a set of `Hook` bits that only grows.
#[derive(Debug, Default)]
pub struct Readiness(watch::Sender<u32>);

impl Readiness {
    pub fn done(&self, hook: Hook) {
        self.0.send_modify(|done| *done |= hook as u32);
    }
    pub fn is_done(&self, hook: Hook) -> bool {
        *self.0.borrow() & hook as u32 != 0
    }
    /// Returns when every hook is done.
    pub async fn all_done(&self) {
        let all = Hook::ALL.iter().fold(0, |set, hook| set | *hook as u32);
        // The sender is `self`, so that waiting never ends early.
        let mut done = self.0.subscribe();
        let _closed = done.wait_for(|done| done & all == all).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// True as soon as this code can run.
    Always,
    Store,
    Hook(Hook),
    NotStopping,
}

const LIVE: u8 = 1;
const READY: u8 = 2;
const HEALTHZ: u8 = 4;
const EVERYWHERE: u8 = LIVE | READY | HEALTHZ;

/// Upstream's checks in its order, and where each belongs.
const CHECKS: &[(&str, Check, u8)] = &[
    ("ping", Check::Always, EVERYWHERE),
    ("log", Check::Always, EVERYWHERE),
    ("etcd", Check::Store, EVERYWHERE),
    ("etcd-readiness", Check::Store, READY),
    ("informer-sync", Check::Always, READY),
    ("poststarthook/start-apiserver-admission-initializer", Check::Always, EVERYWHERE),
    ("poststarthook/generic-apiserver-start-informers", Check::Always, EVERYWHERE),
    ("poststarthook/priority-and-fairness-config-consumer", Check::Always, EVERYWHERE),
    ("poststarthook/priority-and-fairness-filter", Check::Always, EVERYWHERE),
    ("poststarthook/storage-object-count-tracker-hook", Check::Always, EVERYWHERE),
    ("poststarthook/start-apiextensions-informers", Check::Always, EVERYWHERE),
    ("poststarthook/start-apiextensions-controllers", Check::Always, EVERYWHERE),
    ("poststarthook/crd-informer-synced", Check::Always, EVERYWHERE),
    ("poststarthook/start-system-namespaces-controller", Check::Hook(Hook::SystemNamespaces), EVERYWHERE),
    ("poststarthook/start-cluster-authentication-info-controller", Check::Always, EVERYWHERE),
    ("poststarthook/start-service-ip-repair-controllers", Check::Always, EVERYWHERE),
    ("poststarthook/rbac/bootstrap-roles", Check::Hook(Hook::RbacBootstrapRoles), EVERYWHERE),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Check::Hook(Hook::PriorityClasses), EVERYWHERE),
    ("poststarthook/priority-and-fairness-config-producer", Check::Hook(Hook::FlowConfiguration), EVERYWHERE),
    ("poststarthook/bootstrap-controller", Check::Always, EVERYWHERE),
    ("poststarthook/aggregator-reload-proxy-client-cert", Check::Always, EVERYWHERE),
    ("poststarthook/start-kube-aggregator-informers", Check::Always, EVERYWHERE),
    ("poststarthook/apiservice-registration-controller", Check::Always, EVERYWHERE),
    ("poststarthook/apiservice-discovery-controller", Check::Always, EVERYWHERE),
    ("poststarthook/kube-apiserver-autoregistration", Check::Always, EVERYWHERE),
    ("autoregister-completion", Check::Always, EVERYWHERE),
    ("poststarthook/apiservice-openapi-controller", Check::Always, EVERYWHERE),
    ("poststarthook/apiservice-openapiv3-controller", Check::Always, EVERYWHERE),
    ("shutdown", Check::NotStopping, READY),
];

pub static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/healthz",
        matching: Match::Below,
        handler: |server, call, _| answer(server, call, "healthz", HEALTHZ),
    },
    Endpoint { path: "/livez", matching: Match::Below, handler: |server, call, _| answer(server, call, "livez", LIVE) },
    Endpoint {
        path: "/readyz",
        matching: Match::Below,
        handler: |server, call, _| answer(server, call, "readyz", READY),
    },
];

/// The outcome of every check: its kind, its name, whether it is fine. For metrics.
pub async fn results(server: &Server) -> Vec<(&'static str, &'static str, bool)> {
    let mut results = Vec::new();
    for (name, check, sets) in CHECKS {
        let healthy = run(server, *check).await.is_ok();
        for (kind, set) in [("healthz", HEALTHZ), ("livez", LIVE), ("readyz", READY)] {
            if sets & set != 0 {
                results.push((kind, *name, healthy));
            }
        }
    }
    results
}

/// Every path below the three, for the list at `/`.
pub fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    for (name, set) in [("healthz", HEALTHZ), ("livez", LIVE), ("readyz", READY)] {
        paths.push(format!("/{name}"));
        paths
            .extend(CHECKS.iter().filter(|(_, _, sets)| sets & set != 0).map(|(check, ..)| format!("/{name}/{check}")));
    }
    paths
}

fn answer(server: Arc<Server>, call: Call, name: &'static str, set: u8) -> Answer {
    Box::pin(async move {
        let below =
            call.info.path.trim_matches('/').strip_prefix(name).unwrap_or_default().trim_matches('/').to_owned();
        let checks: Vec<_> = CHECKS.iter().filter(|(_, _, sets)| sets & set != 0).collect();
        if !below.is_empty() {
            let Some((check_name, check, _)) = checks.iter().find(|(check_name, ..)| *check_name == below) else {
                return Err(Status::no_such_path());
            };
            return Ok(match run(&server, *check).await {
                Ok(()) => text(StatusCode::OK, "ok".to_owned()),
                Err(why) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {check_name}: {why}\n"))
                }
            });
        }
        Ok(all(&server, &call, name, &checks).await)
    })
}

async fn all(server: &Server, call: &Call, name: &str, checks: &[&(&str, Check, u8)]) -> Response<Body> {
    let mut excluded: Vec<&str> = call.query.all("exclude").filter(|e| !e.is_empty()).collect();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for (check_name, check, _) in checks {
        if let Some(at) = excluded.iter().position(|e| e == check_name) {
            excluded.swap_remove(at);
            lines.push_str(&format!("[+]{check_name} excluded: ok\n"));
            continue;
        }
        match run(server, *check).await {
            Ok(()) => lines.push_str(&format!("[+]{check_name} ok\n")),
            Err(_) => {
                failed.push(*check_name);
                lines.push_str(&format!("[-]{check_name} failed: reason withheld\n"));
            }
        }
    }
    if !excluded.is_empty() {
        let listed: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", listed.join(", ")));
    }
    if !failed.is_empty() {
        tracing::debug!(name, failed = failed.join(","), "health check failed");
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"));
    }
    if call.query.get("verbose").is_some() {
        return text(StatusCode::OK, format!("{lines}{name} check passed\n"));
    }
    text(StatusCode::OK, "ok".to_owned())
}

async fn run(server: &Server, check: Check) -> Result<(), String> {
    match check {
        Check::Always => Ok(()),
        Check::Hook(hook) if server.readiness.is_done(hook) => Ok(()),
        Check::Hook(_) => Err("not finished".to_owned()),
        Check::NotStopping if server.shutdown.is_cancelled() => Err("process is shutting down".to_owned()),
        Check::NotStopping => Ok(()),
        Check::Store => match tokio::time::timeout(STORE_WAIT_MAX, server.store.current_revision()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the store did not answer within {} s", STORE_WAIT_MAX.as_secs())),
        },
    }
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn readiness_is_reached_with_the_last_hook_and_not_before() {
        let readiness = Readiness::default();
        let (last, first) = Hook::ALL.split_last().expect("there are hooks");
        first.iter().for_each(|hook| readiness.done(*hook));
        assert!(readiness.all_done().now_or_never().is_none());
        assert!(!readiness.is_done(*last));
        readiness.done(*last);
        assert!(readiness.all_done().now_or_never().is_some());
    }
}
