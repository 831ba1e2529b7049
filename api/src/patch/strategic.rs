//! Strategic merge patch: a merge patch that knows, from the schema, which lists merge and by which key, and that can
//! carry directives (`$patch`, `$retainKeys`, `$setElementOrder/…`, `$deleteFromPrimitiveList/…`).
//!
//! Behaves as `StrategicMergePatch` of `k8s.io/apimachinery/pkg/util/strategicpatch`, odd corners included: a directive
//! other than `$patch` inside something the patch adds whole is left in (decoding drops it as an unknown field).

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::order::{Identity, arrange, without_repeats};
use super::{Error, gofmt};
use crate::schema::{Schema, Shape};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";

const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ELEMENT_ORDER: &str = "invalid patch format of setElementOrder list";
const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";

/// Merges `patch` into `document`, an object of the built-in type `schema`.
pub fn strategic(schema: Schema<'_>, document: &Value, patch: &Value) -> Result<Value, Error> {
    let Value::Object(patch) = patch else {
        let kind = gofmt::json_kind(patch);
        return match patch {
            Value::Null => Ok(document.clone()),
            _ => Err(Error::Malformed(format!(
                "json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
            ))),
        };
    };
    let original = match document {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    merge_map(original, patch.clone(), Some(schema)).map(Value::Object)
}

fn unmergeable(message: impl Into<String>) -> Error {
    Error::Unmergeable(message.into())
}

fn bad_type(expected: &str, got: &Value) -> Error {
    unmergeable(format!("expected a {expected}, but received a {}", gofmt::type_name(got)))
}

pub(super) fn no_merge_key(item: &Value, key: &str) -> Error {
    unmergeable(format!("map: {} does not contain declared merge key: {key}", gofmt::value(item)))
}

fn bad_directive(directive: &Value, map: Map<String, Value>) -> Error {
    let map = gofmt::value(&Value::Object(map));
    unmergeable(format!("unknown patch type: {} in map: {map}", gofmt::value(directive)))
}

/// The schema of a field that is about to be merged. The document was decoded by the schema, so a field it has is a
/// field the schema has, unless the object is a free form one.
fn field_schema<'a>(schema: Option<Schema<'a>>, name: &str) -> Result<Schema<'a>, Error> {
    let schema = schema.ok_or_else(|| unmergeable(format!("unable to find api field for the json field {name:?}")))?;
    if schema.shape() == Shape::Map {
        return Err(unmergeable("merging an object in json but data type is not struct, instead is: map"));
    }
    schema.field(name).ok_or_else(|| {
        let owner = schema.type_name().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        unmergeable(format!("unable to find api field in struct {owner} for the json field {name:?}"))
    })
}

/// Merges one object (upstream's `mergeMap`).
fn merge_map(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Result<Map<String, Value>, Error> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            // The rest of the patch is the new object, taken as it is.
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => {
                patch.insert(DIRECTIVE.to_owned(), directive.clone());
                Err(bad_directive(&directive, patch))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        if key.starts_with(DELETE_FROM_PRIMITIVE_LIST) {
            delete_from_list(&mut original, &key, value)?;
        } else {
            merge_field(&mut original, key, value, schema)?;
        }
    }
    Ok(original)
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: String,
    value: Value,
    schema: Option<Schema<'_>>,
) -> Result<(), Error> {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    match (original.get_mut(&key), value) {
        (Some(Value::Object(into)), Value::Object(from)) => {
            let field = field_schema(schema, &key)?;
            let merged = if field.patch_strategies().replace {
                from
            } else {
                merge_map(std::mem::take(into), from, Some(field))?
            };
            original.insert(key, Value::Object(merged));
        }
        (Some(Value::Array(into)), Value::Array(from)) => {
            let field = field_schema(schema, &key)?;
            let merged = if field.patch_strategies().merge {
                merge_list(std::mem::take(into), from, field)?.items
            } else {
                from
            };
            original.insert(key, Value::Array(merged));
        }
        (_, mut value) => {
            discard_nulls(&mut value);
            match without_directives(value) {
                Some(value) => original.insert(key, value),
                None => original.remove(&key),
            };
        }
    }
    Ok(())
}

