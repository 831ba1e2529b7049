//! The cells of CustomResourceDefinitions: a JSONPath into the object. Understood are fields, indexes, `[*]` and filters
//! by equality, `[?(@.type=="Ready")]`, which is what printer columns use.

use jiff::Timestamp;
use serde_json::Value;

use super::since;

/// The cell of a column of `kind`; null when the path leads nowhere.
pub fn cell(path: &str, kind: &str, object: &Value, now: Timestamp) -> Value {
    let found = find(path, object);
    let Some(first) = found.first() else { return Value::Null };
    match kind {
        "integer" => first.as_i64().map_or(Value::Null, Value::from),
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => first.as_str().map_or(Value::Null, |time| since(time, now).into()),
        _ => {
            let shown: Vec<String> = found.into_iter().map(shown).collect();
            shown.join(" ").into()
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The values that `path` (with its leading dot) leads to.
pub fn find<'a>(path: &str, object: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() && !found.is_empty() {
        let (step, after) = next_step(rest);
        found = found.into_iter().flat_map(|value| apply(step, value)).collect();
        rest = after;
    }
    found
}

/// The first step of a path, without its brackets or dot, and what follows.
fn next_step(path: &str) -> (&str, &str) {
    if let Some(inner) = path.strip_prefix('[') {
        let end = closing(inner).unwrap_or(inner.len());
        return (&inner[..end], inner.get(end + 1..).unwrap_or_default());
    }
    let name = path.strip_prefix('.').unwrap_or(path);
    let mut escaped = false;
    let end = name.find(|c: char| {
        let stop = !escaped && (c == '.' || c == '[');
        escaped = c == '\\' && !escaped;
        stop
    });
    name.split_at(end.unwrap_or(name.len()))
}

/// Where the bracket closes, quotes and inner brackets respected.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn apply<'a>(step: &str, value: &'a Value) -> Vec<&'a Value> {
    let items = || match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    };
    if step.is_empty() {
        return vec![value];
    }
    if step == "*" {
        return items();
    }
    if let Some(filter) = step.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return items().into_iter().filter(|item| holds(filter, item)).collect();
    }
    if let (Ok(index), Value::Array(list)) = (step.parse::<i64>(), value) {
        let index = if index < 0 { list.len() as i64 + index } else { index };
        return usize::try_from(index).ok().and_then(|i| list.get(i)).into_iter().collect();
    }
    let name = step.trim_matches(['\'', '"']).replace('\\', "");
    value.get(&name).into_iter().collect()
}

/// `@.a.b == "c"` or `!=`; without an operator, that the path leads somewhere.
fn holds(filter: &str, item: &Value) -> bool {
    let split = filter.split_once("==").map(|s| (s, true)).or_else(|| filter.split_once("!=").map(|s| (s, false)));
    let path = |text: &str| text.trim().trim_start_matches('@').to_owned();
    let Some(((left, right), equal)) = split else { return !find(&path(filter), item).is_empty() };
    let wanted = right.trim();
    let text = wanted.trim_matches(['\'', '"']);
    let literal: Option<Value> = serde_json::from_str(wanted).ok();
    let matches = find(&path(left), item).into_iter().any(|value| match value {
        Value::String(have) => have == text,
        other => literal.as_ref() == Some(other),
    });
    matches == equal
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let object = json!({"spec": {"n": 3, "a.b": "x", "list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let now = Timestamp::UNIX_EPOCH;
        for (path, kind, want) in [
            (".spec.n", "integer", json!(3)),
            (".spec.n", "string", json!("3")),
            (".spec['a.b']", "string", json!("x")),
            (".spec.a\\.b", "string", json!("x")),
            (".spec.list[1].k", "string", json!("b")),
            (".spec.list[-1].v", "integer", json!(2)),
            (".spec.list[*].k", "string", json!("a b")),
            (".status.conditions[?(@.type==\"Ready\")].status", "string", json!("True")),
            (".status.conditions[?(@.type!=\"Ready\")].status", "string", Value::Null),
            (".none.there", "string", Value::Null),
        ] {
            assert_eq!(cell(path, kind, &object, now), want, "{path}");
        }
    }
}
