//! The dependency edges between the crates: what may know what. `ARCHITECTURE.md` says why.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

/// Each crate with the workspace crates it may depend on. Dev-dependencies of `tests` may be anything, as it is the
/// place where components meet.
const ALLOWED: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("cel", &["api"]),
    ("store-client", &[]),
    ("tls", &[]),
    ("apiserver", &["api", "cel", "store-client", "tls"]),
    ("api-client", &["api", "tls"]),
    ("reconciler", &["api", "api-client", "cel", "tls"]),
    ("scheduler", &["api", "api-client", "cel"]),
    ("agent", &["api", "api-client", "nftables", "tls"]),
    ("nftables", &[]),
    ("service-proxy", &["api", "api-client", "nftables"]),
    ("network-policy", &["api", "api-client", "nftables"]),
    ("dns", &["api", "api-client"]),
    ("simulate", &["api-client"]),
    ("why", &["api", "api-client"]),
    (
        "keelson",
        &[
            "api",
            "store-client",
            "tls",
            "apiserver",
            "api-client",
            "reconciler",
            "scheduler",
            "agent",
            "service-proxy",
            "network-policy",
            "dns",
            "simulate",
            "why",
        ],
    ),
    ("tests", &[]),
    ("xtask", &["tests"]),
];

/// Crates the pure object model must never reach: it does no I/O.
const BANNED_IN_API: &[&str] = &["tokio", "hyper", "rustls", "nix", "futures-util"];

pub fn check(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("cargo")
        .current_dir(root)
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .output()
        .context("cargo metadata")?;
    let metadata: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(complaints(&metadata))
}

fn complaints(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut out = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else {
            out.push(format!("crate {name} is not in the edge table of xtask/src/tidy/edges.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let kind = dependency["kind"].as_str().unwrap_or("normal");
            if ALLOWED.iter().any(|(n, _)| *n == to) && !allowed.contains(&to) && !(name == "tests" && kind == "dev") {
                out.push(format!("crate {name} must not depend on {to}"));
            }
            if name == "api" && kind == "normal" && BANNED_IN_API.contains(&to) {
                out.push(format!("crate api does no I/O and must not depend on {to}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::complaints;

    fn metadata(name: &str, dependency: &str, kind: Option<&str>) -> serde_json::Value {
        json!({ "packages": [{ "name": name, "dependencies": [{ "name": dependency, "kind": kind }] }] })
    }

    #[test]
    fn an_edge_outside_the_table_is_found() {
        assert_eq!(complaints(&metadata("agent", "store-client", None)).len(), 1);
        assert_eq!(complaints(&metadata("agent", "api-client", None)).len(), 0);
        assert_eq!(complaints(&metadata("tests", "apiserver", Some("dev"))).len(), 0);
        assert_eq!(complaints(&metadata("tests", "apiserver", None)).len(), 1);
        assert_eq!(complaints(&metadata("api", "tokio", None)).len(), 1);
        assert_eq!(complaints(&metadata("misc", "serde", None)).len(), 1);
    }
}
