//! One entry of `metadata.managedFields`: who owns what, how, since when, and in which version the fields are named.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::fields_v1::{self, Wire};
use super::set::Set;
use super::{UNKNOWN_MANAGER, time};

/// How the fields of an entry came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells entries apart. Appliers keep their entry when they change the version they apply in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub manager: String,
    pub operation: Operation,
    /// Empty for [`Operation::Apply`].
    pub api_version: String,
    pub subresource: String,
}

impl Identity {
    pub fn update(manager: &str, api_version: &str, subresource: &str) -> Self {
        Self {
            manager: if manager.is_empty() { UNKNOWN_MANAGER } else { manager }.to_owned(),
            operation: Operation::Update,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    pub fn apply(manager: &str, subresource: &str) -> Self {
        Self { operation: Operation::Apply, ..Self::update(manager, "", subresource) }
    }

    /// Upstream's identifier (`BuildManagerIdentifier`); its text decides the order of conflicts and of old entries.
    pub fn text(&self) -> String {
        let mut text = format!("{{\"manager\":{},\"operation\":\"{}\"", quoted(&self.manager), self.operation.as_str());
        for (name, value) in [("apiVersion", &self.api_version), ("subresource", &self.subresource)] {
            if !value.is_empty() {
                text.push_str(&format!(",\"{name}\":{}", quoted(value)));
            }
        }
        text.push('}');
        text
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub identity: Identity,
    /// The version the fields are named in.
    pub api_version: String,
    pub time: Option<Timestamp>,
    pub(super) fields: Fields,
    /// `time` is not the one of the stored form any more.
    pub(super) is_stamped: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Fields {
    /// The whole entry as it is stored.
    Stored(Value),
    Set(Set),
}

impl Entry {
    pub fn new(identity: Identity, api_version: &str, time: Option<Timestamp>, set: Set) -> Self {
        Self { identity, api_version: api_version.to_owned(), time, fields: Fields::Set(set), is_stamped: true }
    }

    /// Reads everything but the fields.
    pub fn read(entry: &Value, index: usize) -> Result<(Identity, String, Option<Timestamp>), String> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        let identity = Identity {
            manager: text("manager").to_owned(),
            operation,
            api_version: if operation == Operation::Apply { String::new() } else { api_version.to_owned() },
            subresource: text("subresource").to_owned(),
        };
        Ok((identity, api_version.to_owned(), text("time").parse().ok()))
    }

    pub fn wire_fields(entry: &Value) -> &Value {
        entry.get("fieldsV1").unwrap_or(&Value::Null)
    }

    pub fn set(&self) -> Set {
        match &self.fields {
            Fields::Set(set) => set.clone(),
            // What is stored was written here; should it be damaged, then nobody owns it.
            Fields::Stored(entry) => fields_v1::parse(Self::wire_fields(entry)).unwrap_or_default(),
        }
    }

    pub fn has_any(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Set(own) => !own.intersection(set).is_empty(),
            Fields::Stored(entry) => Wire(Self::wire_fields(entry)).has_any(set),
        }
    }

    pub fn has_all(&self, set: &Set) -> bool {
        match &self.fields {
            Fields::Set(own) => set.difference(own).is_empty(),
            Fields::Stored(entry) => Wire(Self::wire_fields(entry)).has_all(set),
        }
    }

    pub fn is_empty(&self) -> bool {
        match &self.fields {
            Fields::Set(set) => set.is_empty(),
            Fields::Stored(entry) => Self::wire_fields(entry).as_object().is_none_or(Map::is_empty),
        }
    }

    pub fn into_value(self) -> Value {
        let fields = match self.fields {
            Fields::Stored(mut entry) => {
                if let (true, Some(at), Some(map)) = (self.is_stamped, self.time, entry.as_object_mut()) {
                    map.insert("time".to_owned(), time::text(at).into());
                }
                return entry;
            }
            Fields::Set(set) => fields_v1::write(&set),
        };
        let mut map = Map::new();
        if !self.identity.manager.is_empty() {
            map.insert("manager".to_owned(), self.identity.manager.into());
        }
        map.insert("operation".to_owned(), self.identity.operation.as_str().into());
        map.insert("apiVersion".to_owned(), self.api_version.into());
        if let Some(at) = self.time {
            map.insert("time".to_owned(), time::text(at).into());
        }
        map.insert("fieldsType".to_owned(), "FieldsV1".into());
        map.insert("fieldsV1".to_owned(), fields);
        if !self.identity.subresource.is_empty() {
            map.insert("subresource".to_owned(), self.identity.subresource.into());
        }
        Value::Object(map)
    }
}