/// `$deleteFromPrimitiveList/field: [...]`.
fn delete_from_list(original: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Error> {
    let Some(name) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST).and_then(|rest| rest.strip_prefix('/')) else {
        return Err(Error::Malformed(BAD_PRIMITIVE_LIST.to_owned()));
    };
    match (original.get_mut(name), value) {
        (_, Value::Null) => {
            original.remove(name);
        }
        (Some(Value::Array(items)), Value::Array(gone)) => {
            check_item_types(&[items, &gone])?;
            let gone: HashSet<Value> = gone.into_iter().collect();
            items.retain(|item| !gone.contains(item));
        }
        // Nothing to delete from.
        _ => {}
    }
    Ok(())
}

/// `$retainKeys: [...]`: what the list does not name goes, and the patch may set nothing else.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Error> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || Error::Malformed(BAD_RETAIN_KEYS.to_owned());
    let keep = directive.as_array().ok_or_else(bad)?;
    let is_kept = |key: &str| keep.iter().any(|k| k == key);
    for (key, value) in patch.iter() {
        let is_directive = key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
        if !value.is_null() && !is_directive && !is_kept(key) {
            return Err(bad());
        }
    }
    original.retain(|key, _| is_kept(key));
    Ok(())
}

/// `$setElementOrder/field: [...]`, together with the patch's own list for that field, which is taken out of `patch`.
fn merge_ordered_lists(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: Option<Schema<'_>>,
) -> Result<(), Error> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for key in directives {
        let order = patch.remove(&key).unwrap_or_default();
        let Value::Array(order) = order else { return Err(bad_type("[]interface {}", &order)) };
        let Some(name) = key.strip_prefix(SET_ELEMENT_ORDER).and_then(|rest| rest.strip_prefix('/')) else {
            return Err(Error::Malformed(BAD_ELEMENT_ORDER.to_owned()));
        };
        let before = list_at(original.get(name))?;
        let patched = list_at(patch.get(name))?;
        let field = field_schema(schema, name)?;
        let identity = Identity(field.patch_merge_key());
        check_follows(patched.as_deref().unwrap_or_default(), &order, identity)?;
        if before.is_none() && patched.is_none() {
            continue;
        }
        let was_there = before.is_some();
        let before = before.unwrap_or_default();
        let merged = match patched.clone() {
            None => Merged { items: before.clone(), before: before.clone() },
            Some(items) if !was_there => {
                let items = items.into_iter().filter_map(without_directives).collect();
                Merged { items, before: Vec::new() }
            }
            Some(items) if field.patch_strategies().merge => merge_list(before.clone(), items, field)?,
            Some(items) => Merged { items, before: before.clone() },
        };
        let patched = patched.unwrap_or_default();
        if before.is_empty() && patched.is_empty() {
            return Err(unmergeable("no elements in any of the given slices"));
        }
        check_item_types(&[&before, &patched])?;
        let items = arrange(merged.items, &order, &merged.before, identity)?;
        original.insert(name.to_owned(), Value::Array(items));
        patch.remove(name);
    }
    Ok(())
}

fn list_at(value: Option<&Value>) -> Result<Option<Vec<Value>>, Error> {
    match value {
        None => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        Some(other) => Err(bad_type("[]interface {}", other)),
    }
}

/// The patch's list must be a subsequence of the order it states, deletions aside. Other directives are passed over, but
/// not behind the last item of the order (upstream's `validatePatchWithSetOrderList`).
fn check_follows(patched: &[Value], order: &[Value], identity: Identity<'_>) -> Result<(), Error> {
    if patched.is_empty() || order.is_empty() {
        return Ok(());
    }
    let is_deletion = |item: &&Value| identity.0.is_some() && item.get(DIRECTIVE).is_some_and(|d| d == "delete");
    let mut items = patched.iter().filter(|item| !is_deletion(item)).peekable();
    let mut rest = order.iter().peekable();
    while let (Some(item), Some(candidate)) = (items.peek(), rest.peek()) {
        if item.get(DIRECTIVE).is_some() {
            items.next();
            continue;
        }
        if identity.required(item)? == identity.required(candidate)? {
            items.next();
        }
        rest.next();
    }
    if items.peek().is_none() || rest.peek().is_some() {
        return Ok(());
    }
    let (patched, order) = (patched.to_vec().into(), order.to_vec().into());
    Err(unmergeable(format!(
        "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
        gofmt::value(&patched),
        gofmt::value(&order)
    )))
}

