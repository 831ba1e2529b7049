//! Sizes and bytes at the edge of what is allowed, and just beyond.

use std::sync::Arc;

use bytes::Bytes;

use super::{events, key, prefix};
use crate::{Change, Error, KEY_BYTES_MAX, Range, Revision, Span, Store, VALUE_BYTES_MAX};

/// Bytes without a pattern that a compressor or a text column would love.
fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push((state >> 56) as u8);
    }
    bytes.into()
}

pub(super) async fn large_values_survive(store: Arc<dyn Store>) {
    let after = store.current_revision().await.unwrap();
    let mut expected = Vec::new();
    for number in 0..6 {
        let value = noise(VALUE_BYTES_MAX, number);
        store.create(key("large", &number.to_string()), value.clone()).await.unwrap();
        expected.push(value);
    }
    let page = store.range(Range::prefix(prefix("large"))).await.unwrap();
    assert!(page.items.iter().map(|record| &record.value).eq(&expected), "a page of large values");
    let mut watch = store.watch(Span::prefix(prefix("large")), after).await.unwrap();
    let seen = events(&mut watch, expected.len()).await;
    assert!(seen.iter().filter_map(|event| event.record()).map(|record| &record.value).eq(&expected));
    for record in page.items {
        let revision = store.update(record.key.clone(), "small".into(), record.mod_revision).await.unwrap();
        store.delete(record.key, revision).await.unwrap();
    }
}

pub(super) async fn too_large_is_refused_by_name(store: Arc<dyn Store>) {
    let name = key("toolarge", "a");
    match store.create(name.clone(), noise(VALUE_BYTES_MAX + 1, 1)).await {
        Err(Error::TooLarge { key, bytes, max }) => {
            assert_eq!((key, bytes, max), (name.clone(), VALUE_BYTES_MAX + 1, VALUE_BYTES_MAX));
        }
        other => panic!("{other:?}"),
    }
    let long = Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    assert!(matches!(store.create(long.clone(), "v".into()).await, Err(Error::TooLarge { .. })));
    assert!(matches!(store.create(Bytes::new(), "v".into()).await, Err(Error::EmptyKey)));
    assert_eq!(store.get(&name).await.unwrap(), None);
    assert_eq!(store.get(b"").await.unwrap(), None);
    assert_eq!(store.get(&long).await.unwrap(), None);
}

pub(super) async fn odd_keys_are_only_bytes(store: Arc<dyn Store>) {
    let mut long = prefix("odd").to_vec();
    long.resize(KEY_BYTES_MAX, 0xfe);
    let tails: [&[u8]; 8] = [
        b"\0",
        b"\0\0",
        b" ",
        b"%2e%2e/..",
        b"a'; DROP TABLE log; --",
        "ключ\u{1F511}".as_bytes(),
        b"\xc3\x28",
        b"\xff\xff",
    ];
    let mut keys: Vec<Bytes> = tails.iter().map(|tail| [&prefix("odd")[..], tail].concat().into()).collect();
    keys.push(long.into());
    keys.push("\0".into());
    keys.push(Bytes::from_static(b"\xff\xff\xff"));
    let mut revisions = Vec::new();
    for key in &keys {
        revisions.push(store.create(key.clone(), key.clone()).await.unwrap());
    }
    for key in &keys {
        assert_eq!(store.get(key).await.unwrap().unwrap().value, key, "{}", key.escape_ascii());
    }
    let page = store.range(Range::prefix(prefix("odd"))).await.unwrap();
    let mut inside: Vec<&Bytes> = keys.iter().filter(|key| key.starts_with(&prefix("odd"))).collect();
    inside.sort();
    assert!(page.items.iter().map(|record| &record.key).eq(inside));
    let all = store.range(Range::all()).await.unwrap();
    assert_eq!(all.items.first().unwrap().key, "\0");
    assert_eq!(all.items.last().unwrap().key, &b"\xff\xff\xff"[..]);
    let last = store.range(Range::prefix(Bytes::from_static(b"\xff"))).await.unwrap();
    assert_eq!(last.items.len(), 1);
    for (key, revision) in keys.into_iter().zip(revisions) {
        store.delete(key, revision).await.unwrap();
    }
}

pub(super) async fn empty_values_are_not_deletions(store: Arc<dyn Store>) {
    let name = key("empty", "a");
    let created = store.create(name.clone(), Bytes::new()).await.unwrap();
    let record = store.get(&name).await.unwrap().expect("an empty value is a value");
    assert_eq!(record.value, "");
    let updated = store.update(name.clone(), Bytes::new(), created).await.unwrap();
    store.delete(name.clone(), updated).await.unwrap();
    let mut watch = store.watch(Span::key(name), Revision(created.0 - 1)).await.unwrap();
    let seen = events(&mut watch, 3).await;
    let is_delete: Vec<bool> = seen.iter().map(|event| event.change == Change::Delete).collect();
    assert_eq!(is_delete, [false, false, true]);
}
