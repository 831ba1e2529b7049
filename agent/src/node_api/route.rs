//! Paths of the node API. Pure: from method and path to what is asked for.

use http::Method;

use super::query::decoded;

/// A container by the names in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub namespace: String,
    pub pod: String,
    pub uid: Option<String>,
    pub container: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Healthz,
    Pods,
    RunningPods,
    StatsSummary,
    Metrics,
    ResourceMetrics,
    Logs(Target),
    Exec(Target),
    Attach(Target),
    PortForward { namespace: String, pod: String, uid: Option<String> },
    NotFound,
    MethodNotAllowed,
}

impl Route {
    pub fn of(method: &Method, path: &str) -> Self {
        let parts = path.trim_matches('/').split('/').map(decoded).collect::<Vec<_>>();
        let parts = parts.iter().map(String::as_str).collect::<Vec<_>>();
        let route = match parts[..] {
            ["healthz"] | ["healthz", "ping" | "syncloop"] => Self::Healthz,
            ["pods"] => Self::Pods,
            ["runningpods"] => Self::RunningPods,
            ["stats", "summary"] => Self::StatsSummary,
            ["metrics"] => Self::Metrics,
            ["metrics", "resource"] => Self::ResourceMetrics,
            ["containerLogs", namespace, pod, container] => Self::Logs(target(namespace, pod, None, container)),
            ["exec", namespace, pod, container] => Self::Exec(target(namespace, pod, None, container)),
            ["exec", namespace, pod, uid, container] => Self::Exec(target(namespace, pod, Some(uid), container)),
            ["attach", namespace, pod, container] => Self::Attach(target(namespace, pod, None, container)),
            ["attach", namespace, pod, uid, container] => Self::Attach(target(namespace, pod, Some(uid), container)),
            ["portForward", namespace, pod] => port_forward(namespace, pod, None),
            ["portForward", namespace, pod, uid] => port_forward(namespace, pod, Some(uid)),
            _ => return Self::NotFound,
        };
        let streams = matches!(route, Self::Exec(_) | Self::Attach(_) | Self::PortForward { .. });
        match *method {
            Method::GET => route,
            Method::POST if streams => route,
            Method::HEAD if !streams => route,
            _ => Self::MethodNotAllowed,
        }
    }
}

fn target(namespace: &str, pod: &str, uid: Option<&str>, container: &str) -> Target {
    Target {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    }
}

fn port_forward(namespace: &str, pod: &str, uid: Option<&str>) -> Route {
    Route::PortForward { namespace: namespace.to_owned(), pod: pod.to_owned(), uid: uid.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Route, target};

    #[test]
    fn paths_name_containers_with_and_without_uid() {
        let get = |path: &str| Route::of(&Method::GET, path);
        assert_eq!(get("/exec/ns/web/main"), Route::Exec(target("ns", "web", None, "main")));
        assert_eq!(get("/exec/ns/web/u-1/main"), Route::Exec(target("ns", "web", Some("u-1"), "main")));
        assert_eq!(get("/containerLogs/ns/we%62/main"), Route::Logs(target("ns", "web", None, "main")));
        assert_eq!(get("/containerLogs/ns/web"), Route::NotFound);
        assert_eq!(get("/"), Route::NotFound);
    }

    #[test]
    fn only_streams_take_a_post() {
        let post = |path: &str| Route::of(&Method::POST, path);
        assert!(matches!(post("/attach/ns/web/main"), Route::Attach(_)));
        assert!(matches!(post("/portForward/ns/web"), Route::PortForward { .. }));
        assert_eq!(post("/containerLogs/ns/web/main"), Route::MethodNotAllowed);
        assert_eq!(Route::of(&Method::DELETE, "/exec/ns/web/main"), Route::MethodNotAllowed);
    }
}
