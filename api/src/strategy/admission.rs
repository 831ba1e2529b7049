//! Webhook configurations, admission policies and their bindings. Expressions are compiled where they are run, in the
//! API server; here only their presence is checked.

mod policies;
mod webhooks;

use serde_json::Value;

pub use policies::{Policy, PolicyBinding};
pub use webhooks::WebhookConfiguration;

use super::fill::Lit::{Object, Str};
use super::fill::{Rows, each, fill};
use super::format;
use super::place::{Errors, Place};
use crate::field::Error;

const MATCHING: Rows = &[("matchPolicy", Str("Equivalent")), ("namespaceSelector", Object), ("objectSelector", Object)];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const CONDITIONS_MAX: usize = 64;

fn default_rules(holder: &mut Value, list: &str) {
    each(holder, list, |rule| fill(rule, &[("scope", Str("*"))]));
}

/// `matchConstraints` and `matchResources`.
fn default_match(matching: &mut Value) {
    fill(matching, MATCHING);
    default_rules(matching, "resourceRules");
    default_rules(matching, "excludeResourceRules");
}

fn match_resources(matching: &Place, errors: &mut Errors) {
    if !matching.is_set() {
        return;
    }
    matching.field("matchPolicy").require_one_of(&["Equivalent", "Exact"], errors);
    for selector in ["namespaceSelector", "objectSelector"] {
        format::label_selector(&matching.field(selector), errors);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in matching.field(list).items() {
            self::rule(&rule, errors);
        }
    }
}

fn texts<'v>(place: &Place<'v, '_>) -> Vec<&'v str> {
    place.list().iter().map(|v| v.as_str().unwrap_or_default()).collect()
}

/// `validateRuleWithOperations`.
fn rule(rule: &Place, errors: &mut Errors) {
    let operations = rule.field("operations");
    operations.require(errors);
    let star_and_more = |place: &Place, what: &str, errors: &mut Errors| {
        if place.list().len() > 1 && texts(place).contains(&"*") {
            errors.push(place.invalid(format!("if '*' is present, must not specify other {what}")));
        }
    };
    star_and_more(&operations, "operations", errors);
    for operation in operations.items() {
        operation.one_of(OPERATIONS, errors);
    }
    let (groups, versions) = (rule.field("apiGroups"), rule.field("apiVersions"));
    groups.require(errors);
    star_and_more(&groups, "API groups", errors);
    versions.require(errors);
    star_and_more(&versions, "API versions", errors);
    for version in versions.items() {
        version.require(errors);
    }
    resources(&rule.field("resources"), errors);
    rule.field("scope").one_of(&["*", "Cluster", "Namespaced"], errors);
}

/// Wildcards must not be mixed with what they cover.
fn resources(resources: &Place, errors: &mut Errors) {
    resources.require(errors);
    let names = texts(resources);
    let (mut whole, mut everywhere): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut plain = false;
    for resource in resources.items() {
        if !resource.require(errors) {
            continue;
        }
        let Some((name, sub)) = resource.str().split_once('/') else {
            plain = resource.str() != "*";
            continue;
        };
        if whole.contains(&name) {
            let detail = format!("if '{name}/*' is present, must not specify {}", resource.str());
            errors.push(resource.invalid(detail));
        }
        if everywhere.contains(&sub) {
            errors.push(resource.invalid(format!("if '*/{sub}' is present, must not specify {}", resource.str())));
        }
        if sub == "*" {
            whole.push(name);
        }
        if name == "*" {
            everywhere.push(sub);
        }
    }
    if names.len() > 1 && names.contains(&"*/*") {
        errors.push(resources.invalid("if '*/*' is present, must not specify other resources"));
    }
    if names.contains(&"*") && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(resources.invalid(detail));
    }
}

fn match_conditions(conditions: &Place, errors: &mut Errors) {
    if conditions.list().len() > CONDITIONS_MAX {
        errors.push(conditions.too_many(CONDITIONS_MAX));
    }
    for (i, condition) in conditions.items().enumerate() {
        let name = condition.field("name");
        expression(&condition.field("expression"), errors);
        if name.require(errors) {
            format::check(&name, format::qualified_name, errors);
            if conditions.list()[..i].iter().any(|other| other["name"] == *name.value) {
                errors.push(name.duplicate());
            }
        }
    }
}

/// Not empty, blanks aside.
fn expression(place: &Place, errors: &mut Errors) {
    if place.str().trim().is_empty() {
        errors.push(Error::required(place.path(), ""));
    }
}
