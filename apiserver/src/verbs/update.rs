//! `update`: PUT of a whole object, or of its `status` and other views of itself.

use http::{Response, StatusCode};
use serde_json::Value;

use api::apply;
use api::meta;
use api::status::Status;

use super::change::{self, Change};
use super::write;
use super::{Target, WriteOptions, finish};
use crate::body::Body;

pub async fn update(target: &mut Target, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::update(&target.call.query)?;
    let decoded =
        write::decode_body(&target.call.parts.headers, body, &target.expected(), options.field_validation).await?;
    target.warnings.extend(decoded.warnings);
    let mut object = decoded.object;
    target.default(&mut object);
    target.ensure_namespace(&mut object)?;
    target.check_name(&object)?;
    target.deduplicate_owners(&mut object, false);
    let manager = target.manager(&options.field_manager);
    let outcome = change::run(target, &mut Whole { object, manager }, &options).await?;
    let code = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    finish(target, code, outcome.object)
}

/// The new object as the client sent it.
struct Whole {
    object: Value,
    manager: String,
}

impl Change for Whole {
    fn make(&mut self, target: &mut Target, existing: Option<&Value>) -> Result<Value, Status> {
        let mut object = self.object.clone();
        track(target, existing, &mut object, &self.manager);
        Ok(object)
    }
}

/// Records what the writer now owns.
pub(super) fn track(target: &Target, live: Option<&Value>, new: &mut Value, manager: &str) {
    let expected = target.expected();
    let subresource = target.call.info.subresource.as_str();
    // The system's own fields are not the writer's; they are compared as they will be stored.
    if let Some(live) = live {
        let uid = meta::uid(live).to_owned();
        let metadata = meta::metadata_mut(new);
        if !metadata.contains_key("uid") {
            metadata.insert("uid".to_owned(), uid.into());
        }
    }
    apply::track(apply::Update {
        schema: expected.schema,
        live,
        new,
        manager,
        api_version: &meta::api_version(expected.group, expected.version),
        subresource,
        now: target.now,
        reset_fields: target.reset_fields(),
        only_fields: &[],
        versions: None,
    });
}
