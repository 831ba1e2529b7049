//! What requests on custom resources must know of their definitions beside the rows.

use std::collections::HashMap;
use std::sync::Arc;

use api::meta;
use serde_json::Value;

use super::plan::text;

/// Of one definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// It is being deleted: nothing new may be created.
    pub terminating: bool,
    /// Stored objects may differ from what is to be read: in their version, or by defaults added since.
    pub rewrites: bool,
    versions: HashMap<String, Version>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Version {
    /// `spec`, `status` and selector paths of the scale subresource.
    scale: Option<(String, String, String)>,
}

impl Facts {
    /// Paths of replicas in the spec and in the status, and of the selector.
    pub fn scale(&self, version: &str) -> Option<&(String, String, String)> {
        self.versions.get(version)?.scale.as_ref()
    }

    fn of(definition: &Value) -> Self {
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten().map(|version| {
            let name = text(&version["name"]);
            let scale = version["subresources"].get("scale").map(|scale| {
                let path = |field: &str| text(&scale[field]).trim_start_matches('.').to_owned();
                (path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))
            });
            (name.to_owned(), Version { scale })
        });
        let versions: HashMap<String, Version> = versions.collect();
        let defaults = || states_default(&definition["spec"]["versions"]);
        Self {
            terminating: meta::deletion_timestamp(definition).is_some(),
            rewrites: versions.len() > 1 || defaults(),
            versions,
        }
    }
}

fn states_default(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("default") || map.values().any(states_default),
        Value::Array(list) => list.iter().any(states_default),
        _ => false,
    }
}

/// Of all definitions, by group and plural.
#[derive(Clone, Debug, Default)]
pub struct Known(HashMap<(String, String), Arc<Facts>>);

impl Known {
    pub(super) fn of(definitions: &[Value]) -> Self {
        let facts = definitions.iter().map(|definition| {
            let spec = &definition["spec"];
            let key = (text(&spec["group"]).to_owned(), text(&spec["names"]["plural"]).to_owned());
            (key, Arc::new(Facts::of(definition)))
        });
        Self(facts.collect())
    }

    pub fn get(&self, group: &str, plural: &str) -> Option<Arc<Facts>> {
        self.0.get(&(group.to_owned(), plural.to_owned())).cloned()
    }
}
