//! What every write has in common: reading its body, admission, system metadata, and the answer.

use http::{HeaderMap, Response, StatusCode, header};
use rand::RngExt;
use serde_json::Value;

use api::decode::{self, FieldValidation};
use api::field;
use api::meta;
use api::protobuf;
use api::schema::Schema;
use api::status::Status;

use super::Target;
use crate::admission::{AdmissionRequest, Operation};
use crate::body::{self, Body};
use crate::encode;

const ACCEPTED: &str = "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The form of a request body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Yaml,
    Protobuf,
}

/// The form of a request body; JSON when none is given.
pub(super) fn content_form(headers: &HeaderMap) -> Result<Form, Status> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "application/json" => Ok(Form::Json),
        "application/yaml" => Ok(Form::Yaml),
        protobuf::MEDIA_TYPE => Ok(Form::Protobuf),
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

/// What a body must be.
pub struct Expected<'a> {
    pub schema: Schema<'a>,
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    /// Other values of `apiVersion` that mean the same.
    pub also_accepted: &'a [&'a str],
}

/// Reads and decodes the body of a request for `expected`; fills apiVersion and kind in. Returns warnings too.
pub async fn decode_body(
    headers: &HeaderMap,
    body: Body,
    expected: &Expected<'_>,
    mode: FieldValidation,
) -> Result<decode::Decoded, Status> {
    let form = content_form(headers)?;
    let bytes = body::read(body).await?;
    let kind = expected.kind;
    if form == Form::Json {
        let stated = decode::type_meta(&bytes).map_err(|e| {
            let data = summary(&bytes);
            Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {e} ({data})"
            ))
        })?;
        if expected.schema.is_structural() {
            check_custom_type(&stated, &bytes, expected)?;
        } else {
            check_type(&stated.api_version, &stated.kind, expected)?;
        }
    }
    let decoded = match form {
        Form::Json => decode::json(expected.schema, &bytes, mode),
        Form::Yaml => decode::yaml(expected.schema, &bytes, mode),
        Form::Protobuf => protobuf::decode(expected.schema, &bytes),
    };
    let mut decoded = decoded.map_err(|e| match e {
        decode::Error::Syntax(_) if form != Form::Json => Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {e} ({})",
            summary(&bytes)
        )),
        e => {
            Status::bad_request(format!("{kind} in version {:?} cannot be handled as a {kind}: {e}", expected.version))
        }
    })?;
    if form != Form::Json {
        let text = |field: &str| decoded.object[field].as_str().unwrap_or_default();
        check_type(text("apiVersion"), text("kind"), expected)?;
    }
    let object = meta::object_mut(&mut decoded.object);
    object.insert("apiVersion".to_owned(), meta::api_version(expected.group, expected.version).into());
    object.insert("kind".to_owned(), kind.into());
    Ok(decoded)
}

/// Custom resources must state their type; another kind is refused like any other wrong field.
fn check_custom_type(stated: &decode::TypeMeta, bytes: &[u8], expected: &Expected<'_>) -> Result<(), Status> {
    if stated.kind.is_empty() {
        let text = String::from_utf8_lossy(bytes);
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing in '{text}' ({})",
            expected.kind,
            summary(bytes)
        )));
    }
    check_type(&stated.api_version, expected.kind, expected)?;
    if stated.kind == expected.kind {
        return Ok(());
    }
    let name = decode::untyped_json(bytes).map(|decoded| meta::name(&decoded.object).to_owned()).unwrap_or_default();
    let error = field::Error::invalid("kind", stated.kind.as_str(), format!("must be {}", expected.kind));
    Err(Status::invalid(expected.group, &stated.kind, &name, &[error]))
}

/// What a body states about its type must be what the path says; what it leaves out is filled in.
fn check_type(api_version: &str, kind: &str, expected: &Expected<'_>) -> Result<(), Status> {
    let want = meta::api_version(expected.group, expected.version);
    let (_, version) = meta::split_api_version(if api_version.is_empty() { &want } else { api_version });
    if !kind.is_empty() && kind != expected.kind {
        return Err(Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: the kind in the data ({kind}) does not match the expected kind ({})",
            expected.kind, expected.kind
        )));
    }
    if !api_version.is_empty() && api_version != want && !expected.also_accepted.contains(&api_version) {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({want})"
        )));
    }
    Ok(())
}

