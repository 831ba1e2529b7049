//! `watch`: the present state as events where asked for, then every change, from a cursor into the cache's event ring.

mod encode;
mod stream;

use std::sync::Arc;

use http::{Response, StatusCode};
use rand::RngExt;
use tokio::time::{Duration, Instant};

use api::selector::FieldTerm;
use api::status::Status;

use super::Target;
use super::list_options::ListOptions;
use crate::body::Body;
use crate::cache::{Item, Slice};
use crate::encode::Media;
use encode::Encoder;
use stream::Stream;

/// A watch without `timeoutSeconds` lasts between this and twice this (upstream's `minRequestTimeout`).
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);

/// Where a watch begins.
struct Start {
    /// Objects sent as additions first.
    initial: Vec<(Arc<str>, Arc<Item>)>,
    /// Events after this revision follow.
    after: u64,
    /// A bookmark marks the end of the initial events.
    marks_end: bool,
}

pub async fn watch(target: &Target) -> Result<Response<Body>, Status> {
    let mut options = ListOptions::parse(&target.call.query, &target.resource, true)?;
    if target.form.media != Media::Json {
        return Err(Status::not_acceptable(
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ));
    }
    // The old /watch/ paths name one object.
    if !target.name().is_empty() {
        let (field, value) = ("metadata.name".to_owned(), target.name().to_owned());
        options.selection.fields.terms.push(FieldTerm { field, value, negated: false });
    }
    let encoder = Encoder::new(target, options.selection.clone())?;
    // Subscribed before the snapshot is taken, so that nothing falls between.
    let channel = target.cache.channel(&slice(target, &options));
    let start = start(target, &options).await?;
    let timeout = match options.timeout_seconds.filter(|seconds| *seconds > 0) {
        Some(seconds) => Duration::from_secs(seconds),
        None => TIMEOUT_MIN.mul_f64(1.0 + rand::rng().random::<f64>()),
    };
    let stream = Stream::new(&target.server, channel, encoder, start, options.bookmarks, Instant::now() + timeout);
    let response = crate::encode::base(StatusCode::OK, Media::Json);
    Ok(response.map(|()| stream.into_body()))
}

/// The narrowest slice of events that holds all a watcher asks for.
fn slice(target: &Target, options: &ListOptions) -> Slice {
    let selection = &options.selection;
    let namespace = target.namespace();
    match (selection.name(), selection.indexed()) {
        (Some(name), _) if !target.resource.namespaced() || !namespace.is_empty() => {
            Slice::Object(target.key(namespace, name))
        }
        (_, Some(value)) if target.cache.indexed() => Slice::Indexed(value.to_owned()),
        _ if !namespace.is_empty() => Slice::Namespace(namespace.to_owned()),
        _ => Slice::All,
    }
}

async fn start(target: &Target, options: &ListOptions) -> Result<Start, Status> {
    let cache = &target.server.cache;
    let initial = options.send_initial_events;
    let reached = match options.resource_version {
        None => target.fresh().await?,
        Some(0) => cache.revision(),
        Some(revision) if initial.is_some() => cache.wait_for(revision).await?,
        // From that revision on, without the state at it.
        Some(revision) => return Ok(Start { initial: Vec::new(), after: revision, marks_end: false }),
    };
    if initial == Some(false) {
        let after = options.resource_version.filter(|revision| *revision > 0).unwrap_or(reached);
        return Ok(Start { initial: Vec::new(), after, marks_end: false });
    }
    let snapshot = target.cache.snapshot();
    let after = reached.max(snapshot.revision());
    let initial_items = super::list::everything(target, options, &snapshot);
    Ok(Start { initial: initial_items, after, marks_end: initial == Some(true) && options.bookmarks })
}
