//! When a job fails, succeeds or replaces a pod early (`validatePodFailurePolicy`, `validateSuccessPolicy`).

use super::status::index_count;
use crate::field::{Error, ErrorKind};
use crate::strategy::format;
use crate::strategy::place::{Errors, Place};

const RULES_MAX: usize = 20;
const PATTERNS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_MAX_BYTES: usize = 64 * 1024;
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

pub fn failure(spec: &Place, errors: &mut Errors) {
    let policy = spec.field("podFailurePolicy");
    let rules = policy.field("rules");
    if rules.list().len() > RULES_MAX {
        errors.push(rules.too_many(RULES_MAX));
    }
    for rule in rules.items() {
        let action = rule.field("action");
        if action.is_empty() {
            errors.push(action.required(format!("valid values: {ACTIONS:?}")));
        } else if action.str() == "FailIndex" && !spec.field("backoffLimitPerIndex").is_set() {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        } else {
            action.one_of(ACTIONS, errors);
        }
        let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => {
                errors.push(rule.invalid("specifying both OnExitCodes and OnPodConditions is not supported"))
            }
            (false, false) => {
                errors.push(rule.invalid("specifying one of OnExitCodes and OnPodConditions is required"));
            }
            _ => {}
        }
        if codes.is_set() {
            exit_codes(spec, &codes, errors);
        }
        pod_conditions(&conditions, errors);
    }
}

fn pod_conditions(conditions: &Place, errors: &mut Errors) {
    if conditions.list().len() > PATTERNS_MAX {
        errors.push(conditions.too_many(PATTERNS_MAX));
    }
    for pattern in conditions.items() {
        format::check(&pattern.field("type"), format::qualified_name, errors);
        pattern.field("status").require_one_of(&["False", "True", "Unknown"], errors);
    }
}

fn exit_codes(spec: &Place, codes: &Place, errors: &mut Errors) {
    let operator = codes.field("operator");
    operator.require_one_of(&["In", "NotIn"], errors);
    let name = codes.field("containerName");
    let template = spec.field("template");
    let pod = template.field("spec");
    let known =
        ["containers", "initContainers"].iter().any(|l| pod.field(l).list().iter().any(|c| c["name"] == *name.value));
    if name.is_set() && !known {
        errors.push(name.invalid("must be one of the container or initContainer names in the pod template"));
    }
    let values = codes.field("values");
    match values.list().len() {
        0 => errors.push(values.invalid("at least one value is required")),
        n if n > EXIT_CODES_MAX => errors.push(values.too_many(EXIT_CODES_MAX)),
        _ => {}
    }
    for (i, value) in values.items().enumerate() {
        if operator.str() == "In" && value.int() == Some(0) {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if values.list()[..i].contains(value.value) {
            errors.push(value.duplicate());
        }
    }
    if !values.list().is_sorted_by_key(|v| v.as_i64()) {
        errors.push(values.invalid("must be ordered"));
    }
}

pub fn success(spec: &Place, errors: &mut Errors) {
    let policy = spec.field("successPolicy");
    if !policy.is_set() {
        return;
    }
    if spec.field("completionMode").str() != "Indexed" {
        errors.push(policy.invalid("requires indexed completion mode"));
        return;
    }
    let rules = policy.field("rules");
    if rules.is_empty() {
        errors.push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if rules.list().len() > RULES_MAX {
        errors.push(rules.too_many(RULES_MAX));
    }
    let completions = spec.field("completions").int().unwrap_or(0);
    for rule in rules.items() {
        success_rule(&rule, completions, errors);
    }
}

fn success_rule(rule: &Place, completions: i64, errors: &mut Errors) {
    let (count, indexes) = (rule.field("succeededCount"), rule.field("succeededIndexes"));
    if !count.is_set() && !indexes.is_set() {
        errors.push(rule.required("at least one of succeededCount or succeededIndexes must be specified"));
    }
    let mut listed = 0;
    if indexes.is_set() {
        if indexes.str().len() > INDEXES_MAX_BYTES {
            errors.push(Error::new(ErrorKind::TooLong, indexes.path(), "", ""));
        }
        match index_count(indexes.str(), completions) {
            Ok(count) => listed = count,
            Err(problem) => errors.push(indexes.invalid(format!("error parsing succeededIndexes: {problem}"))),
        }
    }
    count.nonnegative(errors);
    if count.int().is_some_and(|n| n > completions) {
        let what = "(the number of specified completions)";
        errors.push(count.invalid(format!("must be less than or equal to {completions} {what}")));
    }
    if indexes.is_set() && count.int().is_some_and(|n| n > listed) {
        let what = "(the number of indexes in the specified succeededIndexes field)";
        errors.push(count.invalid(format!("must be less than or equal to {listed} {what}")));
    }
}

pub fn replacement(spec: &Place, errors: &mut Errors) {
    let policy = spec.field("podReplacementPolicy");
    if spec.field("podFailurePolicy").is_set() {
        policy.one_of(&["Failed"], errors);
    } else {
        policy.one_of(&["Failed", "TerminatingOrFailed"], errors);
    }
}
