//! Many writers at once: exactly one wins, nothing is lost, and every watcher tells the same story.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{check_batch, events, key, next, prefix};
use crate::{Error, Event, Range, Revision, Span, Store};

const WRITERS: usize = 16;

async fn join<T: 'static>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no writer panics"));
    }
    outcomes
}

pub(super) async fn one_of_many_creators_wins(store: Arc<dyn Store>) {
    for round in 0..5 {
        let name = key("creators", &round.to_string());
        let tasks = (0..WRITERS).map(|writer| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move { (writer, store.create(name, writer.to_string().into()).await) })
        });
        let outcomes = join(tasks.collect()).await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
        assert_eq!(won.len(), 1);
        assert!(lost.iter().all(|(_, outcome)| matches!(outcome, Err(Error::Exists { .. }))), "{lost:?}");
        let record = store.get(&name).await.unwrap().unwrap();
        let (writer, revision) = &won[0];
        assert_eq!(record.value, writer.to_string());
        assert_eq!(record.mod_revision, *revision.as_ref().unwrap());
    }
}

pub(super) async fn one_of_many_updaters_wins(store: Arc<dyn Store>) {
    let name = key("updaters", "a");
    let mut revision = store.create(name.clone(), "start".into()).await.unwrap();
    for _ in 0..5 {
        let tasks = (0..WRITERS).map(|writer| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move {
                // Some want it gone: whichever comes first, the others must lose.
                if writer % 4 == 3 {
                    store.delete(name, revision).await
                } else {
                    store.update(name, writer.to_string().into(), revision).await
                }
            })
        });
        let outcomes = join(tasks.collect()).await;
        let won: Vec<Revision> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok().copied()).collect();
        assert_eq!(won.len(), 1, "{outcomes:?}");
        let refused = |error: &Error| matches!(error, Error::Conflict { .. } | Error::NotFound { .. });
        assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(refused), "{outcomes:?}");
        revision = match store.get(&name).await.unwrap() {
            Some(record) => {
                assert_eq!(record.mod_revision, won[0]);
                record.mod_revision
            }
            None => store.create(name.clone(), "again".into()).await.unwrap(),
        };
    }
}

pub(super) async fn counting_loses_nothing(store: Arc<dyn Store>) {
    const EACH: usize = 10;
    let name = key("counter", "a");
    store.create(name.clone(), "0".into()).await.unwrap();
    let tasks = (0..8).map(|_| {
        let (store, name) = (store.clone(), name.clone());
        tokio::spawn(async move {
            for _ in 0..EACH {
                add_one(&*store, &name).await;
            }
        })
    });
    join(tasks.collect()).await;
    let record = store.get(&name).await.unwrap().unwrap();
    assert_eq!(record.value, (8 * EACH).to_string());
    assert_eq!(record.version, 8 * EACH as u64 + 1);
}

/// Read, add, write if unchanged; a refusal brings the record to go on with.
async fn add_one(store: &dyn Store, name: &Bytes) {
    let mut record = store.get(name).await.unwrap().expect("nobody deletes it");
    loop {
        let count: usize = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
        match store.update(name.clone(), (count + 1).to_string().into(), record.mod_revision).await {
            Ok(_) => return,
            Err(Error::Conflict { current: Some(current), .. }) => record = *current,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What one writer does to its own keys: everything it was told is returned, in order.
async fn churn(store: Arc<dyn Store>, case: &'static str, writer: usize) -> Vec<Revision> {
    let mut written = Vec::new();
    for round in 0..6 {
        let name = key(case, &format!("{writer:02}-{}", round % 2));
        let created = store.create(name.clone(), format!("{round}").into()).await.unwrap();
        let updated = store.update(name.clone(), format!("{round}u").into(), created).await.unwrap();
        written.extend([created, updated]);
        if round < 4 {
            written.push(store.delete(name, updated).await.unwrap());
        }
    }
    written
}

pub(super) async fn watchers_agree_under_concurrent_writers(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    let mut early = store.watch(Span::prefix(prefix("churn")), before).await.unwrap();
    let tasks: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(churn(store.clone(), "churn", writer))).collect();
    let restarting = tokio::spawn(restarting_watcher(store.clone(), before, WRITERS * 16));
    let mut written: Vec<Revision> = join(tasks).await.into_iter().flatten().collect();
    written.sort();
    assert!(written.windows(2).all(|pair| pair[0] < pair[1]), "every write has its own revision");
    let early = events(&mut early, written.len()).await;
    assert_eq!(early.iter().map(|event| event.revision).collect::<Vec<_>>(), written, "each write once, in order");
    let mut late = store.watch(Span::prefix(prefix("churn")), before).await.unwrap();
    assert_eq!(events(&mut late, written.len()).await, early);
    assert_eq!(restarting.await.expect("the watcher does not panic"), early);
    check_replay(&*store, "churn", &early).await;
}

/// Watches only a batch at a time, from where the last one ended.
async fn restarting_watcher(store: Arc<dyn Store>, after: Revision, count: usize) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    let mut progress = after;
    while seen.len() < count {
        let mut watch = store.watch(Span::prefix(prefix("churn")), progress).await.unwrap();
        let batch = next(&mut watch).await;
        check_batch(seen.last().map(|event| event.revision), &batch);
        assert!(batch.progress > progress, "a batch is progress");
        progress = batch.progress;
        seen.extend(batch.events);
    }
    seen
}

/// Applying the events one after the other gives what a range at their revision shows.
async fn check_replay(store: &dyn Store, case: &str, events: &[Event]) {
    let mut state: BTreeMap<Bytes, (Bytes, Revision)> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        match event.record() {
            Some(record) => state.insert(event.key.clone(), (record.value.clone(), event.revision)),
            None => state.remove(&event.key),
        };
        if number % 16 == 0 || number + 1 == events.len() {
            let page = store.range(Range::prefix(prefix(case)).at(event.revision)).await.unwrap();
            let found = page.items.into_iter().map(|record| (record.key, (record.value, record.mod_revision)));
            assert_eq!(found.collect::<BTreeMap<_, _>>(), state, "at {}", event.revision);
        }
    }
}

pub(super) async fn dropped_writes_leave_no_contradiction(store: Arc<dyn Store>) {
    let before = store.current_revision().await.unwrap();
    for number in 0..64 {
        let (writer, name) = (store.clone(), key("dropped", &number.to_string()));
        let task = tokio::spawn(async move { writer.create(name, "v".into()).await });
        tokio::task::yield_now().await;
        task.abort();
        // Cancelled or done in time, both are fine; a panic is not.
        assert!(!task.await.is_err_and(|error| error.is_panic()));
    }
    let marker = store.create(key("dropped", "marker"), "v".into()).await.unwrap();
    let mut watch = store.watch(Span::prefix(prefix("dropped")), before).await.unwrap();
    let mut seen: Vec<Event> = Vec::new();
    while seen.last().is_none_or(|event| event.revision < marker) {
        seen.extend(next(&mut watch).await.events);
    }
    check_replay(&*store, "dropped", &seen).await;
}
