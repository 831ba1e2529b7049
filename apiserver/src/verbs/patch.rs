//! `patch`: JSON patch, merge patch, strategic merge patch, and server-side apply.

use bytes::Bytes;
use http::{Response, StatusCode, header};
use serde_json::Value;

use api::apply;
use api::decode::{self, FieldValidation};
use api::field;
use api::patch;
use api::status::Status;

use super::change::{self, Change};
use super::{Target, WriteOptions, finish};
use crate::body::{self, Body};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Merge,
    Strategic,
    Apply,
}

pub async fn patch(target: &mut Target, body: Body) -> Result<Response<Body>, Status> {
    let format = format(target)?;
    let bytes = body::read(body).await?;
    let options = WriteOptions::patch(&target.call.query, format == Format::Apply)?;
    let manager = target.manager(&options.field_manager);
    let mut problems = Vec::new();
    let document = document(target, format, &bytes, &options, &mut problems)?;
    let mut change = Patch { format, document, problems, manager, options: options.clone() };
    let outcome = change::run(target, &mut change, &options).await?;
    let code = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    finish(target, code, outcome.object)
}

fn format(target: &Target) -> Result<Format, Status> {
    let text = target.call.parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(Format::Json),
        "application/merge-patch+json" => Ok(Format::Merge),
        // Custom resources have no merge keys.
        "application/strategic-merge-patch+json" if !target.resource.custom => Ok(Format::Strategic),
        "application/apply-patch+yaml" => Ok(Format::Apply),
        "application/strategic-merge-patch+json" => Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )),
        _ => {
            let mut status = Status::unsupported_media_type("415: Unsupported Media Type");
            status.details = Some(Box::default());
            Err(status)
        }
    }
}

/// The patch as a value; what is wrong with it as a document is refused here.
fn document(
    target: &mut Target,
    format: Format,
    bytes: &Bytes,
    options: &WriteOptions,
    strict: &mut Vec<String>,
) -> Result<Value, Status> {
    if format == Format::Apply {
        let decoded =
            decode::untyped_yaml(bytes).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
        let duplicates = decode::yaml_duplicates_message(&decoded.warnings);
        match (options.field_validation, duplicates) {
            (FieldValidation::Strict, Some(message)) => {
                return Err(Status::bad_request(format!(
                    "error strict decoding YAML: error converting YAML to JSON: {message}"
                )));
            }
            (FieldValidation::Warn, Some(_)) => target.warnings.extend(decoded.warnings),
            _ => {}
        }
        return Ok(decoded.object);
    }
    let decoded = decode::untyped_json(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
    if format != Format::Json && !decoded.object.is_object() {
        let what = match &decoded.object {
            Value::Array(_) => "array",
            Value::String(_) => "string",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            _ => return Ok(decoded.object),
        };
        return Err(Status::bad_request(format!(
            "json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
        )));
    }
    match (format, options.field_validation) {
        (_, FieldValidation::Ignore) => {}
        (Format::Json, _) => strict.extend(patch::unknown_fields(&decoded.object)),
        _ => strict.extend(decoded.warnings),
    }
    Ok(decoded.object)
}

struct Patch {
    format: Format,
    document: Value,
    /// Unknown and duplicate fields of the patch itself.
    problems: Vec<String>,
    manager: String,
    options: WriteOptions,
}

impl Change for Patch {
    fn make(&mut self, target: &mut Target, existing: Option<&Value>) -> Result<Value, Status> {
        if self.format == Format::Apply {
            return self.apply(target, existing);
        }
        let live = existing.ok_or_else(|| target.not_found(target.name()))?;
        let patched = match self.format {
            Format::Json => patch::json(live, &self.document),
            Format::Merge => patch::merge(live, &self.document),
            _ => patch::strategic(target.expected().schema, live, &self.document),
        };
        let patched = patched.map_err(|e| e.status())?;
        let mut object = self.decoded(target, patched)?;
        target.check_name(&object)?;
        super::update::track(target, Some(live), &mut object, &self.manager);
        Ok(object)
    }

    fn creates(&self) -> bool {
        self.format == Format::Apply
    }

    fn pins_uid(&self) -> bool {
        false
    }
}

impl Patch {
    /// The patched object as a request body would have been decoded, defaults included.
    fn decoded(&self, target: &mut Target, object: Value) -> Result<Value, Status> {
        self.check_type(target, &object)?;
        let shown = if self.format == Format::Strategic { &self.document } else { &object };
        let shown = shown.to_string();
        let refuse = |why: String| Status::invalid("", "", "", &[field::Error::invalid("patch", shown.as_str(), why)]);
        let mode = match self.options.field_validation {
            // Problems of the patch and of the result are reported together.
            FieldValidation::Strict => FieldValidation::Warn,
            mode => mode,
        };
        let decoded = decode::value(target.expected().schema, object, mode).map_err(|e| refuse(e.to_string()))?;
        let problems: Vec<String> = self.problems.iter().cloned().chain(decoded.warnings).collect();
        if self.options.field_validation == FieldValidation::Strict && !problems.is_empty() {
            return Err(refuse(decode::Error::Strict(problems).to_string()));
        }
        target.warnings.extend(problems);
        let mut object = decoded.object;
        let expected = target.expected();
        let map = api::meta::object_mut(&mut object);
        map.insert("apiVersion".to_owned(), api::meta::api_version(expected.group, expected.version).into());
        map.insert("kind".to_owned(), expected.kind.into());
        target.default(&mut object);
        Ok(object)
    }

    /// A patch cannot make an object of another type. An emptied kind is filled in again.
    fn check_type(&self, target: &Target, object: &Value) -> Result<(), Status> {
        let expected = target.expected();
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if api_version.is_empty() {
            // Upstream decodes it to an object without metadata.
            return target.check_name(&Value::Null);
        }
        let kind = if kind.is_empty() { expected.kind } else { kind };
        if api_version == api::meta::api_version(expected.group, expected.version) && kind == expected.kind {
            return Ok(());
        }
        let why = format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        Err(Status::invalid("", "", "", &[field::Error::invalid("patch", object.to_string(), why)]))
    }

    fn apply(&self, target: &mut Target, existing: Option<&Value>) -> Result<Value, Status> {
        let subresource = target.call.info.subresource.clone();
        if self.document.is_object() {
            let stated = api::meta::name(&self.document);
            if existing.is_none() || !stated.is_empty() {
                target.check_name(&self.document)?;
            }
        }
        let expected = target.expected();
        let applied = apply::apply(apply::Request {
            schema: expected.schema,
            live: existing,
            config: &self.document,
            manager: &self.manager,
            force: self.options.force,
            api_version: &api::meta::api_version(expected.group, expected.version),
            kind: expected.kind,
            subresource: &subresource,
            now: target.now,
            reset_fields: target.reset_fields(),
            only_fields: &[],
            versions: None,
        });
        let object = applied.map_err(|e| e.status())?;
        let object = self.decoded(target, object)?;
        target.check_name(&object)?;
        Ok(object)
    }
}
