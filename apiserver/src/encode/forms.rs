//! Tables and metadata-only forms of objects.

use jiff::Timestamp;
use serde_json::{Value, json};

use api::catalogue::Resource;
use api::status::Status;
use api::table;

use super::{Form, IncludeObject, Shape};

/// Converts objects of one resource to the shape asked for.
pub struct Forms<'a> {
    resource: &'a Resource,
    shape: &'a Shape,
    include: IncludeObject,
    now: Timestamp,
}

impl<'a> Forms<'a> {
    pub fn new(resource: &'a Resource, form: &'a Form) -> Result<Self, Status> {
        let include = match (&form.shape, &form.include_object) {
            (Shape::Table(_), Err(other)) => {
                return Err(Status::bad_request(format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
                )));
            }
            (_, include) => include.clone().unwrap_or(IncludeObject::Metadata),
        };
        Ok(Self { resource, shape: &form.shape, include, now: Timestamp::now() })
    }

    /// Whether objects are sent as they are.
    pub fn is_identity(&self) -> bool {
        *self.shape == Shape::Object
    }

    /// One object by itself; `None` when it stays as it is.
    pub fn of_object(&self, object: &Value) -> Option<Value> {
        match self.shape {
            Shape::Object => None,
            Shape::Table(version) => {
                let resource_version = object["metadata"]["resourceVersion"].clone();
                Some(self.table(
                    version,
                    vec![self.row(object, version)],
                    json!({"resourceVersion": resource_version}),
                    true,
                ))
            }
            Shape::PartialMetadata(version) => Some(partial_metadata(object, version)),
        }
    }

    /// An object in a watch event. Only a watch's first table carries column definitions.
    pub fn of_event(&self, object: &Value, first: bool) -> Option<Value> {
        match self.shape {
            Shape::Table(version) => {
                let resource_version = object["metadata"]["resourceVersion"].clone();
                Some(self.table(
                    version,
                    vec![self.row(object, version)],
                    json!({"resourceVersion": resource_version}),
                    first,
                ))
            }
            _ => self.of_object(object),
        }
    }

    /// A list of objects under its list metadata; `None` when it stays as it is.
    pub fn of_list(&self, objects: impl Iterator<Item = Value>, metadata: Value) -> Option<Value> {
        match self.shape {
            Shape::Object => None,
            Shape::Table(version) => {
                let rows = objects.map(|object| self.row(&object, version)).collect();
                Some(self.table(version, rows, metadata, true))
            }
            Shape::PartialMetadata(version) => {
                let items: Vec<Value> = objects.map(|object| partial_metadata(&object, version)).collect();
                let kind = "PartialObjectMetadataList";
                Some(json!({"kind": kind, "apiVersion": meta_version(version), "metadata": metadata, "items": items}))
            }
        }
    }

    fn table(&self, version: &str, rows: Vec<Value>, metadata: Value, with_columns: bool) -> Value {
        let columns: Vec<Value> = match with_columns {
            true => self.resource.columns.iter().map(column).collect(),
            false => Vec::new(),
        };
        let columns = if with_columns { Value::Array(columns) } else { Value::Null };
        json!({"kind": "Table", "apiVersion": meta_version(version), "metadata": metadata, "columnDefinitions": columns, "rows": rows})
    }

    fn row(&self, object: &Value, version: &str) -> Value {
        let cells = table::cells(self.resource, object, self.now);
        let conditions = table::conditions(self.resource, object);
        let object = match self.include {
            IncludeObject::None => Value::Null,
            IncludeObject::Metadata => partial_metadata(object, version),
            IncludeObject::Object => object.clone(),
        };
        let mut row = json!({"cells": cells, "object": object});
        if !conditions.is_empty() {
            row["conditions"] = conditions.into();
        }
        row
    }
}

fn column(column: &api::catalogue::Column) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format,
        "description": column.description, "priority": column.priority,
    })
}

fn meta_version(version: &str) -> String {
    format!("meta.k8s.io/{version}")
}

/// The metadata of an object as an object of its own.
pub fn partial_metadata(object: &Value, version: &str) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(version), "metadata": object["metadata"]})
}
