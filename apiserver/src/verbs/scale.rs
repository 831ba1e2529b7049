//! The `scale` subresource: a Scale is a view of an object's replica count, and a write to it is a write of that count
//! (upstream's `ScaleREST`).

use serde_json::{Map, Value, json};

use api::apply;
use api::field;
use api::meta;
use api::schema::{Schema, Schemas};
use api::selector::LabelSelector;
use api::status::Status;

use super::Target;
use super::change::Change;

pub const GROUP: &str = "autoscaling";
pub const VERSION: &str = "v1";
pub const KIND: &str = "Scale";
const TYPE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// Where a resource keeps what a Scale shows, as dotted paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// Empty when the resource has no selector to show.
    pub selector: String,
}

impl Paths {
    /// Where a definition says.
    pub fn stated(paths: &(String, String, String)) -> Self {
        let (spec_replicas, status_replicas, selector) = paths.clone();
        Self { spec_replicas, status_replicas, selector }
    }

    /// Where built-in resources have them.
    pub fn builtin() -> Self {
        Self {
            spec_replicas: "spec.replicas".to_owned(),
            status_replicas: "status.replicas".to_owned(),
            selector: "spec.selector".to_owned(),
        }
    }
}

pub fn schema() -> Schema<'static> {
    Schemas::builtin().type_named(TYPE).expect("the built-in schemas hold every type the rows name")
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, step| value.get(step)).filter(|_| !path.is_empty())
}

fn set(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for step in path.split('.') {
        place = meta::child_mut(place, step);
    }
    *place = value;
}

/// The Scale of an object.
pub fn of(object: &Value, paths: &Paths) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        metadata.extend(object["metadata"].get(field).map(|value| (field.to_owned(), value.clone())));
    }
    let replicas = at(object, &paths.spec_replicas).and_then(Value::as_i64).unwrap_or(0);
    let spec = if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) };
    let mut status = json!({"replicas": at(object, &paths.status_replicas).and_then(Value::as_i64).unwrap_or(0)});
    if let Some(selector) = at(object, &paths.selector).and_then(selector_text).filter(|text| !text.is_empty()) {
        status["selector"] = selector.into();
    }
    json!({"kind": KIND, "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// A selector as text: a string already, a LabelSelector, or a plain map of labels.
fn selector_text(selector: &Value) -> Option<String> {
    if let Some(text) = selector.as_str() {
        return Some(text.to_owned());
    }
    let map = selector.as_object()?;
    if map.contains_key("matchLabels") || map.contains_key("matchExpressions") || map.is_empty() {
        return LabelSelector::from_object(Some(selector)).ok().map(|selector| selector.to_string());
    }
    Some(LabelSelector::from_map(Some(map)).to_string())
}

/// Makes the new object by letting `change` make a new Scale of the stored one.
pub fn make(target: &mut Target, change: &mut dyn Change, object: &Value, paths: &Paths) -> Result<Value, Status> {
    let api_version = target.resource.api_version();
    let replicas = [(api_version.as_str(), paths.spec_replicas.as_str())];
    let handler = apply::Scale { api_version: &api_version, replicas: &replicas };
    let mut live = of(object, paths);
    if let Some(fields) = handler.fields_of_scale(object) {
        live["metadata"]["managedFields"] = fields;
    }
    let scale = change.make(target, Some(&live))?;
    validate(target, &scale)?;
    let mut new = object.clone();
    write_back(&mut new, &scale, paths);
    let metadata = meta::metadata_mut(&mut new);
    match scale["metadata"].get("resourceVersion") {
        Some(version) => metadata.insert("resourceVersion".to_owned(), version.clone()),
        None => metadata.remove("resourceVersion"),
    };
    let fields = handler.fields_of_parent(object, &scale);
    let metadata = meta::metadata_mut(&mut new);
    match fields {
        Some(fields) => metadata.insert("managedFields".to_owned(), fields),
        None => metadata.remove("managedFields"),
    };
    let (uid, stored) = (meta::uid(&scale), meta::uid(object));
    if !uid.is_empty() && uid != stored {
        let resource = format!("{}/scale", target.resource.plural);
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(Status::conflict(&target.resource.group, &resource, target.name(), why));
    }
    Ok(new)
}

/// The replica count of a Scale, written to its object.
pub fn write_back(object: &mut Value, scale: &Value, paths: &Paths) {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    set(object, &paths.spec_replicas, replicas.into());
}

fn validate(target: &Target, scale: &Value) -> Result<(), Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas >= 0 {
        return Ok(());
    }
    let error = field::Error::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
    Err(Status::invalid(GROUP, KIND, target.name(), &[error]))
}
