//! Whether the rules of a definition compile, and what they may cost at most
//! (`ValidateCustomResourceDefinitionOpenAPISchema`).

use api::field::Error;
use cel::Type;
use serde_json::{Value, json};

use super::{Rule, is_embedded, stated_rules, states_rules};

/// Estimated cost of a rule (`StaticEstimatedCostLimit`).
const RULE_COST_MAX: u64 = 10_000_000;
/// Of all rules of a schema together (`StaticEstimatedCRDCostLimit`).
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// Rules named when all together are too expensive.
const EXPENSIVE_NAMED: usize = 4;
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

pub fn check(definition: &Value) -> Vec<Error> {
    let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    // A schema that all versions share is reported where older definitions had it.
    let shared = versions.windows(2).all(|pair| pair[0]["schema"] == pair[1]["schema"]);
    let mut out = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        if !states_rules(schema) || (shared && index > 0) {
            continue;
        }
        let path = match shared {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        out.extend(check_schema(schema, &path));
    }
    out
}

/// Where the walk is.
#[derive(Clone, Copy)]
struct Around<'a> {
    is_root: bool,
    /// How many values this part of a schema may describe in one object.
    times: u64,
    /// Above here old and new values do not correspond.
    uncorrelated: Option<&'a str>,
}

#[derive(Default)]
struct Check {
    /// Wrong in form; then nothing is compiled.
    form: Vec<Error>,
    errors: Vec<Error>,
    costs: Vec<(u64, String)>,
}

