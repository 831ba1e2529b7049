//! CustomResourceDefinitions (`apiextensions-apiserver/pkg/apis/apiextensions/validation`), but for rules in CEL.

mod schema;

use serde_json::{Value, json};

use super::place::{Errors, Place};
use super::{Context, NameRule, Strategy, Verb};
use crate::field::{Error, ErrorKind};
use crate::{meta, name};

pub struct CustomResourceDefinition;

const APPROVAL: &str = "api-approved.kubernetes.io";

impl Strategy for CustomResourceDefinition {
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }
    fn counts_generation(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        let kind = spec["names"]["kind"].as_str().unwrap_or_default().to_owned();
        let names = meta::object_mut(meta::child_mut(spec, "names"));
        let empty = |value: Option<&Value>| value.and_then(Value::as_str).is_none_or(str::is_empty);
        if !kind.is_empty() {
            if empty(names.get("singular")) {
                names.insert("singular".into(), kind.to_lowercase().into());
            }
            if empty(names.get("listKind")) {
                names.insert("listKind".into(), format!("{kind}List").into());
            }
        }
        if spec.get("conversion").is_none_or(Value::is_null) {
            spec["conversion"] = json!({"strategy": "None"});
        }
    }

    fn on_create(&self, object: &mut Value, _ctx: &Context) {
        meta::object_mut(object).remove("status");
        store_version(object);
        let status = meta::child_mut(object, "status");
        status["conditions"] = Value::Null;
        status["acceptedNames"] = json!({"plural": "", "kind": ""});
    }

    fn on_update(&self, new: &mut Value, _old: &Value, _ctx: &Context) {
        store_version(new);
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        check_name(object, errors);
        check_approval(object, ctx, errors);
        check_group(&spec, errors);
        spec.field("scope").require_one_of(&["Cluster", "Namespaced"], errors);
        if spec.field("preserveUnknownFields").is_true() && ctx.verb == Verb::Create {
            let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
            errors.push(spec.field("preserveUnknownFields").invalid(why));
        }
        check_versions(&spec, errors);
        check_names(&spec.field("names"), errors);
        spec.field("conversion").field("strategy").require_one_of(&["None", "Webhook"], errors);
        check_stored(object, errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (new_spec, old_spec) = (new.field("spec"), old.field("spec"));
        let established = old.field("status").field("conditions").items().any(|condition| {
            condition.field("type").str() == "Established" && condition.field("status").str() == "True"
        });
        if established {
            new_spec.field("scope").immutable(&old_spec.field("scope"), errors);
            let (new_names, old_names) = (new_spec.field("names"), old_spec.field("names"));
            new_names.field("kind").immutable(&old_names.field("kind"), errors);
        }
        new_spec.field("group").immutable(&old_spec.field("group"), errors);
        let (new_names, old_names) = (new_spec.field("names"), old_spec.field("names"));
        new_names.field("plural").immutable(&old_names.field("plural"), errors);
    }
}

/// The storage version is among those objects may be stored in.
fn store_version(object: &mut Value) {
    let versions = object["spec"]["versions"].as_array();
    let Some(storage) = versions.into_iter().flatten().find(|v| v["storage"] == true) else { return };
    let storage = storage["name"].clone();
    let stored = meta::child_mut(meta::child_mut(object, "status"), "storedVersions");
    match stored.as_array_mut() {
        Some(list) if list.contains(&storage) => {}
        Some(list) => list.push(storage),
        None => *stored = json!([storage]),
    }
}

fn check_name(object: &Place, errors: &mut Errors) {
    let spec = object.field("spec");
    let wanted = format!("{}.{}", spec.field("names").field("plural").str(), spec.field("group").str());
    let metadata = object.field("metadata");
    if metadata.field("name").str() != wanted {
        errors.push(metadata.field("name").invalid("must be spec.names.plural+\".\"+spec.group"));
    }
}

fn check_approval(object: &Place, ctx: &Context, errors: &mut Errors) {
    let spec = object.field("spec");
    let group = spec.field("group").str();
    let protected = [".k8s.io", ".kubernetes.io"].iter().any(|suffix| group.ends_with(suffix))
        || matches!(group, "k8s.io" | "kubernetes.io");
    let metadata = object.field("metadata");
    let annotations = metadata.field("annotations");
    if protected && ctx.verb == Verb::Create && annotations.field(APPROVAL).is_empty() {
        errors.push(annotations.key(APPROVAL).required(
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ));
    }
}

