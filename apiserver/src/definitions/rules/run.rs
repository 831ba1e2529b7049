//! Runs the rules of a definition on an object. All rules of an object share one budget.

use api::field::{Error, ErrorKind};
use cel::{Budget, Error as Failure, Key, OBJECT_COST_MAX, RULE_COST_MAX, Scope, Value};
use serde_json::Value as Json;

use super::{Node, Rule};

/// Bytes of a message that an expression makes.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

struct Run {
    budget: Budget,
    errors: Vec<Error>,
}

/// A part of the object as JSON and as a value.
#[derive(Clone, Copy)]
struct Part<'a> {
    json: &'a Json,
    value: &'a Value,
}

pub(super) fn run(tree: &Node, schema: &Json, object: &Json, old: Option<&Json>) -> Vec<Error> {
    let value = cel::schema::value_of(object, schema, true);
    let old_value = old.map(|old| cel::schema::value_of(old, schema, true));
    let old = old.zip(old_value.as_ref()).map(|(json, value)| Part { json, value });
    let mut run = Run { budget: Budget::new(OBJECT_COST_MAX), errors: Vec::new() };
    // The walk ends early when the budget does.
    if run.node(tree, Part { json: object, value: &value }, old, "").is_none() {
        tracing::debug!("rules of a custom resource ran out of budget");
    }
    run.errors
}

fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn entry<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Map(map) => map.entries.get(&Key::from(key)),
        _ => None,
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::List(list) => &list.items,
        _ => &[],
    }
}

fn property<'a>(part: Part<'a>, name: &str) -> Option<Part<'a>> {
    let json = part.json.get(name).filter(|json| !json.is_null())?;
    let value = entry(part.value, &cel::schema::escape(name)?)?;
    Some(Part { json, value })
}

impl Run {
    /// `None`: the budget is spent, nothing more is run.
    fn node(&mut self, node: &Node, part: Part<'_>, old: Option<Part<'_>>, path: &str) -> Option<()> {
        for rule in &node.rules {
            self.rule(node, rule, part, old, path)?;
        }
        for (name, child) in &node.properties {
            if let Some(found) = property(part, name) {
                let old = old.filter(|_| node.correlates).and_then(|old| property(old, name));
                self.node(child, found, old, &below(path, name))?;
            }
        }
        if let (Some(child), Some(fields)) = (&node.values, part.json.as_object()) {
            for (name, json) in fields {
                let Some(value) = entry(part.value, name) else { continue };
                let old = old
                    .filter(|_| node.correlates)
                    .and_then(|old| Some(Part { json: old.json.get(name)?, value: entry(old.value, name)? }));
                self.node(child, Part { json, value }, old, &format!("{path}[{name}]"))?;
            }
        }
        if let (Some(child), Some(list)) = (&node.items, part.json.as_array()) {
            for (index, (json, value)) in list.iter().zip(items(part.value)).enumerate() {
                let old = old.and_then(|old| same_item(node, old, json));
                self.node(child, Part { json, value }, old, &format!("{path}[{index}]"))?;
            }
        }
        Some(())
    }

    fn rule(&mut self, node: &Node, rule: &Rule, part: Part<'_>, old: Option<Part<'_>>, path: &str) -> Option<()> {
        if part.json.is_null() || (rule.uses_old && old.is_none() && !rule.optional_old) {
            return Some(());
        }
        let at = if path.is_empty() { "<nil>" } else { path };
        let program = match &rule.program {
            Ok(program) => program,
            Err(problem) => {
                let detail = format!("rule compile error: {problem}");
                self.errors.push(Error::invalid(at, node.kind.as_str(), detail));
                return Some(());
            }
        };
        let old_value = match (rule.optional_old, old) {
            (true, Some(old)) => Value::some(old.value.clone()),
            (true, None) => Value::Optional(None),
            (false, Some(old)) => old.value.clone(),
            (false, None) => Value::Null,
        };
        let names = [("self", part.value), ("oldSelf", &old_value)];
        let scope = Scope::new(&names);
        let mut own = Budget::new(RULE_COST_MAX);
        let result = program.evaluate(&scope, &mut own);
        if self.budget.pay(own.spent()).is_err() {
            let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
            self.errors.push(Error::invalid(at, node.kind.as_str(), detail));
            return None;
        }
        match result {
            Ok(Value::Bool(true)) => {}
            // What was so before may stay so.
            Ok(_) if !rule.uses_old && old.is_some_and(|old| old.json == part.json) => {}
            Ok(_) => {
                let error = refusal(node, rule, part, path, &scope, &mut self.budget);
                self.errors.push(error);
            }
            Err(failure) => {
                let over = failure == Failure::CostExceeded;
                self.errors.push(Error::invalid(at, node.kind.as_str(), failed(rule, &failure)));
                if over {
                    return None;
                }
            }
        }
        Some(())
    }
}

/// The old item with the same keys.
fn same_item<'a>(node: &Node, old: Part<'a>, item: &Json) -> Option<Part<'a>> {
    if node.map_keys.is_empty() {
        return None;
    }
    let list = old.json.as_array()?;
    let index = list.iter().position(|other| node.map_keys.iter().all(|key| other[key] == item[key]))?;
    Some(Part { json: &list[index], value: items(old.value).get(index)? })
}

fn named(rule: &Rule) -> &str {
    if rule.text("message").is_empty() { rule.text("rule") } else { rule.text("message") }
}

fn failed(rule: &Rule, failure: &Failure) -> String {
    let rule = named(rule);
    match failure {
        Failure::CostExceeded => {
            format!(
                "'{failure}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            )
        }
        Failure::NoSuchOverload => format!(
            "'{failure}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
        ),
        _ => format!("{failure} evaluating rule: {rule}"),
    }
}

fn refusal(node: &Node, rule: &Rule, part: Part<'_>, path: &str, scope: &Scope<'_>, budget: &mut Budget) -> Error {
    let made = rule.message.as_ref().and_then(|message| message.as_ref().ok()).and_then(|message| {
        match message.evaluate(scope, budget) {
            Ok(Value::String(text)) => Some(text.trim().to_owned()),
            _ => None,
        }
    });
    let fits = |text: &String| !text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX;
    let detail = made.filter(fits).unwrap_or_else(|| match rule.text("message") {
        "" => format!("failed rule: {}", rule.text("rule")),
        message => message.to_owned(),
    });
    let below = rule.text("fieldPath");
    let at = match (path, below.strip_prefix('.').unwrap_or(below)) {
        ("", "") => "<nil>".to_owned(),
        ("", below) => below.to_owned(),
        (path, "") => path.to_owned(),
        (path, below) if below.starts_with('[') => format!("{path}{below}"),
        (path, below) => format!("{path}.{below}"),
    };
    let whole = matches!(node.kind.as_str(), "object" | "array");
    match rule.text("reason") {
        "FieldValueForbidden" => Error::forbidden(at, detail),
        "FieldValueRequired" => Error::required(at, detail),
        "FieldValueDuplicate" if whole => Error::duplicate(at, Json::Null),
        "FieldValueDuplicate" => Error::duplicate(at, part.json.clone()),
        _ if whole => Error::new(ErrorKind::InvalidWhole, at, Json::Null, detail),
        _ => Error::invalid(at, part.json.clone(), detail),
    }
}
