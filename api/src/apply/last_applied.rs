//! The way from client-side to server-side apply and back, for `kubectl` alone: what its last-applied annotation says
//! it applied is no conflict, and the annotation is kept up to date while it is there (upstream's
//! `lastAppliedManager` and `lastAppliedUpdater`).

use serde_json::Value;

use super::compare::{Typed, compare};
use super::managed::Managed;
use super::owned::fields;
use super::prune::{Merged, merge_config};
use super::scope::Scope;
use super::set::Set;
use super::{Error, Request, typed};
use crate::meta;

/// Where client-side apply keeps what it applied.
pub const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager name of `kubectl apply --server-side`.
pub(super) const MANAGER: &str = "kubectl";
/// Limit of all annotations of an object together, in bytes of keys and values.
const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Applies; when `kubectl` meets conflicts that are all about fields it applied client-side before, it takes them over.
pub(super) fn merge_or_take_over(
    scope: &Scope<'_>,
    live: Option<&Value>,
    request: &Request<'_>,
    managed: Managed,
) -> Result<Merged, Error> {
    if request.manager != MANAGER || request.force {
        return merge_config(scope, live, request, managed, request.force);
    }
    let conflicts = match merge_config(scope, live, request, managed.clone(), false) {
        Err(Error::Conflicts(conflicts)) => conflicts,
        other => return other,
    };
    let Some(applied) = live.and_then(|live| applied_before(scope, live)) else {
        return Err(Error::Conflicts(conflicts));
    };
    let rest: Vec<_> = conflicts.into_iter().filter(|conflict| !applied.contains(&conflict.path.0)).collect();
    if rest.is_empty() { merge_config(scope, live, request, managed, true) } else { Err(Error::Conflicts(rest)) }
}

/// The fields of the last-applied annotation that still have the values it says.
fn applied_before(scope: &Scope<'_>, live: &Value) -> Option<Set> {
    let config: Value = serde_json::from_str(annotation(live)?).ok()?;
    let is_same_version = config.get("apiVersion").and_then(Value::as_str) == Some(scope.api_version);
    if !is_same_version || !typed::check(scope.schema, &config).is_empty() {
        return None;
    }
    let changes = compare(scope.ty(), &config, live, Typed::RIGHT);
    let set = fields(scope.ty(), &config);
    Some(set.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
}

fn annotation(object: &Value) -> Option<&str> {
    let text = meta::annotations(object)?.get(LAST_APPLIED_ANNOTATION)?.as_str()?;
    Some(text).filter(|text| !text.is_empty())
}

/// Makes the annotation, where there is one, say what was applied now, so that client-side apply can take over again.
pub(super) fn sync_annotation(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
    let text = go_json(&config);
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    annotations.insert(LAST_APPLIED_ANNOTATION.to_owned(), text.into());
    let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > MAX_ANNOTATIONS_BYTES {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
}

/// JSON as Go's encoder writes it: sorted keys, `<`, `>`, `&` and line separators escaped, a newline at the end.
fn go_json(value: &Value) -> String {
    let mut text = String::new();
    write_sorted(value, &mut text);
    // These characters occur in texts only.
    for (plain, escaped) in
        [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")]
    {
        if text.contains(plain) {
            text = text.replace(plain, escaped);
        }
    }
    text.push('\n');
    text
}

fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(&map[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