fn check_group(spec: &Place, errors: &mut Errors) {
    let group = spec.field("group");
    if !group.require(errors) {
        return;
    }
    errors.extend(name::dns1123_subdomain(group.str()).into_iter().map(|why| group.invalid(why)));
    if !group.str().contains('.') {
        errors.push(group.invalid("should be a domain with at least one dot"));
    }
}

fn check_versions(spec: &Place, errors: &mut Errors) {
    let versions = spec.field("versions");
    let names: Vec<&str> = versions.list().iter().filter_map(|v| v["name"].as_str()).collect();
    let unique: std::collections::BTreeSet<&&str> = names.iter().collect();
    if unique.len() < names.len() {
        errors.push(versions.invalid("must contain unique version names"));
    }
    let storages = versions.list().iter().filter(|v| v["storage"] == true).count();
    if storages != 1 {
        errors.push(versions.invalid("must have exactly one version marked as storage version"));
    }
    // A schema that all versions share is reported where older definitions had it.
    let shared = versions.list().windows(2).all(|pair| pair[0]["schema"] == pair[1]["schema"]);
    for version in versions.items() {
        check_version(&version, shared, errors);
    }
    let hoisted = Place::root(&Value::Null);
    if let (true, Some(first)) =
        (shared, versions.list().first().filter(|v| v["schema"]["openAPIV3Schema"].is_object()))
    {
        let root = hoisted.named("spec", &Value::Null);
        let place = root.named("validation", &first["schema"]);
        schema::check(&place.field("openAPIV3Schema"), errors);
    }
    let shared = versions.list().windows(2).all(|pair| pair[0]["subresources"] == pair[1]["subresources"]);
    if let (true, Some(first)) = (shared, versions.list().first()) {
        let root = hoisted.named("spec", &Value::Null);
        check_subresources(&root.named("subresources", &first["subresources"]), errors);
    }
}

fn check_version(version: &Place, shared_schema: bool, errors: &mut Errors) {
    let label = version.field("name");
    errors.extend(name::dns1035_label(label.str()).into_iter().map(|why| label.invalid(why)));
    let warning = version.field("deprecationWarning");
    if warning.is_set() && !version.field("deprecated").is_true() {
        errors.push(warning.invalid("can only be set for deprecated versions"));
    }
    let holder = version.field("schema");
    let openapi = holder.field("openAPIV3Schema");
    if !openapi.is_set() {
        errors.push(openapi.required(""));
    } else if !shared_schema {
        schema::check(&openapi, errors);
    }
}

fn check_subresources(subresources: &Place, errors: &mut Errors) {
    let scale = subresources.field("scale");
    if !scale.is_set() {
        return;
    }
    for (field, root) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let path = scale.field(field);
        if !path.require(errors) {
            continue;
        }
        if !path.str().starts_with('.') {
            errors.push(path.invalid("must be a simple json path starting with ."));
        } else if !path.str().starts_with(&format!("{root}.")) {
            errors.push(path.invalid(format!("should be a json path under {root}")));
        }
    }
    let selector = scale.field("labelSelectorPath");
    if !selector.is_empty() && !selector.str().starts_with(".spec.") && !selector.str().starts_with(".status.") {
        errors.push(selector.invalid("should be a json path under either .spec or .status"));
    }
}

fn check_names(names: &Place, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        let place = names.field(field);
        if place.is_empty() {
            // A list kind and a singular follow from the kind.
            if matches!(field, "plural" | "kind") {
                errors.push(place.required(""));
            }
            continue;
        }
        let lower = place.str().to_lowercase();
        errors.extend(
            name::dns1035_label(&lower)
                .into_iter()
                .map(|why| place.invalid(format!("may have mixed case, but should otherwise match: {why}"))),
        );
        if matches!(field, "plural" | "singular") && lower != place.str() {
            errors.push(place.invalid("must be lower case"));
        }
    }
    let (kind, list_kind) = (names.field("kind"), names.field("listKind"));
    if !kind.is_empty() && kind.str() == list_kind.str() {
        errors.push(list_kind.invalid("kind and listKind may not be the same"));
    }
}

/// Versions that objects are stored in must stay.
fn check_stored(object: &Place, errors: &mut Errors) {
    let spec = object.field("spec");
    let versions = spec.field("versions");
    let status = object.field("status");
    for stored in status.field("storedVersions").items() {
        let version = stored.str();
        if !versions.list().iter().any(|v| v["name"] == version) {
            let why = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            errors.push(Error::new(ErrorKind::Invalid, stored.path(), version, why));
        }
    }
}
