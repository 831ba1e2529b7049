//! Watches: where they start, what they deliver, and how they continue.

use std::sync::Arc;

use super::{PATIENCE, events, key, next, prefix};
use crate::{Change, Event, Revision, Span, Store};

/// Create, update, delete and create again: the history most cases look at.
async fn history(store: &dyn Store, case: &str) -> Vec<Revision> {
    let name = key(case, "a");
    let r1 = store.create(name.clone(), "1".into()).await.unwrap();
    let r2 = store.update(name.clone(), "2".into(), r1).await.unwrap();
    let r3 = store.delete(name.clone(), r2).await.unwrap();
    let r4 = store.create(name, "3".into()).await.unwrap();
    vec![r1, r2, r3, r4]
}

fn revisions(events: &[Event]) -> Vec<Revision> {
    events.iter().map(|event| event.revision).collect()
}

pub(super) async fn a_watch_starts_behind_its_revision(store: Arc<dyn Store>) {
    let written = history(&*store, "start").await;
    for skip in 0..written.len() {
        let after = if skip == 0 { Revision(written[0].0 - 1) } else { written[skip - 1] };
        let mut watch = store.watch(Span::prefix(prefix("start")), after).await.unwrap();
        let seen = events(&mut watch, written.len() - skip).await;
        assert_eq!(revisions(&seen), written[skip..], "after {after}");
    }
}

pub(super) async fn a_watch_delivers_history_then_news(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    let mut written = history(&*store, "news").await;
    let mut watch = store.watch(Span::prefix(prefix("news")), before).await.unwrap();
    let old = events(&mut watch, 4).await;
    assert_eq!(revisions(&old), written);
    let values: Vec<Option<&[u8]>> = old.iter().map(|event| event.record().map(|record| &record.value[..])).collect();
    assert_eq!(values, [Some(b"1" as &[u8]), Some(b"2"), None, Some(b"3")]);
    let versions: Vec<u64> = old.iter().filter_map(|event| event.record().map(|record| record.version)).collect();
    assert_eq!(versions, [1, 2, 1]);
    assert_eq!(old[1].record().unwrap().create_revision, written[0]);
    let last = written.pop().unwrap();
    let deleted = store.delete(key("news", "a"), last).await.unwrap();
    let seen = events(&mut watch, 1).await;
    assert_eq!(seen, [Event { revision: deleted, key: key("news", "a"), change: Change::Delete }]);
}

pub(super) async fn a_watch_sees_its_span_only(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    let mut one = store.watch(Span::key(key("span", "b")), before).await.unwrap();
    let mut some = store.watch(Span::prefix(key("span", "b")), before).await.unwrap();
    for name in ["a", "b", "b\0", "b1", "c"] {
        store.create(key("span", name), "v".into()).await.unwrap();
    }
    let end = store.create(key("span", "bz"), "v".into()).await.unwrap();
    let names = |events: &[Event]| events.iter().map(|event| event.key.clone()).collect::<Vec<_>>();
    let expected = ["b", "b\0", "b1", "bz"].map(|name| key("span", name));
    let seen = events(&mut some, 4).await;
    assert_eq!(names(&seen), expected);
    assert_eq!(seen.last().unwrap().revision, end);
    assert_eq!(names(&events(&mut one, 1).await), [key("span", "b")]);
}

pub(super) async fn a_restarted_watch_continues(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    let mut written = Vec::new();
    for number in 0..40 {
        written.push(store.create(key("restart", &number.to_string()), "v".into()).await.unwrap());
    }
    let mut seen = Vec::new();
    let mut progress = before;
    while seen.len() < written.len() {
        let mut watch = store.watch(Span::prefix(prefix("restart")), progress).await.unwrap();
        let batch = next(&mut watch).await;
        // Only part of the batch is used: the watch goes on from the last revision that was.
        let used = batch.events.len().min(7);
        progress = match used {
            0 => batch.progress,
            used => batch.events[used - 1].revision,
        };
        seen.extend(revisions(&batch.events[..used]));
    }
    assert_eq!(seen, written);
}

pub(super) async fn a_start_in_the_future_waits(store: Arc<dyn Store>) {
    let current = store.current_revision().await.unwrap();
    let mut watch = store.watch(Span::prefix(prefix("later")), Revision(current.0 + 2)).await.unwrap();
    let mut written = Vec::new();
    for number in 0..4 {
        written.push(store.create(key("later", &number.to_string()), "v".into()).await.unwrap());
    }
    let expected: Vec<Revision> = written.into_iter().filter(|revision| revision.0 > current.0 + 2).collect();
    assert_eq!(revisions(&events(&mut watch, expected.len()).await), expected);
}

pub(super) async fn the_whole_key_space_reaches_the_current_revision(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    let mut watch = store.watch(Span::all(), before).await.unwrap();
    let name = key("fresh", "a");
    let mut last = store.create(name.clone(), "0".into()).await.unwrap();
    for number in 1..10 {
        last = store.update(name.clone(), number.to_string().into(), last).await.unwrap();
        let current = store.current_revision().await.unwrap();
        assert!(current >= last, "current {current} is not behind the write {last}");
        let reached = async { while next(&mut watch).await.progress < current {} };
        tokio::time::timeout(PATIENCE, reached).await.expect("the watch becomes fresh");
    }
}