fn check_schema(schema: &Value, path: &str) -> Vec<Error> {
    let mut check = Check::default();
    check.node(schema, path, Around { is_root: true, times: 1, uncorrelated: None });
    if !check.form.is_empty() {
        return check.form;
    }
    let total = check.costs.iter().fold(0_u64, |total, (cost, _)| total.saturating_add(*cost));
    if total > SCHEMA_COST_MAX {
        check.costs.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let named = check.costs.iter().take(EXPENSIVE_NAMED).filter(|(cost, _)| *cost > 0);
        check.errors.extend(named.map(|(_, path)| Error::forbidden(path.as_str(), detail)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        check.errors.push(Error::forbidden(path, too_expensive(what, total, SCHEMA_COST_MAX)));
    }
    check.errors
}

fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 { "more than 100".to_owned() } else { format!("{factor:.1}") };
    format!(
        "{what} exceeds budget by factor of {factor}x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// The most elements a value of this part has.
fn elements_max(schema: &Value) -> u64 {
    cel::schema::type_of(schema, false).as_ref().and_then(Type::size_max).unwrap_or(u64::MAX)
}

impl Check {
    fn node(&mut self, schema: &Value, path: &str, around: Around<'_>) {
        if !states_rules(schema) {
            return;
        }
        let inner = Around { is_root: false, ..around };
        let values = &schema["additionalProperties"];
        if values.is_object() {
            let times = around.times.saturating_mul(elements_max(schema));
            let inner = Around { is_root: is_embedded(values), times, ..inner };
            self.node(values, &format!("{path}.additionalProperties"), inner);
        }
        let atomic = schema["x-kubernetes-map-type"] == "atomic";
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let uncorrelated = around.uncorrelated.or(atomic.then_some(path));
            let inner = Around { is_root: is_embedded(property), uncorrelated, ..inner };
            self.node(property, &format!("{path}.properties[{name}]"), inner);
        }
        let items = &schema["items"];
        if items.is_object() {
            let times = around.times.saturating_mul(elements_max(schema));
            let by_key = schema["x-kubernetes-list-type"] == "map";
            let uncorrelated = around.uncorrelated.or((!by_key).then_some(path));
            self.node(items, &format!("{path}.items"), Around { is_root: is_embedded(items), times, uncorrelated });
        }
        let ty = cel::schema::type_of(schema, around.is_root).unwrap_or(Type::Dyn);
        for (index, stated) in stated_rules(schema).enumerate() {
            let path = format!("{path}.x-kubernetes-validations[{index}]");
            self.form(schema, stated, &path);
            if self.form.is_empty() {
                self.rule(&Rule::new(stated, &ty), &path, around);
            }
        }
    }

    fn form(&mut self, schema: &Value, stated: &Value, path: &str) {
        let text = |field: &str| stated[field].as_str().unwrap_or_default();
        let set = |field: &str| stated[field].as_str().is_some_and(|text| !text.is_empty());
        let at = |field: &str| format!("{path}.{field}");
        let blank = |field: &str| set(field) && text(field).trim().is_empty();
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let invalid = |field: &str, why: &str| Error::invalid(at(field), text(field), why);
        if text("rule").trim().is_empty() {
            self.form.push(Error::required(at("rule"), "rule is not specified"));
        } else if blank("message") {
            self.form.push(invalid("message", "must be non-empty if specified"));
        } else if breaks(text("message").trim()) {
            self.form.push(invalid("message", "must not contain line breaks"));
        } else if breaks(text("rule").trim()) && text("message").trim().is_empty() {
            self.form.push(Error::required(at("message"), "message must be specified if rule contains line breaks"));
        }
        if blank("messageExpression") {
            let why = "messageExpression must be non-empty if specified";
            self.form.push(Error::required(at("messageExpression"), why));
        }
        if set("reason") && !REASONS.contains(&text("reason")) {
            self.form.push(Error::not_supported(at("reason"), text("reason"), REASONS));
        }
        if blank("fieldPath") {
            self.form.push(invalid("fieldPath", "must be non-empty if specified"));
        }
        if breaks(text("fieldPath")) {
            self.form.push(invalid("fieldPath", "must not contain line breaks"));
        }
        if set("fieldPath") && !path_exists(schema, text("fieldPath")) {
            self.form.push(invalid("fieldPath", "must be a valid path"));
        }
    }

    fn rule(&mut self, rule: &Rule, path: &str, around: Around<'_>) {
        let at = format!("{path}.rule");
        match &rule.program {
            Ok(program) => self.cost(program.estimate().max, "estimated rule cost", at.clone(), around.times),
            Err(problem) => self.errors.push(Error::invalid(at.as_str(), shown(rule), problem.as_str())),
        }
        let message_at = format!("{path}.messageExpression");
        match &rule.message {
            Some(Ok(program)) => {
                self.cost(program.estimate().max, "estimated messageExpression cost", message_at, 1);
            }
            Some(Err(problem)) => self.errors.push(Error::invalid(message_at, shown(rule), problem.as_str())),
            None => {}
        }
        if rule.program.is_err() {
            return;
        }
        if let (true, Some(above)) = (rule.uses_old, around.uncorrelated) {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {above}");
            self.errors.push(Error::invalid(at, rule.text("rule"), detail));
        }
        if !rule.uses_old && !rule.stated["optionalOldSelf"].is_null() {
            let at = format!("{path}.optionalOldSelf");
            let detail = "may not be set if oldSelf is not used in rule";
            self.errors.push(Error::invalid(at, rule.stated["optionalOldSelf"].clone(), detail));
        }
    }

    fn cost(&mut self, cost: u64, what: &str, at: String, times: u64) {
        let cost = cost.saturating_mul(times);
        if cost > RULE_COST_MAX {
            self.errors.push(Error::forbidden(at.as_str(), too_expensive(what, cost, RULE_COST_MAX)));
        }
        self.costs.push((cost, at));
    }
}

/// A rule as messages show it.
fn shown(rule: &Rule) -> Value {
    let text = |field: &str| rule.stated[field].as_str().unwrap_or_default();
    json!({
        "Rule": text("rule"), "Message": text("message"), "MessageExpression": text("messageExpression"),
        "Reason": rule.stated["reason"], "FieldPath": text("fieldPath"), "OptionalOldSelf": rule.stated["optionalOldSelf"],
    })
}

/// Whether `.a.b['c']` names a part of the schema.
fn path_exists(schema: &Value, path: &str) -> bool {
    let mut schema = schema;
    let mut rest = path.trim();
    if rest.is_empty() || !rest.starts_with(['.', '[']) {
        return false;
    }
    while !rest.is_empty() {
        let (name, behind) = if let Some(inner) = rest.strip_prefix("['") {
            match inner.split_once("']") {
                Some(parts) => parts,
                None => return false,
            }
        } else if let Some(inner) = rest.strip_prefix('.') {
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        } else {
            return false;
        };
        let next =
            schema["properties"].get(name).or_else(|| Some(&schema["additionalProperties"]).filter(|v| v.is_object()));
        match next {
            Some(next) => schema = next,
            None => return false,
        }
        rest = behind;
    }
    true
}
