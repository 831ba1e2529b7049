//! Conditional writes: who may write, what the record says afterwards, and what a refusal says.

use std::sync::Arc;

use super::key;
use crate::{Error, Revision, Store};

pub(super) async fn revisions_grow_and_name_the_write(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    let a = store.create(key("revisions", "a"), "1".into()).await.unwrap();
    let b = store.create(key("revisions", "b"), "1".into()).await.unwrap();
    let updated = store.update(key("revisions", "a"), "2".into(), a).await.unwrap();
    assert!(Revision::EMPTY < a, "the first write gets at least 2");
    assert!(before < a && a < b && b < updated);
    assert!(store.current_revision().await.unwrap() >= updated);
    let record = store.get(&key("revisions", "a")).await.unwrap().unwrap();
    assert_eq!(record.key, key("revisions", "a"));
    assert_eq!(record.value, "2");
    assert_eq!((record.mod_revision, record.create_revision, record.version), (updated, a, 2));
    let status = store.status().await.unwrap();
    assert!(status.revision >= updated && status.compacted <= status.revision);
    assert_eq!(store.get(&key("revisions", "none")).await.unwrap(), None);
}

pub(super) async fn create_refuses_an_existing_key(store: Arc<dyn Store>) {
    let name = key("create", "a");
    let revision = store.create(name.clone(), "1".into()).await.unwrap();
    match store.create(name.clone(), "2".into()).await {
        Err(Error::Exists { key }) => assert_eq!(key, name),
        other => panic!("{other:?}"),
    }
    let record = store.get(&name).await.unwrap().unwrap();
    assert_eq!((record.value, record.mod_revision), ("1".into(), revision));
}

pub(super) async fn update_needs_the_current_revision(store: Arc<dyn Store>) {
    let name = key("update", "a");
    assert!(matches!(store.update(name.clone(), "x".into(), Revision(2)).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.update(name.clone(), "x".into(), Revision::ZERO).await, Err(Error::NotFound { .. })));
    let first = store.create(name.clone(), "1".into()).await.unwrap();
    let second = store.update(name.clone(), "2".into(), first).await.unwrap();
    for stale in [first, Revision::ZERO, Revision(second.0 + 1000)] {
        match store.update(name.clone(), "3".into(), stale).await {
            Err(Error::Conflict { key, expected, current }) => {
                assert_eq!((key, expected), (name.clone(), stale));
                let current = current.expect("the record is there");
                assert_eq!((current.mod_revision, current.value), (second, "2".into()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.get(&name).await.unwrap().unwrap().value, "2");
}

pub(super) async fn delete_needs_the_current_revision(store: Arc<dyn Store>) {
    let name = key("delete", "a");
    assert!(matches!(store.delete(name.clone(), Revision(2)).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.delete(name.clone(), Revision::ZERO).await, Err(Error::NotFound { .. })));
    let first = store.create(name.clone(), "1".into()).await.unwrap();
    let second = store.update(name.clone(), "2".into(), first).await.unwrap();
    for stale in [first, Revision::ZERO] {
        match store.delete(name.clone(), stale).await {
            Err(Error::Conflict { current: Some(current), .. }) => assert_eq!(current.mod_revision, second),
            other => panic!("{other:?}"),
        }
    }
    let deleted = store.delete(name.clone(), second).await.unwrap();
    assert!(deleted > second);
    assert_eq!(store.get(&name).await.unwrap(), None);
    assert!(matches!(store.delete(name.clone(), second).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.update(name, "3".into(), second).await, Err(Error::NotFound { .. })));
}

pub(super) async fn a_deleted_key_starts_over(store: Arc<dyn Store>) {
    let name = key("again", "a");
    let first = store.create(name.clone(), "1".into()).await.unwrap();
    let second = store.update(name.clone(), "2".into(), first).await.unwrap();
    let deleted = store.delete(name.clone(), second).await.unwrap();
    let again = store.create(name.clone(), "3".into()).await.unwrap();
    assert!(again > deleted);
    let record = store.get(&name).await.unwrap().unwrap();
    assert_eq!((record.mod_revision, record.create_revision, record.version), (again, again, 1));
}
