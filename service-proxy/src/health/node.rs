//! The proxy's own port: `/healthz`, which load balancers ask whether to send traffic to this node at all, and `/livez`,
//! which tells whether the proxy works, also on a node that is about to go.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::{debug, info, warn};

use super::serve::{Answer, json as answer, not_found, serve};
use super::{Health, State};
use crate::metrics::Metrics;

/// Pause before a port that is taken is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);

/// Serves until it is dropped. A port that cannot be had is tried again: Services do not depend on it.
pub async fn serve_node(address: SocketAddr, health: Health, metrics: Metrics) {
    let mut tries: u32 = 0;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if tries == 0 => warn!(%address, %error, "the proxy's health port is not to be had: trying on"),
            Err(error) => debug!(%address, %error, "the proxy's health port is still not to be had"),
        }
        tries += 1;
        tokio::time::sleep(LISTEN_PAUSE).await;
    };
    info!(%address, "the proxy's health is at /healthz and /livez");
    serve(listener, move |path| respond(path, &health, &metrics)).await;
}

fn respond(path: &str, health: &Health, metrics: &Metrics) -> Answer {
    let (is_good, body) = match path {
        "/healthz" => health.with(|state| tell(state, Some(state.is_eligible))),
        "/livez" => health.with(|state| tell(state, None)),
        _ => return not_found(),
    };
    metrics.asked(path == "/healthz", is_good);
    answer(is_good, &body, &[])
}

/// `eligible` counts where it is given.
fn tell(state: &State, eligible: Option<bool>) -> (bool, Value) {
    let now = Timestamp::now();
    let is_healthy = state.is_healthy();
    let is_good = is_healthy && eligible.unwrap_or(true);
    // Who is well is as good as just updated; for others it is when they last were.
    let last = if is_good { Some(now) } else { state.updated.iter().flatten().max().copied() };
    let mut body = json!({
        // Go's zero time stands for never.
        "lastUpdated": last.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| at.to_string()),
        "currentTime": now.to_string(),
        "healthy": is_healthy,
    });
    if let Some(eligible) = eligible {
        body["nodeEligible"] = eligible.into();
    }
    for (family, at) in ["IPv4", "IPv6"].into_iter().zip(state.updated) {
        if let Some(at) = at {
            body["status"][family] = json!({ "lastUpdated": at.to_string(), "healthy": is_healthy });
        }
    }
    (is_good, body)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::health::LATE_AFTER;

    async fn ask(path: &str, health: &Health) -> (u16, Value) {
        let answer = respond(path, health, &Metrics::default());
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_about_to_go_takes_no_traffic_but_its_proxy_lives() {
        let health = Health::default();
        health.updated([true, false]);
        health.set_eligible(true);
        let (status, body) = ask("/healthz", &health).await;
        assert_eq!((status, &body["nodeEligible"], &body["healthy"]), (200, &json!(true), &json!(true)));
        assert_eq!(body["status"]["IPv4"]["healthy"], true);
        assert!(body["status"].get("IPv6").is_none(), "{body}");
        health.set_eligible(false);
        let (status, body) = ask("/healthz", &health).await;
        assert_eq!((status, &body["nodeEligible"], &body["healthy"]), (503, &json!(false), &json!(true)));
        let (status, body) = ask("/livez", &health).await;
        assert_eq!((status, body.get("nodeEligible")), (200, None));
        assert_eq!(ask("/metrics", &health).await.0, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_falls_behind_says_so() {
        let health = Health::default();
        health.set_eligible(true);
        health.updated([true, true]);
        health.queued();
        tokio::time::advance(LATE_AFTER).await;
        for path in ["/healthz", "/livez"] {
            let (status, body) = ask(path, &health).await;
            assert_eq!((status, &body["status"]["IPv6"]["healthy"]), (503, &json!(false)), "{path}");
        }
    }
}
