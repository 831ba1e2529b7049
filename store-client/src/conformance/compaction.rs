//! Compaction: what stays, what is refused, and that nobody misses an event without being told.

use std::sync::Arc;

use super::{PATIENCE, events, key, prefix};
use crate::{Error, Event, Range, Result, Revision, Span, Store};

/// Twenty updates of one key, one deleted key, and the revision after them.
async fn history(store: &dyn Store, case: &str) -> (Revision, Revision) {
    let first = store.create(key(case, "a"), "0".into()).await.unwrap();
    let mut last = first;
    for number in 1..20 {
        last = store.update(key(case, "a"), number.to_string().into(), last).await.unwrap();
    }
    let gone = store.create(key(case, "gone"), "v".into()).await.unwrap();
    (first, store.delete(key(case, "gone"), gone).await.unwrap())
}

pub(super) async fn compaction_keeps_what_is_current(store: Arc<dyn Store>) {
    let untouched = store.create(key("keep", "old"), "v".into()).await.unwrap();
    let (_, last) = history(&*store, "keep").await;
    store.compact(last).await.unwrap();
    let expect = |page: crate::Page| {
        let records: Vec<_> = page.items.iter().map(|record| (record.key.clone(), record.value.clone())).collect();
        assert_eq!(records, [(key("keep", "a"), "19".into()), (key("keep", "old"), "v".into())]);
        assert_eq!((page.items[0].version, page.items[1].mod_revision), (20, untouched));
    };
    expect(store.range(Range::prefix(prefix("keep"))).await.unwrap());
    expect(store.range(Range::prefix(prefix("keep")).at(last)).await.unwrap());
    assert_eq!(store.get(&key("keep", "gone")).await.unwrap(), None);
    let again = store.create(key("keep", "gone"), "v".into()).await.unwrap();
    let mut watch = store.watch(Span::prefix(prefix("keep")), last).await.unwrap();
    assert_eq!(events(&mut watch, 1).await[0].revision, again, "watches continue from the compacted revision");
}

pub(super) async fn compacted_revisions_are_refused(store: Arc<dyn Store>) {
    let (first, last) = history(&*store, "refuse").await;
    store.compact(last).await.unwrap();
    store.compact(last).await.expect("again is fine");
    store.compact(first).await.expect("an older one is done already");
    let is_compacted = |error: &Error| matches!(error, Error::Compacted { compacted, .. } if *compacted >= last);
    for old in [Revision::ZERO.next(), first, Revision(last.0 - 2)] {
        let error = store.range(Range::prefix(prefix("refuse")).at(old)).await.expect_err("no such history");
        assert!(is_compacted(&error), "range at {old}: {error}");
        let error = watch_error(&*store, "refuse", old).await;
        assert!(is_compacted(&error), "watch after {old}: {error}");
    }
    match store.compact(Revision(last.0 + 1_000_000)).await {
        Err(Error::Future { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(store.status().await.unwrap().compacted >= last);
}

/// The error of a watch that cannot start: at once, or as its first item.
async fn watch_error(store: &dyn Store, case: &str, after: Revision) -> Error {
    let mut watch = match store.watch(Span::prefix(prefix(case)), after).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    let first = tokio::time::timeout(PATIENCE, watch.next()).await.expect("an answer in time");
    let error = first.expect("an answer").expect_err("the start is compacted");
    assert!(watch.next().await.is_none(), "the watch ends after its error");
    error
}

pub(super) async fn a_late_watcher_never_skips(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    let mut watch = store.watch(Span::prefix(prefix("late")), before).await.unwrap();
    let (_, last) = history(&*store, "late").await;
    store.compact(last).await.unwrap();
    store.create(key("late", "end"), "v".into()).await.unwrap();
    let mut seen: Vec<Event> = Vec::new();
    let outcome: Result<()> = loop {
        match tokio::time::timeout(PATIENCE, watch.next()).await.expect("an answer in time").expect("an answer") {
            Ok(batch) => seen.extend(batch.events),
            Err(error) => break Err(error),
        }
        if seen.len() == 23 {
            break Ok(());
        }
    };
    // An engine may have had the events on the way already; otherwise it says that they are gone.
    let is_prefix = seen.windows(2).all(|pair| pair[1].revision == pair[0].revision.next());
    assert!(is_prefix && seen.first().is_none_or(|event| event.revision == before.next()), "no gap: {seen:?}");
    match outcome {
        Ok(()) => {}
        Err(Error::Compacted { .. }) => assert!(seen.len() < 23),
        Err(error) => panic!("{error}"),
    }
}
