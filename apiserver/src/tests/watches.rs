//! Watches as a client reads them.

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store_client::memory::Memory;
use store_client::{Revision, Store};

use super::rig::Rig;
use crate::{Body, body};

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

/// The frames of a watch, as they come.
struct Frames {
    body: Body,
    buffer: Vec<u8>,
}

impl Frames {
    async fn open(rig: &Rig, path: &str) -> Self {
        let response = rig.send(Request::get(path).body(body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event; `None` when the server has ended the watch.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.buffer.extend_from_slice(self.body.frame().await?.unwrap().data_ref().unwrap());
        }
    }

    /// Type and name of the next event.
    async fn brief(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
    }
}

async fn revision(rig: &Rig) -> String {
    rig.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn changes_follow_a_list_without_gap() {
    let rig = Rig::start().await;
    let from = revision(&rig).await;
    rig.config_map("a").await;
    let mut watch = Frames::open(&rig, &format!("{MAPS}?watch=true&resourceVersion={from}")).await;
    rig.merge(&format!("{MAPS}/a"), json!({"data": {"k": "w"}})).await.expect(200);
    rig.delete(&format!("{MAPS}/a")).await.expect(200);
    rig.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.expect(201);
    rig.config_map("b").await;
    for want in ["ADDED a", "MODIFIED a", "DELETED a", "ADDED b"] {
        assert_eq!(watch.brief().await, want);
    }
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let rig = Rig::start().await;
    rig.config_map("a").await;
    let from = revision(&rig).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={from}&labelSelector=in%3Dyes");
    let mut watch = Frames::open(&rig, &path).await;
    let label = async |value: &str| {
        let patch = json!({"metadata": {"labels": {"in": value}}});
        rig.merge(&format!("{MAPS}/a"), patch).await.expect(200);
    };
    label("yes").await;
    label("no").await;
    let added = watch.next().await.unwrap();
    assert_eq!((&added["type"], &added["object"]["metadata"]["labels"]["in"]), (&json!("ADDED"), &json!("yes")));
    let deleted = watch.next().await.unwrap();
    assert_eq!((&deleted["type"], &deleted["object"]["metadata"]["labels"]["in"]), (&json!("DELETED"), &json!("yes")));
}

#[tokio::test]
async fn streaming_lists_end_with_a_marked_bookmark() {
    let rig = Rig::start().await;
    rig.config_map("a").await;
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = Frames::open(&rig, &format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    rig.config_map("b").await;
    assert_eq!(watch.brief().await, "ADDED b");
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_bookmarked_and_ends_in_time() {
    let rig = Rig::start().await;
    let from = revision(&rig).await;
    let path = format!("{MAPS}?watch=1&resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds=10");
    let mut watch = Frames::open(&rig, &path).await;
    let started = tokio::time::Instant::now();
    assert_eq!(watch.next().await.unwrap()["type"], "BOOKMARK");
    assert!(watch.next().await.is_none());
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_start_before_the_ring_is_expired() {
    let rig = Rig::start().await;
    let mut watch = Frames::open(&rig, &format!("{MAPS}?watch=1&resourceVersion=0")).await;
    rig.config_map("a").await;
    assert_eq!(watch.brief().await, "ADDED a");
    drop(watch);
    // The memory store begins at revision 1; nothing is kept from before it.
    let mut old = Frames::open(&rig, &format!("{MAPS}?watch=1&resourceVersion=00")).await;
    assert_eq!(old.brief().await, "ADDED a");
}

#[tokio::test]
async fn stopping_the_server_ends_watches() {
    let rig = Rig::start().await;
    let mut watch = Frames::open(&rig, &format!("{MAPS}?watch=1")).await;
    rig.server.stop().await;
    while watch.next().await.is_some() {}
}

/// A watcher of a server that was restarted goes on where it was, also with what it missed.
#[tokio::test]
async fn a_watch_goes_on_over_a_restart() {
    let store = Memory::new();
    let before = Rig::on(store.clone()).await;
    before.post("/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await.expect(201);
    let early = revision(&before).await;
    before.config_map("a").await;
    before.config_map("b").await;
    let seen = revision(&before).await;
    before.delete(&format!("{MAPS}/a")).await.expect(200);
    before.server.stop().await;

    let after = Rig::on(store.clone()).await;
    after.merge(&format!("{MAPS}/b"), json!({"data": {"k": "w"}})).await.expect(200);
    let mut watch = Frames::open(&after, &format!("{MAPS}?watch=true&resourceVersion={seen}")).await;
    let deletion = watch.next().await.expect("an event");
    assert_eq!((&deletion["type"], &deletion["object"]["data"]["k"]), (&json!("DELETED"), &json!("v")));
    assert_eq!(watch.brief().await, "MODIFIED b");
    let exact = format!("{MAPS}?resourceVersion={seen}&resourceVersionMatch=Exact");
    let then = after.get(&exact).await.expect(200);
    assert_eq!(then["items"].as_array().unwrap().len(), 2, "as it was before the restart: {then}");
    after.server.stop().await;

    // What is compacted away is gone, and clients are told so.
    store.compact(Revision(seen.parse().unwrap())).await.unwrap();
    let last = Rig::on(store).await;
    let mut watch = Frames::open(&last, &format!("{MAPS}?watch=true&resourceVersion={early}")).await;
    let gone = watch.next().await.expect("an answer");
    assert_eq!((&gone["type"], &gone["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let mut watch = Frames::open(&last, &format!("{MAPS}?watch=true&resourceVersion={seen}")).await;
    assert_eq!(watch.brief().await, "DELETED a");
}
