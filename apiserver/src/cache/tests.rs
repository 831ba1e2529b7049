//! The cache over the memory store: freshness, slices, undoing, falling off.

use bytes::Bytes;
use serde_json::json;
use store_client::memory::Memory;
use tokio_util::sync::CancellationToken;

use super::*;

fn stored(name: &str, count: u64) -> Bytes {
    item::encode(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "count": count})).into()
}

async fn started(store: &Arc<Memory>) -> (Arc<Cache>, CancellationToken) {
    let store: Arc<dyn Store> = Arc::<Memory>::clone(store);
    let cache = Arc::new(Cache::load(store, &Catalogue::default()).await.unwrap());
    let shutdown = CancellationToken::new();
    tokio::spawn(Arc::clone(&cache).run(shutdown.clone()));
    (cache, shutdown)
}

fn names(snapshot: &Snapshot, prefix: &str) -> Vec<String> {
    snapshot.range(prefix, "").map(|(key, _)| key.to_string()).collect()
}

#[tokio::test]
async fn a_fresh_read_sees_the_write_before_it() {
    let store = Arc::new(Memory::new());
    store.create("/registry/configmaps/a/old".into(), stored("old", 0)).await.unwrap();
    let (cache, _shutdown) = started(&store).await;
    for count in 0..50 {
        let key = format!("/registry/configmaps/b/n{count}");
        let revision = store.create(key.into(), stored("n", count)).await.unwrap();
        assert!(cache.fresh().await.unwrap() >= revision.get());
        let snapshot = cache.resource("/registry/configmaps").snapshot();
        assert_eq!(snapshot.len(), count as usize + 2);
    }
    let snapshot = cache.resource("/registry/configmaps").snapshot();
    assert_eq!(names(&snapshot, "a/"), ["a/old"]);
    assert_eq!(names(&snapshot, "b/").len(), 50);
}

#[tokio::test]
async fn old_revisions_are_undone_from_the_ring() {
    let store = Arc::new(Memory::new());
    let (cache, _shutdown) = started(&store).await;
    let key = Bytes::from("/registry/configmaps/a/x");
    let first = store.create(key.clone(), stored("x", 1)).await.unwrap();
    let second = store.update(key.clone(), stored("x", 2), first).await.unwrap();
    let third = store.delete(key.clone(), second).await.unwrap();
    store.create("/registry/configmaps/a/y".into(), stored("y", 1)).await.unwrap();
    cache.fresh().await.unwrap();
    let resource = cache.resource("/registry/configmaps");
    let at = |revision: store_client::Revision| resource.snapshot_at(revision.get()).unwrap();
    assert_eq!(at(first).get("a/x").unwrap().value()["count"], 1);
    assert_eq!(at(second).get("a/x").unwrap().value()["count"], 2);
    assert!(at(third).is_empty());
    assert_eq!(names(&resource.snapshot(), ""), ["a/y"]);
    assert!(resource.snapshot_at(0).is_none());
}

#[tokio::test]
async fn a_slice_gets_its_events_only() {
    let store = Arc::new(Memory::new());
    let (cache, _shutdown) = started(&store).await;
    let resource = cache.resource("/registry/configmaps");
    store.create("/registry/configmaps/a/early".into(), stored("early", 1)).await.unwrap();
    cache.fresh().await.unwrap();
    let channel = resource.channel(&Slice::Namespace("a".to_owned()));
    store.create("/registry/configmaps/b/other".into(), stored("other", 1)).await.unwrap();
    store.create("/registry/configmaps/a/late".into(), stored("late", 1)).await.unwrap();
    cache.fresh().await.unwrap();
    let position = channel.position_after(1).unwrap();
    let keys: Vec<_> = channel.read(position).unwrap().iter().map(|event| event.key.to_string()).collect();
    assert_eq!(keys, ["a/early", "a/late"]);
    assert!(channel.position_after(0).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_does_not_come_is_a_timeout() {
    let (cache, _shutdown) = started(&Arc::new(Memory::new())).await;
    let status = cache.wait_for(1_000_000).await.unwrap_err();
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
}
