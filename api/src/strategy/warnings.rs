//! `Warning` headers about objects that are valid, but likely not what the writer meant.

use serde_json::Value;

use super::fill::text;
use super::format;
use crate::meta;

/// A workload whose name ends up in host names of pods.
pub fn workload(object: &Value, old: Option<&Value>, _template: &str) -> Vec<String> {
    let problems = format::label(meta::name(object));
    if old.is_some() || problems.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label \
         is recommended: {problems:?}"
    )]
}

pub fn service(object: &Value) -> Vec<String> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let mut warnings = Vec::new();
    if !text(spec, "externalName").is_empty() && text(spec, "type") != "ExternalName" {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    warnings
}
