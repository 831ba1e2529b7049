//! The objects that parameterize a policy in one binding (`CollectParams`).

use std::sync::Arc;

use api::catalogue::Resource;
use api::meta;
use api::selector::LabelSelector;
use serde_json::Value;

use crate::convert;
use crate::server::Server;

/// One evaluation each; `None` is one without params.
pub fn collect(server: &Server, spec: &Value, binding: &Value, namespace: &str) -> Result<Vec<Option<Value>>, String> {
    let (kind, reference) = (&spec["paramKind"], &binding["spec"]["paramRef"]);
    if !kind.is_object() || !reference.is_object() {
        return Ok(vec![None]);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (version, name) = (kind["apiVersion"].as_str().unwrap_or_default(), kind["kind"].as_str().unwrap_or_default());
    let (group, of) = meta::split_api_version(version);
    let catalogue = server.catalogue.load();
    let Some(row) = catalogue.by_kind(group, of, name) else {
        return Err(format!("paramKind kind `{version}, Kind={name}` not known"));
    };
    let namespace = match (row.namespaced(), text("namespace")) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        (true, "") if namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        (true, "") => namespace,
        (true, stated) => stated,
    };
    let found = named_or_selected(server, row, reference, namespace)?;
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(Some).collect())
}

fn named_or_selected(
    server: &Server,
    row: &Arc<Resource>,
    reference: &Value,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let snapshot = server.cache_of(row).snapshot();
    let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    let storage = convert::storage_row(&server.catalogue.load(), row);
    let read = |stored: Value| {
        let mut object = convert::read(row, &storage, false, stored);
        object["kind"] = row.kind.as_str().into();
        object
    };
    if let Some(name) = reference["name"].as_str().filter(|name| !name.is_empty()) {
        return Ok(snapshot.get(&format!("{prefix}{name}")).map(|item| read(item.value())).into_iter().collect());
    }
    let selector = LabelSelector::from_object(reference.get("selector")).map_err(|error| error.to_string())?;
    let all = snapshot.range(&prefix, "").map(|(_, item)| item.value());
    Ok(all.filter(|object| selector.matches(object["metadata"]["labels"].as_object())).map(read).collect())
}
