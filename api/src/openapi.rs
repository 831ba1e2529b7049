//! OpenAPI documents of what the catalogue serves: v3 per group and version, and v2 as JSON and as gnostic's protobuf
//! (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`, which kubectl asks for).
//!
//! Documents are written piece by piece into one buffer, so that making one costs little more than its own size;
//! nothing is kept. An index entry's hash is made of what a document depends on, not of the document.

mod operations;
mod protobuf;
mod schemas;
mod v2;
mod v3;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::catalogue::{Catalogue, Resource};
use crate::schema::Schemas;

pub use v2::{json as v2_json, protobuf as v2_protobuf};
pub use v3::json as v3_json;

/// Media type of the protobuf form of the v2 document.
pub const V2_PROTOBUF_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// `api/v1` or `apis/apps/v1`: the path of a group version below `/` and below `/openapi/v3/`.
pub fn root_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index at `/openapi/v3`: every group version's document with a URL that changes when the document does.
pub fn v3_index(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for group in catalogue.groups() {
        for version in &group.versions {
            let path = root_path(&group.name, version);
            let hash = v3_hash(catalogue, &group.name, version);
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path, serde_json::json!({ "serverRelativeURL": url }));
        }
    }
    serde_json::json!({ "paths": paths })
}

/// Changes when the v3 document of a group version does.
pub fn v3_hash(catalogue: &Catalogue, group: &str, version: &str) -> String {
    hash(catalogue.in_version(group, version).map(AsRef::as_ref))
}

/// Changes when the v2 document does.
pub fn v2_hash(catalogue: &Catalogue) -> String {
    hash(catalogue.iter().map(AsRef::as_ref))
}

fn hash<'a>(rows: impl Iterator<Item = &'a Resource>) -> String {
    let mut digest = Sha256::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(Schemas::builtin().digest());
    for row in rows {
        let subresources: Vec<&str> = row.subresources.iter().map(|s| s.name.as_str()).collect();
        let verbs = (&row.verbs, &subresources, row.namespaced());
        digest.update(format!("{}/{}/{}/{} {verbs:?}", row.group, row.version, row.plural, row.kind));
        if row.custom {
            digest.update(row.schemas.digest());
            digest.update(row.schema_node.to_le_bytes());
        }
    }
    let bytes: [u8; 32] = digest.finalize().into();
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A JSON object written member by member.
struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        Self { out: Vec::new() }
    }
    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
    /// `"name":` with a comma before it unless an object was just opened.
    fn name(&mut self, name: &str) {
        if self.out.last().is_some_and(|last| *last != b'{') {
            self.out.push(b',');
        }
        self.out.extend_from_slice(Value::from(name).to_string().as_bytes());
        self.out.push(b':');
    }
    fn member(&mut self, name: &str, value: &Value) {
        self.name(name);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests;
