//! What holds for a store restored from a backup, whatever engines it was taken from and restored to.

use std::sync::Arc;

use bytes::Bytes;

use super::{PATIENCE, events};
use crate::{Error, Range, Revision, Span, Store};

/// Checks a store that was just restored behind `base` with these keys and values, in key order.
pub async fn run(store: Arc<dyn Store>, base: Revision, expected: &[(Bytes, Bytes)]) {
    let page = store.range(Range::all()).await.unwrap();
    let found: Vec<_> = page.items.iter().map(|record| (record.key.clone(), record.value.clone())).collect();
    assert_eq!(found, expected);
    assert!(page.revision > base, "{} is above all that the old store gave out, {base}", page.revision);
    for record in &page.items {
        assert!(record.mod_revision > base && record.mod_revision <= page.revision, "{record:?}");
        assert_eq!(record.version, 1);
    }
    assert_eq!(store.status().await.unwrap().revision, page.revision);
    old_revisions_are_gone(&*store, base).await;
    writes_go_on(&*store, page.revision, expected).await;
}

async fn old_revisions_are_gone(store: &dyn Store, base: Revision) {
    for old in [Revision(5), Revision(base.0 - 1), base] {
        let error = store.range(Range::all().at(old)).await.expect_err("no such history");
        assert!(matches!(error, Error::Compacted { .. }), "range at {old}: {error}");
        let first = match store.watch(Span::all(), old).await {
            Ok(mut watch) => tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("an answer"),
            Err(error) => Err(error),
        };
        assert!(matches!(first, Err(Error::Compacted { .. })), "watch after {old}: {first:?}");
        store.compact(old).await.expect("done already");
    }
}

async fn writes_go_on(store: &dyn Store, restored: Revision, expected: &[(Bytes, Bytes)]) {
    let mut watch = store.watch(Span::all(), restored).await.unwrap();
    let (key, value) = expected.first().cloned().expect("something was restored");
    let stale = store.update(key.clone(), "stale".into(), Revision(5)).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "what was read before the restore is refused: {stale:?}");
    let stale = store.delete("/restored/no-such-key".into(), Revision(5)).await;
    assert!(matches!(stale, Err(Error::NotFound { .. })), "{stale:?}");
    let record = store.get(&key).await.unwrap().expect("restored");
    let updated = store.update(key.clone(), "new".into(), record.mod_revision).await.unwrap();
    assert_eq!(updated, restored.next());
    let back = store.update(key.clone(), value, updated).await.unwrap();
    let seen: Vec<_> = events(&mut watch, 2).await.iter().map(|event| event.revision).collect();
    assert_eq!(seen, [updated, back], "a watch continues where the restore ended, and shows none of it");
    assert_eq!(store.get(&key).await.unwrap().expect("still there").version, 3);
}
