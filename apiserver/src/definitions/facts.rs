//! What requests on custom resources must know of their definitions beside the rows.

use std::collections::HashMap;
use std::sync::Arc;

use api::field::Error;
use api::meta;
use serde_json::Value;

use super::plan::text;
use super::rules::Rules;

/// Of one definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// It is being deleted: nothing new may be created.
    pub terminating: bool,
    /// Stored objects may differ from what is to be read: in their version, or by defaults added since.
    pub rewrites: bool,
    versions: HashMap<String, Version>,
    /// Which state of the definition this is of.
    of: (String, i64),
}

#[derive(Clone, Debug, Default)]
struct Version {
    /// `spec`, `status` and selector paths of the scale subresource.
    scale: Option<(String, String, String)>,
    /// `x-kubernetes-validations`, compiled when they are first needed.
    rules: Rules,
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.scale == other.scale && self.rules.schema() == other.rules.schema()
    }
}

impl Facts {
    /// Paths of replicas in the spec and in the status, and of the selector.
    pub fn scale(&self, version: &str) -> Option<&(String, String, String)> {
        self.versions.get(version)?.scale.as_ref()
    }

    /// What is wrong with an object of a version by the definition's rules.
    pub fn broken_rules(&self, version: &str, object: &Value, old: Option<&Value>) -> Vec<Error> {
        self.versions.get(version).map_or_else(Vec::new, |version| version.rules.broken(object, old))
    }

    fn of(definition: &Value) -> Self {
        let versions = definition["spec"]["versions"].as_array().into_iter().flatten().map(|version| {
            let name = text(&version["name"]);
            let scale = version["subresources"].get("scale").map(|scale| {
                let path = |field: &str| text(&scale[field]).trim_start_matches('.').to_owned();
                (path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))
            });
            let rules = Rules::new(&version["schema"]["openAPIV3Schema"]);
            (name.to_owned(), Version { scale, rules })
        });
        let versions: HashMap<String, Version> = versions.collect();
        let defaults = || states_default(&definition["spec"]["versions"]);
        Self {
            terminating: meta::deletion_timestamp(definition).is_some(),
            rewrites: versions.len() > 1 || defaults(),
            versions,
            of: state(definition),
        }
    }
}

fn state(definition: &Value) -> (String, i64) {
    (meta::uid(definition).to_owned(), definition["metadata"]["generation"].as_i64().unwrap_or_default())
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
    /// What is known already of a definition that has not changed is kept.
    pub(super) fn of(definitions: &[Value], before: &Self) -> Self {
        let facts = definitions.iter().map(|definition| {
            let spec = &definition["spec"];
            let key = (text(&spec["group"]).to_owned(), text(&spec["names"]["plural"]).to_owned());
            let terminating = meta::deletion_timestamp(definition).is_some();
            let known =
                before.0.get(&key).filter(|facts| facts.of == state(definition) && facts.terminating == terminating);
            let facts = known.map_or_else(|| Arc::new(Facts::of(definition)), Arc::clone);
            (key, facts)
        });
        Self(facts.collect())
    }

    pub fn get(&self, group: &str, plural: &str) -> Option<Arc<Facts>> {
        self.0.get(&(group.to_owned(), plural.to_owned())).cloned()
    }
}
