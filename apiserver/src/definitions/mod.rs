//! CustomResourceDefinitions at work: accepts their names, serves their rows, and removes their objects with them.
//!
//! One task, level-triggered: with every change of a definition it looks at all of them, writes the statuses that are
//! not as they should be, and swaps the catalogue. A definition is said to be established only when it is served.

mod facts;
mod plan;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use api::catalogue::{Catalogue, Resource};
use api::meta;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Duration, sleep};

use crate::bootstrap::{self, Error};
use crate::cache::Slice;
use crate::server::Server;

pub use facts::{Facts, Known};
pub use plan::{CLEANUP_FINALIZER, terminating, with_condition};
pub use rules::check as check_rules;

const GROUP: &str = "apiextensions.k8s.io";
const PLURAL: &str = "customresourcedefinitions";
/// Pause after a write that failed, and between looks at objects that wait for their finalizers.
const RETRY: Duration = Duration::from_secs(1);

/// Compiled rows of a definition, good as long as its spec and accepted names are.
struct Compiled {
    spec: Value,
    names: Value,
    rows: Vec<Arc<Resource>>,
}

/// Serves definitions until shutdown.
pub async fn run(server: Arc<Server>) {
    let Some((_, cache)) = server.resource(GROUP, PLURAL) else { return };
    let channel = cache.channel(&Slice::All);
    let mut changes = channel.subscribe();
    let mut compiled = HashMap::new();
    let builtin = Catalogue::builtin();
    loop {
        changes.mark_unchanged();
        let definitions: Vec<Value> = cache.snapshot().iter().map(|(_, item)| item.value()).collect();
        serve(&server, &builtin, &definitions, &mut compiled);
        let settled = settle(&server, &builtin, &definitions).await;
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep(RETRY), if !settled => {}
        }
    }
}

/// Puts the rows of all definitions whose names are accepted into the catalogue.
fn serve(server: &Server, builtin: &Catalogue, definitions: &[Value], compiled: &mut HashMap<String, Compiled>) {
    let mut rows = Vec::new();
    for definition in definitions.iter().filter(|definition| plan::is_served(definition)) {
        let name = meta::name(definition).to_owned();
        let (spec, names) = (&definition["spec"], &definition["status"]["acceptedNames"]);
        let known = compiled.get(&name).filter(|known| known.spec == *spec && known.names == *names);
        if known.is_none() {
            match api::catalogue::custom_rows(definition) {
                Ok(rows) => {
                    let (spec, names) = (spec.clone(), names.clone());
                    compiled.insert(name.clone(), Compiled { spec, names, rows });
                }
                Err(error) => {
                    tracing::error!(name, %error, "a custom resource definition cannot be served");
                    compiled.remove(&name);
                }
            }
        }
        rows.extend(compiled.get(&name).into_iter().flat_map(|known| known.rows.iter().cloned()));
    }
    let live: Vec<&str> = definitions.iter().map(meta::name).collect();
    compiled.retain(|name, _| live.contains(&name.as_str()));
    let known = Known::of(definitions, &server.definitions.load());
    server.definitions.store(Arc::new(known));
    let next = builtin.with(rows);
    let same = {
        let now = server.catalogue.load();
        now.iter().count() == next.iter().count() && now.iter().zip(next.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    if !same {
        server.catalogue.store(Arc::new(next));
    }
}

/// Writes statuses and removes objects of definitions on their way out. Returns whether nothing is left to do.
async fn settle(server: &Arc<Server>, builtin: &Catalogue, definitions: &[Value]) -> bool {
    let mut settled = true;
    for (name, status) in plan::statuses(definitions, builtin, Timestamp::now()) {
        let Some(definition) = definitions.iter().find(|definition| meta::name(definition) == name) else { continue };
        let mut next = definition.clone();
        next["status"] = status;
        settled &= done(&name, write(server, &format!("{name}/status"), &next).await);
    }
    for definition in definitions.iter().filter(|definition| plan::is_terminating(definition)) {
        settled &= done(meta::name(definition), clean_up(server, definition).await);
    }
    settled
}

/// A definition that cannot be settled does not hold up the others.
fn done(name: &str, result: Result<bool, Error>) -> bool {
    result.unwrap_or_else(|error| {
        tracing::warn!(name, %error, "settling a custom resource definition failed; trying again");
        false
    })
}

/// Deletes the objects of a definition; when none is left, lets the definition go. Returns whether it is done.
async fn clean_up(server: &Arc<Server>, definition: &Value) -> Result<bool, Error> {
    let (group, plural) =
        (plan::text(&definition["spec"]["group"]), plan::text(&definition["spec"]["names"]["plural"]));
    let cache = server.cache.resource(&format!("/registry/{group}/{plural}"));
    let snapshot = cache.snapshot();
    if snapshot.is_empty() {
        let mut next = definition.clone();
        next["status"] = plan::with_condition(definition, plan::removed(), Timestamp::now());
        if let Some(finalizers) = next["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != CLEANUP_FINALIZER);
        }
        return write(server, meta::name(definition), &next).await;
    }
    let catalogue = server.catalogue.load_full();
    let Some(row) = catalogue.preferred(group, plural) else { return Ok(false) };
    for (key, item) in snapshot.iter() {
        if meta::deletion_timestamp(&item.value()).is_some() {
            continue;
        }
        let path = match key.split_once('/') {
            Some((namespace, name)) => format!("namespaces/{namespace}/{plural}/{name}"),
            None => format!("{plural}/{key}"),
        };
        let path = format!("/apis/{group}/{}/{path}", row.version);
        match bootstrap::send(server, Method::DELETE, &path, None).await {
            Ok(_) | Err(Error::Refused { code: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // What has finalizers stays a while; there is no event of definitions when it goes.
    Ok(false)
}

/// Whether the write took effect; a definition that changed meanwhile is looked at again with its event.
async fn write(server: &Arc<Server>, below: &str, definition: &Value) -> Result<bool, Error> {
    let path = format!("/apis/{GROUP}/v1/{PLURAL}/{below}");
    match bootstrap::send(server, Method::PUT, &path, Some(definition)).await {
        Ok(_) => Ok(true),
        Err(Error::Refused { code: 404 | 409, .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
