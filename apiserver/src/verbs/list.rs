//! `list`: a range of the cache, now or at an old revision, in pages.

use std::sync::Arc;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store_client::{Range, Revision};

use api::status::Status;

use super::Target;
use super::continuation::{self, NEWEST, Token};
use super::list_options::{ListOptions, Match};
use crate::body::Body;
use crate::cache::{Item, Snapshot};
use crate::encode::{self, Forms, ItemSource, ListBody, ListHead, Media};
use crate::status::from_store;

/// One page of a list.
pub struct Page {
    pub revision: u64,
    /// Cache keys and objects in key order.
    pub items: Vec<(Arc<str>, Arc<Item>)>,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

pub async fn list(target: &Target) -> Result<Response<Body>, Status> {
    let options = ListOptions::parse(&target.call.query, &target.resource, false)?;
    let page = match page(target, &options).await {
        Ok(page) => page,
        Err(Failure::Expired(status, token)) => return Ok(expired(target, &status, &token)),
        Err(Failure::Status(status)) => return Err(status),
    };
    respond(target, page)
}

pub enum Failure {
    Status(Status),
    /// The token's revision is gone; the second is a token to go on with.
    Expired(Status, String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Objects that match, at the revision asked for.
pub async fn page(target: &Target, options: &ListOptions) -> Result<Page, Failure> {
    if !options.continue_token.is_empty() {
        if options.resource_version.is_some_and(|revision| revision != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue").into());
        }
        return next_page(target, options).await;
    }
    let cache = &target.server.cache;
    // A limit with a revision and no match means that very revision: upstream's legacy rule.
    let exact = options.matching == Match::Exact || (options.matching == Match::Unset && options.limit > 0);
    let (snapshot, revision) = match options.resource_version {
        Some(0) => newest(target, cache.revision()),
        Some(revision) if exact => {
            cache.wait_for(revision).await?;
            let snapshot = snapshot_at(target, revision).await.map_err(|error| match error {
                store_client::Error::Compacted { .. } => {
                    Status::expired(format!("The provided resource version is too old: {revision}"))
                }
                other => from_store(&other),
            })?;
            (snapshot, revision)
        }
        Some(revision) => {
            let reached = cache.wait_for(revision).await?;
            newest(target, reached)
        }
        None => {
            let reached = target.fresh().await?;
            newest(target, reached)
        }
    };
    // Any state will do: upstream's cache then answers the whole list.
    let limit = if options.resource_version == Some(0) { 0 } else { options.limit };
    Ok(select(target, options, &snapshot, revision, "", limit))
}

/// The newest snapshot and the revision it shows. It may hold changes behind `reached` already.
fn newest(target: &Target, reached: u64) -> (Arc<Snapshot>, u64) {
    let snapshot = target.cache.snapshot();
    let revision = reached.max(snapshot.revision());
    (snapshot, revision)
}

async fn next_page(target: &Target, options: &ListOptions) -> Result<Page, Failure> {
    let token = Token::decode(&options.continue_token)?;
    if token.rv == NEWEST {
        let reached = target.fresh().await?;
        let (snapshot, revision) = newest(target, reached);
        return Ok(select(target, options, &snapshot, revision, &token.start, options.limit));
    }
    let revision = u64::try_from(token.rv).map_err(|_| Status::bad_request("continue key is not valid"))?;
    target.server.cache.wait_for(revision).await?;
    let snapshot = snapshot_at(target, revision).await.map_err(|error| match error {
        store_client::Error::Compacted { .. } => {
            let (status, token) = continuation::expired(token.start.clone());
            Failure::Expired(status, token)
        }
        other => from_store(&other).into(),
    })?;
    Ok(select(target, options, &snapshot, revision, &token.start, options.limit))
}

/// The objects at an old revision: from the cache's recent events, else from the store's history.
async fn snapshot_at(target: &Target, revision: u64) -> Result<Arc<Snapshot>, store_client::Error> {
    if let Some(snapshot) = target.cache.snapshot_at(revision) {
        return Ok(snapshot);
    }
    let prefix = format!("{}/", target.resource.storage_prefix());
    let page = target.server.store.range(Range::prefix(prefix.clone()).at(Revision(revision))).await?;
    let records = page.items.iter().filter_map(|record| {
        let key = std::str::from_utf8(&record.key).ok()?.strip_prefix(prefix.as_str())?;
        Some((key, &record.value[..], record.mod_revision.get()))
    });
    Ok(Arc::new(target.cache.read(records, revision)))
}

/// The first `limit` matching objects (0 for all) not before `start`.
fn select(
    target: &Target,
    options: &ListOptions,
    snapshot: &Snapshot,
    revision: u64,
    start: &str,
    limit: usize,
) -> Page {
    let prefix = if target.namespace().is_empty() { String::new() } else { format!("{}/", target.namespace()) };
    let start = format!("{prefix}{start}");
    let selection = &options.selection;
    let mut page = Page { revision, items: Vec::new(), continue_token: String::new(), remaining: None };
    let matches = |key: &str, item: &Item| selection.matches(&target.resource, key, item);
    if let Some(value) = selection.indexed().filter(|_| target.cache.indexed()) {
        let found = snapshot.indexed(value).filter(|(key, item)| key.starts_with(&prefix) && matches(key, item));
        page.items.extend(found.map(|(key, item)| (Arc::from(key), Arc::clone(item))));
        return page;
    }
    if let Some(name) = selection.name().filter(|_| !prefix.is_empty() || !target.resource.namespaced()) {
        let key = format!("{prefix}{name}");
        let found = snapshot.get(&key).filter(|item| matches(&key, item));
        page.items.extend(found.map(|item| (Arc::from(key.as_str()), Arc::clone(item))));
        return page;
    }
    let mut range = snapshot.range(&prefix, &start);
    for (key, item) in range.by_ref() {
        if limit > 0 && page.items.len() == limit {
            let last = &page.items[limit - 1].0[prefix.len()..];
            page.continue_token = Token::new(revision as i64, format!("{last}\0")).encode();
            page.remaining = selection.is_everything().then(|| range.count() as u64 + 1);
            break;
        }
        if matches(key, item) {
            page.items.push((Arc::clone(key), Arc::clone(item)));
        }
    }
    page
}

/// Everything that matches in a snapshot.
pub fn everything(target: &Target, options: &ListOptions, snapshot: &Snapshot) -> Vec<(Arc<str>, Arc<Item>)> {
    select(target, options, snapshot, 0, "", 0).items
}

pub fn respond(target: &Target, page: Page) -> Result<Response<Body>, Status> {
    let resource = &target.resource;
    let form = &target.form;
    let head = ListHead {
        kind: resource.list_kind.clone(),
        api_version: resource.api_version(),
        resource_version: page.revision,
        continue_token: page.continue_token,
        remaining: page.remaining,
    };
    let forms = Forms::new(resource, form)?;
    if target.is_plain() && forms.is_identity() && form.media == Media::Json && !form.pretty {
        let source = if resource.custom { ItemSource::Typed } else { ItemSource::Untyped };
        let items = page.items.into_iter().map(|(_, item)| item).collect();
        return Ok(stream(ListBody::new(&head, items, source), form));
    }
    let objects = page.items.iter().map(|(_, item)| target.requested(item.value()));
    if let Some(converted) = (!forms.is_identity()).then(|| forms.of_list(objects.clone(), head.metadata())).flatten() {
        return encode::plain(StatusCode::OK, &converted, form);
    }
    let items: Vec<Value> = objects.map(|object| encode::list_item(object, resource.custom)).collect();
    let list = json!({"kind": head.kind, "apiVersion": head.api_version, "metadata": head.metadata(), "items": items});
    encode::plain(StatusCode::OK, &list, form)
}

fn stream(list: ListBody, form: &encode::Form) -> Response<Body> {
    let size = http_body::Body::size_hint(&list).lower() as usize;
    let base = encode::base(StatusCode::OK, Media::Json);
    if form.gzip && size >= encode::GZIP_BYTES_MIN {
        return encode::gzipped(base, list.boxed_unsync());
    }
    base.map(|()| list.boxed_unsync())
}

fn expired(target: &Target, status: &Status, token: &str) -> Response<Body> {
    let mut value = status.to_json();
    value["metadata"]["continue"] = token.into();
    crate::status::response_of(status, &value, &target.form)
}
