//! Strategies as the API server runs them: defaults, then preparation, then validation. Each test names a rule of one
//! kind by what is sent and what comes back; the parts of a request that no rule looks at are left out.

mod metadata;
mod pod;
mod service;
mod storage;
mod workload;

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

fn context(subresource: &str, verb: Verb) -> Context<'_> {
    Context {
        verb,
        subresource,
        now: NOW.parse().expect("a time"),
        namespaced: true,
        has_status: true,
        requester: &Value::Null,
    }
}

fn cluster_scoped(group: &str, plural: &str) -> bool {
    matches!((group, plural), ("", "namespaces" | "nodes" | "persistentvolumes"))
        || matches!(plural, "clusterroles" | "ipaddresses" | "servicecidrs" | "storageclasses" | "priorityclasses")
}

/// The object with what the API server itself puts into metadata.
fn identified(group: &str, plural: &str, mut object: Value) -> Value {
    let metadata = meta::metadata_mut(&mut object);
    let mut put = |field: &str, value: &str| {
        metadata.entry(field).or_insert_with(|| value.into());
    };
    put("name", "a");
    put("uid", "1");
    put("creationTimestamp", NOW);
    if !cluster_scoped(group, plural) {
        put("namespace", "ns");
    }
    object
}

/// What a create stores, or (reason, field) of what is wrong.
fn create(group: &str, plural: &str, object: Value) -> Result<Value, Vec<(String, String)>> {
    let strategy = of(group, plural);
    let ctx = Context { namespaced: !cluster_scoped(group, plural), ..context("", Verb::Create) };
    let mut object = identified(group, plural, object);
    strategy.default(&mut object);
    strategy.prepare_create(&mut object, &ctx);
    causes(strategy.validate_create(&object, &ctx))?;
    meta::metadata_mut(&mut object).insert("resourceVersion".to_owned(), "1".into());
    Ok(object)
}

/// What an update by `change` of a stored object stores, or what is wrong with it.
fn update(
    (group, plural, subresource): (&str, &str, &str),
    old: &Value,
    change: impl FnOnce(&mut Value),
) -> Result<Value, Vec<(String, String)>> {
    let strategy = of(group, plural);
    let ctx = Context { namespaced: !cluster_scoped(group, plural), ..context(subresource, Verb::Update) };
    let mut new = old.clone();
    change(&mut new);
    strategy.default(&mut new);
    strategy.prepare_update(&mut new, old, &ctx);
    causes(strategy.validate_update(&new, old, &ctx))?;
    Ok(new)
}

fn causes(errors: Vec<field::Error>) -> Result<(), Vec<(String, String)>> {
    match errors.is_empty() {
        true => Ok(()),
        false => Err(errors.into_iter().map(|e| (e.kind.reason().to_string(), e.path)).collect()),
    }
}

/// Fails unless the write is refused for exactly these (reason without its "FieldValue", field), however often each.
#[track_caller]
fn refused(result: Result<Value, Vec<(String, String)>>, wanted: &[(&str, &str)]) {
    let mut found = result.expect_err("must be refused");
    found.sort();
    found.dedup();
    let mut wanted: Vec<_> = wanted.iter().map(|(r, path)| (format!("FieldValue{r}"), (*path).to_owned())).collect();
    wanted.sort();
    assert_eq!(found, wanted);
}

fn containers() -> Value {
    json!([{"name": "c", "image": "registry.example/app:1"}])
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": containers()}})
}