/// Merges a list whose strategy is `merge` (upstream's `mergeSlice`).
fn merge_list(original: Vec<Value>, patch: Vec<Value>, field: Schema<'_>) -> Result<Merged, Error> {
    if original.is_empty() && patch.is_empty() {
        return Ok(Merged { items: original.clone(), before: original });
    }
    check_item_types(&[&original, &patch])?;
    let holds_maps = original.first().or(patch.first()).is_some_and(Value::is_object);
    if !holds_maps {
        let both = original.iter().chain(&patch).cloned().collect();
        let items = arrange(without_repeats(both), &patch, &original, Identity(None))?;
        return Ok(Merged { items, before: original });
    }
    let Some(key) = field.patch_merge_key() else {
        return Err(unmergeable("cannot merge lists without merge key for struct"));
    };
    let identity = Identity(Some(key));
    let len_before = original.len();
    let (original, patch) = apply_item_directives(original, patch, key)?;
    let mut merged = original.clone();
    // Items of the server without the key are no match for anything here; `arrange` refuses them.
    let mut positions: HashMap<&Value, usize> = HashMap::new();
    for (at, item) in original.iter().enumerate() {
        if let Some(value) = item.get(key) {
            positions.entry(value).or_insert(at);
        }
    }
    for item in &patch {
        let value = identity.required(item)?;
        match (positions.get(value), item) {
            (Some(&at), Value::Object(from)) => {
                let into = merged[at].as_object().cloned().unwrap_or_default();
                merged[at] = Value::Object(merge_map(into, from.clone(), field.items())?);
            }
            _ => {
                positions.insert(value, merged.len());
                merged.push(item.clone());
            }
        }
    }
    // Upstream deletes in place and appends behind what is left, in the slice it then reads the order before the patch
    // from: new items count as having stood where deleted ones made room.
    let before = merged.iter().take(len_before.max(original.len())).cloned().collect();
    let items = arrange(merged, &patch, &original, identity)?;
    Ok(Merged { items, before })
}

/// A merged list.
struct Merged {
    items: Vec<Value>,
    /// The list before the patch, as an order directive is to see it.
    before: Vec<Value>,
}

/// Items that are directives: `$patch: delete` removes by merge key, `$patch: replace` makes the rest the whole list.
/// Returns the list to merge into and the items left to merge.
fn apply_item_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut gone = HashSet::new();
    let mut replaces = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                gone.insert(item.get(key).ok_or_else(|| no_merge_key(&item, key))?.clone());
            }
            Some("replace") => replaces = true,
            Some("merge") => return Err(unmergeable("merging lists cannot yet be specified in the patch")),
            _ => return Err(bad_directive(directive, item.as_object().cloned().unwrap_or_default())),
        }
    }
    original.retain(|item| item.get(key).is_none_or(|value| !gone.contains(value)));
    if replaces { Ok((plain, Vec::new())) } else { Ok((original, plain)) }
}

/// All items of the given lists must be of one type, and not lists.
fn check_item_types(lists: &[&[Value]]) -> Result<(), Error> {
    let mut first: Option<&'static str> = None;
    for item in lists.iter().copied().flatten() {
        let name = gofmt::type_name(item);
        match first {
            None if item.is_array() => return Err(Error::DoesNotApply("lists of lists are not supported".to_owned())),
            None => first = Some(name),
            Some(expected) if expected != name => {
                let shown = Value::Array(lists.iter().map(|list| Value::Array(list.to_vec())).collect());
                return Err(unmergeable(format!("list element types are not identical: {}", gofmt::value(&shown))));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Removes null members of objects at every depth.
fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// What is left of an added value when objects that are a `$patch` directive are taken out.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?))).collect(),
        )),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}
