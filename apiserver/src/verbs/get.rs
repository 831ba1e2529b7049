//! `get`: one object, from the cache.

use http::{Response, StatusCode};
use serde_json::Value;

use api::status::Status;

use super::Target;
use super::list_options::resource_version;
use crate::body::Body;
use crate::encode::{self, Media, Shape};

pub async fn get(target: &Target) -> Result<Response<Body>, Status> {
    match resource_version(target.call.query.get("resourceVersion").unwrap_or_default())? {
        None => target.fresh().await?,
        Some(revision) => target.server.cache.wait_for(revision).await?,
    };
    let key = target.key(target.namespace(), target.name());
    let snapshot = target.cache.snapshot();
    let item = snapshot.get(&key).ok_or_else(|| target.not_found(target.name()))?;
    if target.scale.is_some() {
        return super::finish(target, StatusCode::OK, item.value());
    }
    let form = &target.form;
    if target.is_plain() && form.media == Media::Json && form.shape == Shape::Object && !form.pretty {
        let mut bytes = Vec::with_capacity(item.json_slice().len() + 1);
        bytes.extend_from_slice(item.json_slice());
        bytes.push(b'\n');
        return Ok(encode::response(StatusCode::OK, Media::Json, bytes, form));
    }
    let object: Value = target.requested(item.value());
    encode::object(StatusCode::OK, &object, &target.resource, form)
}
