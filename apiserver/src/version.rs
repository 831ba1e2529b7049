//! `/version`, and the names under which this server reports itself.

use std::sync::Arc;

use http::{HeaderValue, Response, header};
use serde_json::{Value, json};

use crate::body;
use crate::discovery::only_reads;
use crate::endpoint::{Answer, Endpoint, Match};
use crate::request::Call;
use crate::server::Server;

/// The Kubernetes release whose API this server speaks.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
pub const GIT_VERSION: &str = api::KUBERNETES_VERSION;

pub static ENDPOINTS: &[Endpoint] = &[Endpoint { path: "/version", matching: Match::Exact, handler: answer }];

/// `k8s.io/apimachinery/pkg/version.Info`; Go's own fields tell what stands in Go's place here.
pub fn info() -> Value {
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => other,
    };
    json!({
        "major": MAJOR, "minor": MINOR,
        "emulationMajor": MAJOR, "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR, "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "rust", "compiler": "rustc", "platform": platform,
    })
}

fn answer(_: Arc<Server>, call: Call, _: body::Body) -> Answer {
    Box::pin(async move {
        only_reads(&call.parts.method)?;
        let text = serde_json::to_vec_pretty(&info()).unwrap_or_default();
        let mut response = Response::new(body::full(text));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    })
}
