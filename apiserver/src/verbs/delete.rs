//! `delete`: one object.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use api::meta;
use api::status::Status;

use super::deletion::{Deleted, delete_object};
use super::{DeleteOptions, Target, finish};
use crate::body::{self, Body};
use crate::deletion_rules::Rules;
use crate::encode;

pub async fn delete(target: &mut Target, body: Body) -> Result<Response<Body>, Status> {
    let bytes = body::read(body).await?;
    let options = DeleteOptions::parse(&target.call, &bytes)?;
    let (namespace, name) = (target.namespace().to_owned(), target.name().to_owned());
    let admission_options = options.to_value();
    let deleted = delete_object(target, &namespace, &name, &options, &admission_options).await?;
    let code = match (deleted.gone, options.orphan_dependents) {
        (false, Some(false)) => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    answer(target, deleted, code)
}

/// The object, where it is still there or its resource answers so, else a Status that names it.
fn answer(target: &Target, deleted: Deleted, code: StatusCode) -> Result<Response<Body>, Status> {
    let rules = Rules::of(&target.resource);
    let marked = !deleted.gone && !deleted.pending;
    if rules.returns_object || marked {
        return finish(target, code, deleted.object);
    }
    encode::plain(code, &success(target, &deleted.object), &target.form)
}

fn success(target: &Target, object: &Value) -> Value {
    let mut details = serde_json::Map::new();
    for (field, value) in [
        ("name", meta::name(object)),
        ("group", target.resource.group.as_str()),
        ("kind", target.resource.plural.as_str()),
        ("uid", meta::uid(object)),
    ] {
        if !value.is_empty() {
            details.insert(field.to_owned(), value.into());
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
