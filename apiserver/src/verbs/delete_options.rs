//! DeleteOptions, from the body or else from query parameters, with upstream's checks (`ValidateDeleteOptions`).

use api::field;
use api::schema::Schemas;
use api::status::Status;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::write::{Form, content_form};
use super::write_options::dry_run_errors;
use crate::request::Call;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Deprecated: `true` is [`Propagation::Orphan`].
    pub orphan_dependents: Option<bool>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
}

/// The wire form.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    kind: String,
    api_version: String,
    grace_period_seconds: Option<i64>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<Preconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    pub fn parse(call: &Call, body: &Bytes) -> Result<Self, Status> {
        let wire = if body.is_empty() { from_query(call)? } else { from_body(call, body)? };
        Self::checked(wire)
    }

    /// From the `deleteOptions` of an Eviction.
    pub fn from_value(value: &Value) -> Result<Self, Status> {
        let wire = Wire::deserialize(value).map_err(|e| Status::bad_request(e.to_string()))?;
        Self::checked(wire)
    }

    fn checked(wire: Wire) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let policy = wire.propagation_policy.as_deref();
        if let (Some(policy), Some(_)) = (policy, wire.orphan_dependents) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(field::Error::invalid("propagationPolicy", policy, why));
        }
        let propagation = match policy {
            None => None,
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(field::Error::not_supported("propagationPolicy", other, &supported));
                None
            }
        };
        let dry_run = wire.dry_run.unwrap_or_default();
        errors.extend(dry_run_errors(dry_run.iter().map(String::as_str)));
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        let preconditions = wire.preconditions.unwrap_or_default();
        Ok(Self {
            // Negative periods mean the shortest one.
            grace_period_seconds: wire.grace_period_seconds.map(|s| if s < 0 { 1 } else { s }),
            propagation,
            orphan_dependents: wire.orphan_dependents,
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            dry_run: !dry_run.is_empty(),
        })
    }

    /// As an object, for admission.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
        if let Some(seconds) = self.grace_period_seconds {
            value["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            value["propagationPolicy"] = format!("{propagation:?}").into();
        }
        if let Some(orphan) = self.orphan_dependents {
            value["orphanDependents"] = orphan.into();
        }
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if self.uid.is_some() || self.resource_version.is_some() {
            let mut preconditions = serde_json::Map::new();
            preconditions.extend(self.uid.clone().map(|uid| ("uid".to_owned(), uid.into())));
            preconditions.extend(self.resource_version.clone().map(|v| ("resourceVersion".to_owned(), v.into())));
            value["preconditions"] = preconditions.into();
        }
        value
    }
}

fn from_query(call: &Call) -> Result<Wire, Status> {
    let query = &call.query;
    let text = |key: &str| query.get(key).filter(|v| !v.is_empty()).map(str::to_owned);
    let grace = match text("gracePeriodSeconds") {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?,
        ),
    };
    Ok(Wire {
        grace_period_seconds: grace,
        propagation_policy: text("propagationPolicy"),
        orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
        preconditions: Some(Preconditions { uid: text("uid"), resource_version: text("resourceVersion") }),
        dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
        ..Wire::default()
    })
}

fn from_body(call: &Call, body: &Bytes) -> Result<Wire, Status> {
    let form = content_form(&call.parts.headers)?;
    if form == Form::Json {
        api::decode::type_meta(body)
            .map_err(|e| Status::bad_request(format!("couldn't get version/kind; json parse error: {e}")))?;
    }
    let decoded = match form {
        Form::Json => api::decode::untyped_json(body),
        Form::Yaml => api::decode::untyped_yaml(body),
        Form::Protobuf => {
            let schema = Schemas::builtin().type_named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
            api::protobuf::decode(schema.ok_or_else(Status::no_such_path)?, body)
        }
    };
    let value = decoded.map_err(|e| Status::bad_request(e.to_string()))?.object;
    let wire = Wire::deserialize(&value).map_err(|e| Status::bad_request(e.to_string()))?;
    if !wire.kind.is_empty() && wire.kind != "DeleteOptions" {
        return Err(Status::bad_request(format!(
            "no kind {:?} is registered for version {:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\"",
            wire.kind, wire.api_version
        )));
    }
    Ok(wire)
}