/// The beginning of a body, for messages (`summarizeData`).
fn summary(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 30;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let dots = if cut.len() < bytes.len() { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{dots}", String::from_utf8_lossy(cut)),
        Some(_) => format!("{}{dots}", cut.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

/// The two halves of admission.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Mutate,
    Validate,
}

/// One write as admission sees it.
pub struct Admission<'a> {
    pub operation: Operation,
    pub name: &'a str,
    pub old: &'a Value,
    pub options: &'a Value,
    pub dry_run: bool,
}

impl Target {
    /// Runs one half of admission over `object` and returns it.
    pub async fn admit(&mut self, phase: Phase, admission: &Admission<'_>, object: Value) -> Result<Value, Status> {
        let kind = match self.subresource() {
            Some(subresource) => meta::GroupVersionKind {
                group: subresource.group.clone(),
                version: subresource.version.clone(),
                kind: subresource.kind.clone(),
            },
            None => self.resource.gvk(),
        };
        self.admit_as(phase, admission, object, kind).await
    }

    /// The same for an object of a kind of its own.
    pub async fn admit_as(
        &mut self,
        phase: Phase,
        admission: &Admission<'_>,
        object: Value,
        kind: meta::GroupVersionKind,
    ) -> Result<Value, Status> {
        let namespace = match self.resource.namespaced() {
            true => self.call.info.namespace.clone(),
            // A namespace counts as lying in itself.
            false if self.resource.group.is_empty() && self.resource.plural == "namespaces" => {
                admission.name.to_owned()
            }
            false => String::new(),
        };
        let mut request = AdmissionRequest {
            operation: admission.operation,
            info: &self.call.info,
            user: &self.call.user,
            kind,
            namespace: &namespace,
            name: admission.name,
            object,
            old_object: admission.old,
            options: admission.options,
            dry_run: admission.dry_run,
            warnings: Vec::new(),
        };
        let chain = &self.server.admission;
        match phase {
            Phase::Mutate => chain.mutate(&self.server, &mut request).await?,
            Phase::Validate => chain.validate(&self.server, &mut request).await?,
        }
        let (object, warnings) = (request.object, request.warnings);
        self.warnings.extend(warnings);
        Ok(object)
    }

    /// Gives the object the namespace of the request, or refuses another one.
    pub fn ensure_namespace(&self, object: &mut Value) -> Result<(), Status> {
        let wanted = self.namespace();
        let stated = meta::namespace(object);
        if stated == wanted {
            return Ok(());
        }
        if !wanted.is_empty() && !stated.is_empty() {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let metadata = meta::metadata_mut(object);
        if wanted.is_empty() {
            metadata.remove("namespace");
        } else {
            metadata.insert("namespace".to_owned(), wanted.into());
        }
        Ok(())
    }

    /// The name in an update's object must be that of the path (`checkName`).
    pub fn check_name(&self, object: &Value) -> Result<(), Status> {
        let (want, name) = (self.name(), meta::name(object));
        if name.is_empty() {
            return Err(Status::bad_request(format!(
                "the name of the object ({want} based on URL) was undeterminable: name must be provided"
            )));
        }
        if name != want {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({want})"
            )));
        }
        Ok(())
    }

    /// Removes owner references that are there twice, with a warning.
    pub fn deduplicate_owners(&mut self, object: &mut Value, after_admission: bool) {
        let Some(owners) = object.pointer_mut("/metadata/ownerReferences").and_then(Value::as_array_mut) else {
            return;
        };
        let mut duplicates = Vec::new();
        let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
        for owner in owners.drain(..) {
            if kept.contains(&owner) {
                duplicates.push(owner["uid"].as_str().unwrap_or_default().to_owned());
            } else {
                kept.push(owner);
            }
        }
        *owners = kept;
        if !duplicates.is_empty() {
            let when = if after_admission { " after mutating admission happens" } else { "" };
            self.warnings.push(format!(
                ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
                duplicates.join(", ")
            ));
        }
    }
}

/// A fresh name from `metadata.generateName`, as upstream's `SimpleNameGenerator`.
pub fn generated_name(base: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const NAME_BYTES_MAX: usize = 63;
    const SUFFIX_BYTES: usize = 5;
    let base = crate::request::cut(base, NAME_BYTES_MAX - SUFFIX_BYTES);
    let mut random = rand::rng();
    let suffix = (0..SUFFIX_BYTES).map(|_| LETTERS[random.random_range(0..LETTERS.len())] as char);
    base.chars().chain(suffix).collect()
}

/// The current second as objects carry it.
pub fn timestamp(now: jiff::Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The answer of a write: the stored object in the version and form asked for.
pub fn finish(target: &Target, code: StatusCode, stored: Value) -> Result<Response<Body>, Status> {
    let object = target.requested(stored);
    match &target.scale {
        Some(paths) => encode::plain(code, &super::scale::of(&object, paths), &target.form),
        None => encode::object(code, &object, &target.resource, &target.form),
    }
}
