//! Lists, labels and selectors as one cell.

use serde_json::Value;

/// Items shown before "+ n more...".
const SHOWN_MAX: usize = 3;

/// The number of items or entries.
pub fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    }
}

pub fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub fn or<'a>(text: &'a str, fallback: &'a str) -> &'a str {
    if text.is_empty() { fallback } else { text }
}

/// Names and images of containers, each joined by commas.
pub fn containers(list: &Value) -> Vec<Value> {
    let join = |name: &str| {
        let items: Vec<&str> = list.as_array().into_iter().flatten().map(|c| field(c, name)).collect();
        Value::from(items.join(","))
    };
    vec![join("name"), join("image")]
}

/// `labels.FormatLabels`.
pub fn labels(map: &Value) -> String {
    let pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A label selector in its textual form (`FormatLabelSelector`); `none` when it is empty.
pub fn selector(selector: &Value, none: &str) -> String {
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        terms.push((key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = field(expression, "key");
        let mut values: Vec<&str> = expression
            .get("values")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match field(expression, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    let terms: Vec<String> = terms.into_iter().map(|(_, term)| term).collect();
    or(&terms.join(","), none).to_owned()
}

/// The first few items, and how many there are beyond.
pub fn shortened(items: &[String], none: &str) -> String {
    let shown = items[..items.len().min(SHOWN_MAX)].join(",");
    if items.len() > SHOWN_MAX {
        return format!("{shown} + {} more...", items.len() - SHOWN_MAX);
    }
    or(&shown, none).to_owned()
}
