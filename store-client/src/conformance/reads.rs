//! Ranges: order, bounds, limits, and reading at an old revision.

use std::sync::Arc;

use bytes::Bytes;

use super::{key, prefix};
use crate::{Error, Page, Range, Revision, Span, Store};

fn names(page: &Page) -> Vec<&[u8]> {
    page.items.iter().map(|record| record.key.rsplit(|byte| *byte == b'/').next().unwrap_or_default()).collect()
}

async fn fill(store: &dyn Store, case: &str, names: &[&str]) -> Revision {
    let mut last = Revision::ZERO;
    for name in names {
        last = store.create(key(case, name), Bytes::copy_from_slice(name.as_bytes())).await.unwrap();
    }
    last
}

pub(super) async fn ranges_are_ordered_and_bounded(store: Arc<dyn Store>) {
    let last = fill(&*store, "ranges", &["c", "a", "b0", "b"]).await;
    let page = store.range(Range::prefix(prefix("ranges"))).await.unwrap();
    assert_eq!(names(&page), [b"a" as &[u8], b"b", b"b0", b"c"]);
    assert_eq!((page.more, page.remaining), (false, 0));
    assert!(page.revision >= last);
    assert!(page.items.iter().all(|record| record.key.ends_with(&record.value)));
    let middle = Span { start: key("ranges", "b"), end: Some(key("ranges", "c")) };
    assert_eq!(names(&store.range(middle.into()).await.unwrap()), [b"b" as &[u8], b"b0"]);
    let single = store.range(Span::key(key("ranges", "b")).into()).await.unwrap();
    assert_eq!(names(&single), [b"b" as &[u8]]);
    let backwards = Span { start: key("ranges", "c"), end: Some(key("ranges", "a")) };
    assert!(store.range(backwards.into()).await.unwrap().items.is_empty());
    let all = store.range(Range::all()).await.unwrap();
    assert!(all.items.len() >= 4 && all.items.is_sorted_by(|a, b| a.key < b.key));
    let from = Range { start: key("ranges", "b0"), end: None, at: None, limit: 2 };
    assert_eq!(names(&store.range(from).await.unwrap()), [b"b0" as &[u8], b"c"]);
}

pub(super) async fn limits_page_through_a_fixed_revision(store: Arc<dyn Store>) {
    let all: Vec<String> = (0..25).map(|number| format!("{number:02}")).collect();
    fill(&*store, "pages", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut range = Range::prefix(prefix("pages")).limit(10);
    let mut seen = Vec::new();
    let mut rest = vec![15, 5, 0];
    rest.reverse();
    loop {
        let page = store.range(range.clone()).await.unwrap();
        assert_eq!(page.remaining, rest.pop().unwrap());
        assert_eq!(page.more, page.remaining > 0);
        seen.extend(page.items.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()));
        // Changes between pages do not show at the revision of the first page.
        let name = key("pages", &format!("{:02}x", seen.len()));
        store.create(name, "new".into()).await.unwrap();
        if !page.more {
            break;
        }
        range = range.at(page.revision).after_key(&page.items.last().unwrap().key);
    }
    assert_eq!(seen, all);
    let exact = store.range(Range::prefix(prefix("pages")).limit(28)).await.unwrap();
    assert_eq!((exact.items.len(), exact.more, exact.remaining), (28, false, 0));
}

pub(super) async fn old_revisions_stay_readable(store: Arc<dyn Store>) {
    let (a, b) = (key("old", "a"), key("old", "b"));
    let r1 = store.create(a.clone(), "a1".into()).await.unwrap();
    let r2 = store.create(b.clone(), "b1".into()).await.unwrap();
    let r3 = store.update(a.clone(), "a2".into(), r1).await.unwrap();
    let r4 = store.delete(b.clone(), r2).await.unwrap();
    let r5 = store.create(b.clone(), "b2".into()).await.unwrap();
    let expected: [(Revision, &[&str]); 6] = [
        (Revision(r1.0 - 1), &[]),
        (r1, &["a1"]),
        (r2, &["a1", "b1"]),
        (r3, &["a2", "b1"]),
        (r4, &["a2"]),
        (r5, &["a2", "b2"]),
    ];
    for (revision, values) in expected {
        let page = store.range(Range::prefix(prefix("old")).at(revision)).await.unwrap();
        assert_eq!(page.revision, revision);
        assert!(
            page.items.iter().map(|record| &record.value[..]).eq(values.iter().map(|value| value.as_bytes())),
            "at {revision}: {page:?}"
        );
    }
    let page = store.range(Range::prefix(prefix("old")).at(r2)).await.unwrap();
    assert_eq!((page.items[0].mod_revision, page.items[0].version), (r1, 1));
}

pub(super) async fn future_revisions_are_refused(store: Arc<dyn Store>) {
    let current = store.create(key("future", "a"), "1".into()).await.unwrap();
    let asked = Revision(current.0 + 1_000_000);
    match store.range(Range::prefix(prefix("future")).at(asked)).await {
        Err(Error::Future { requested, current: newest }) => assert!(requested == asked && newest >= current),
        other => panic!("{other:?}"),
    }
}
