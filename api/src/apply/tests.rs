//! Apply and ownership against what a v1.36 server answers, as small scenarios on one object: writes go in, owners and
//! values are read back. Time passes a second per write.

mod conflicts;
mod fields;
mod keep;
mod lists;
mod properties;
mod scale;
mod schemaless;
mod updates;
mod versions;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Error, Request, Update, apply, track};
use crate::schema::{Schema, Schemas};

const START: i64 = 1_700_000_000;

/// One object of one type on an imaginary server: writes are tracked and stored, nothing is defaulted.
struct Server<'a> {
    schema: Schema<'a>,
    api_version: &'static str,
    kind: &'static str,
    live: Option<Value>,
    seconds: i64,
    subresource: &'static str,
    reset_fields: &'static [&'static str],
}

impl Server<'static> {
    fn builtin(api_version: &'static str, kind: &'static str, type_name: &str) -> Self {
        Self::new(Schemas::builtin().type_named(type_name).expect("a built-in type"), api_version, kind)
    }
    fn config_map() -> Self {
        Self::builtin("v1", "ConfigMap", "io.k8s.api.core.v1.ConfigMap")
    }
    fn deployment() -> Self {
        Server { reset_fields: &["status"], ..Self::builtin("apps/v1", "Deployment", "io.k8s.api.apps.v1.Deployment") }
    }
    fn service() -> Self {
        Self::builtin("v1", "Service", "io.k8s.api.core.v1.Service")
    }
}

impl<'a> Server<'a> {
    fn new(schema: Schema<'a>, api_version: &'static str, kind: &'static str) -> Self {
        Self { schema, api_version, kind, live: None, seconds: 0, subresource: "", reset_fields: &[] }
    }

    fn now(&mut self) -> Timestamp {
        self.seconds += 1;
        Timestamp::from_second(START + self.seconds).expect("in range")
    }

    /// Completes an object by what every object has.
    fn object(&self, fields: &Value) -> Value {
        let mut object = json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": "a"}});
        for (key, value) in fields.as_object().expect("an object") {
            match (object.get_mut(key), value) {
                (Some(Value::Object(into)), Value::Object(from)) => into.extend(from.clone()),
                _ => object[key.as_str()] = value.clone(),
            }
        }
        object
    }

    fn write(&mut self, manager: &str, mut new: Value) -> &mut Self {
        new["metadata"]["uid"] = "u".into();
        if self.live.is_none() {
            // The server gives out the uid after the books are made.
            new["metadata"].as_object_mut().expect("metadata").remove("uid");
        }
        let now = self.now();
        track(Update {
            schema: self.schema,
            live: self.live.as_ref(),
            new: &mut new,
            manager,
            api_version: self.api_version,
            subresource: self.subresource,
            now,
            reset_fields: self.reset_fields,
            only_fields: &[],
            versions: None,
        });
        new["metadata"]["uid"] = "u".into();
        self.live = Some(new);
        self
    }

    /// Replaces the object (create or PUT).
    fn put(&mut self, manager: &str, fields: Value) -> &mut Self {
        let new = self.object(&fields);
        self.write(manager, new)
    }

    /// Changes the object by merge patch.
    fn merge(&mut self, manager: &str, patch: Value) -> &mut Self {
        let live = self.live.as_ref().expect("an object to patch");
        let new = crate::patch::merge(live, &patch).expect("a good patch");
        self.write(manager, new)
    }

    fn try_apply(&mut self, manager: &str, fields: Value, force: bool) -> Result<&mut Self, Error> {
        let config = self.object(&fields);
        let now = self.now();
        let mut object = apply(Request {
            schema: self.schema,
            live: self.live.as_ref(),
            config: &config,
            manager,
            force,
            api_version: self.api_version,
            kind: self.kind,
            subresource: self.subresource,
            now,
            reset_fields: self.reset_fields,
            only_fields: &[],
            versions: None,
        })?;
        object["metadata"]["uid"] = "u".into();
        self.live = Some(object);
        Ok(self)
    }

    #[track_caller]
    fn apply(&mut self, manager: &str, fields: Value) -> &mut Self {
        self.try_apply(manager, fields, false).expect("no conflicts")
    }

    #[track_caller]
    fn force(&mut self, manager: &str, fields: Value) -> &mut Self {
        self.try_apply(manager, fields, true).expect("forced")
    }

    #[track_caller]
    fn refused(&mut self, manager: &str, fields: Value) -> Error {
        self.try_apply(manager, fields, false).err().expect("the apply is refused")
    }

    fn through(&mut self, subresource: &'static str, reset_fields: &'static [&'static str]) -> &mut Self {
        self.subresource = subresource;
        self.reset_fields = reset_fields;
        self
    }

    fn at(&self, pointer: &str) -> &Value {
        self.live.as_ref().and_then(|live| live.pointer(pointer)).unwrap_or(&Value::Null)
    }

    /// The owners in their order, one a line: manager, operation and subresource, second of the last change, fields.
    fn owners(&self) -> String {
        let entries = self.at("/metadata/managedFields").as_array().cloned().unwrap_or_default();
        let lines: Vec<String> = entries.iter().map(owner_line).collect();
        lines.join("\n")
    }

    #[track_caller]
    fn check_owners(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.owners(), expected.join("\n"));
        self
    }

    #[track_caller]
    fn check_at(&mut self, pointer: &str, expected: Value) -> &mut Self {
        assert_eq!(*self.at(pointer), expected, "at {pointer}");
        self
    }
}

fn owner_line(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or_default();
    let time = text("time").parse::<Timestamp>().map_or("-".to_owned(), |at| format!("{}s", at.as_second() - START));
    let subresource = if entry["subresource"].is_null() { String::new() } else { format!("/{}", text("subresource")) };
    assert_eq!(text("fieldsType"), "FieldsV1");
    format!("{} {}{subresource} {time} {}", text("manager"), text("operation"), entry["fieldsV1"])
}
