//! The objects every cluster starts with, from the data files: roles and bindings, flow schemas, priority levels and
//! priority classes. Pure: files in, objects out.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::authz::GROUP as RBAC;
use crate::authz::rule::Rule;

const RBAC_FILE: &str = include_str!("../../data/rbac.json");
/// What Keelson adds: the rights of machines that join with a token, and what nodes read for the network between them.
const KEELSON_FILE: &str = include_str!("../../data/rbac-keelson.json");
const FLOW_FILE: &str = include_str!("../../data/flowcontrol-priority.json");

/// Upstream reconciles an object unless this annotation says `false`.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
pub const FLOW_AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RbacFile {
    cluster_roles: Vec<Map<String, Value>>,
    cluster_role_bindings: Vec<Map<String, Value>>,
    roles: Vec<Map<String, Value>>,
    role_bindings: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FlowFile {
    flow_schemas: Vec<Map<String, Value>>,
    priority_levels: Vec<Map<String, Value>>,
    priority_classes: Vec<Map<String, Value>>,
}

/// An object with where it lives.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    pub group: &'static str,
    pub resource: &'static str,
    pub object: Value,
}

fn rbac_file(text: &str) -> RbacFile {
    serde_json::from_str(text).expect("the data file is part of the program and read by a test")
}

fn flow_file() -> FlowFile {
    serde_json::from_str(FLOW_FILE).expect("the data file is part of the program and read by a test")
}

/// Roles first, then bindings, so that most bindings find their role.
pub fn rbac() -> Vec<Wanted> {
    let mut file = rbac_file(RBAC_FILE);
    let own = rbac_file(KEELSON_FILE);
    file.cluster_roles.extend(own.cluster_roles);
    file.cluster_role_bindings.extend(own.cluster_role_bindings);
    file.roles.extend(own.roles);
    file.role_bindings.extend(own.role_bindings);
    let parts = [
        ("clusterroles", "ClusterRole", file.cluster_roles),
        ("roles", "Role", file.roles),
        ("clusterrolebindings", "ClusterRoleBinding", file.cluster_role_bindings),
        ("rolebindings", "RoleBinding", file.role_bindings),
    ];
    let mut wanted = Vec::new();
    for (resource, kind, entries) in parts {
        wanted.extend(entries.into_iter().map(|entry| Wanted {
            group: RBAC,
            resource,
            object: rbac_object(kind, entry),
        }));
    }
    wanted
}

fn rbac_object(kind: &str, mut entry: Map<String, Value>) -> Value {
    let mut metadata = metadata(&mut entry, AUTOUPDATE);
    let labels = api::meta::object_mut(metadata.entry("labels").or_insert(Value::Null));
    labels.insert("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".into());
    if let Some(role) = entry.get_mut("roleRef") {
        role["apiGroup"] = RBAC.into();
    }
    for subject in entry.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        if subject["kind"] != "ServiceAccount" {
            subject["apiGroup"] = RBAC.into();
        }
    }
    object(&format!("{RBAC}/v1"), kind, metadata, entry)
}

/// Flow schemas and priority levels.
pub fn flow() -> Vec<Wanted> {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    let file = flow_file();
    let parts = [
        ("prioritylevelconfigurations", "PriorityLevelConfiguration", file.priority_levels),
        ("flowschemas", "FlowSchema", file.flow_schemas),
    ];
    let mut wanted = Vec::new();
    for (resource, kind, entries) in parts {
        wanted.extend(entries.into_iter().map(|mut entry| {
            let metadata = metadata(&mut entry, FLOW_AUTOUPDATE);
            Wanted { group: GROUP, resource, object: object(&format!("{GROUP}/v1"), kind, metadata, entry) }
        }));
    }
    wanted
}

pub fn priority_classes() -> Vec<Wanted> {
    const GROUP: &str = "scheduling.k8s.io";
    let entries = flow_file().priority_classes.into_iter().map(|mut entry| {
        let name = entry.remove("name").unwrap_or_default();
        let metadata = Map::from_iter([("name".to_owned(), name)]);
        let object = object(&format!("{GROUP}/v1"), "PriorityClass", metadata, entry);
        Wanted { group: GROUP, resource: "priorityclasses", object }
    });
    entries.collect()
}

/// The rules of one bootstrap cluster role; none when there is no such role.
pub fn cluster_role_rules(name: &str) -> Vec<Rule> {
    let role = rbac_file(RBAC_FILE).cluster_roles.into_iter().find(|role| role.get("name").is_some_and(|n| n == name));
    role.map(|role| Rule::parse_all(&Value::Object(role))).unwrap_or_default()
}

/// Takes name, namespace and labels out of an entry and marks it as kept up to date.
fn metadata(entry: &mut Map<String, Value>, autoupdate: &str) -> Map<String, Value> {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels"] {
        if let Some(value) = entry.remove(field) {
            metadata.insert(field.to_owned(), value);
        }
    }
    metadata.insert("annotations".to_owned(), json!({ autoupdate: "true" }));
    metadata
}

fn object(api_version: &str, kind: &str, metadata: Map<String, Value>, rest: Map<String, Value>) -> Value {
    let mut object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata });
    api::meta::object_mut(&mut object).extend(rest);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_what_upstream_starts_with_and_ours() {
        let rbac = rbac();
        let count = |resource: &str| rbac.iter().filter(|w| w.resource == resource).count();
        assert_eq!((count("clusterroles"), count("clusterrolebindings")), (70 + 3, 51 + 5));
        assert_eq!((count("roles"), count("rolebindings")), (7 + 1, 7 + 1));
        assert_eq!((flow().len(), priority_classes().len()), (19, 2));
        let admin = rbac.iter().find(|w| w.object["metadata"]["name"] == "cluster-admin").unwrap();
        assert_eq!(admin.object["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
        assert_eq!(admin.object["metadata"]["annotations"][AUTOUPDATE], "true");
        assert!(!cluster_role_rules("system:node").is_empty());
        assert!(cluster_role_rules("nobody").is_empty());
    }

    #[test]
    fn subjects_carry_their_group() {
        for wanted in rbac().iter().filter(|w| w.object.get("subjects").is_some()) {
            for subject in wanted.object["subjects"].as_array().unwrap() {
                let grouped = subject.get("apiGroup").is_some();
                assert_eq!(grouped, subject["kind"] != "ServiceAccount", "{subject}");
            }
        }
    }
}
