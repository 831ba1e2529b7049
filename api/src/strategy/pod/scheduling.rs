//! Rules of affinity, tolerations and topology spreading.

use crate::field::Error;
use crate::strategy::place::{Errors, Place};
use crate::strategy::{NameRule, format, node, node_selector};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const WEIGHT_DETAIL: &str = "must be in the range 1-100";

pub fn affinity(affinity: &Place, errors: &mut Errors) {
    let node = affinity.field("nodeAffinity");
    if node.field(REQUIRED).is_set() {
        node_selector::rules(&node.field(REQUIRED), true, errors);
    }
    for term in node.field(PREFERRED).items() {
        weight(&term, errors);
        node_selector::term(&term.field("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.field(kind);
        for term in terms.field(REQUIRED).items() {
            pod_term(&term, errors);
        }
        for term in terms.field(PREFERRED).items() {
            weight(&term, errors);
            pod_term(&term.field("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &Place, errors: &mut Errors) {
    let weight = term.field("weight");
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        errors.push(weight.invalid(WEIGHT_DETAIL));
    }
}

fn pod_term(term: &Place, errors: &mut Errors) {
    format::label_selector(&term.field("labelSelector"), errors);
    format::label_selector(&term.field("namespaceSelector"), errors);
    for namespace in term.field("namespaces").items() {
        for problem in NameRule::Label.problems(namespace.str(), false) {
            errors.push(Error::invalid(term.named("namespace", namespace.value).path(), namespace.str(), problem));
        }
    }
    label_keys(term, errors);
    let key = term.field("topologyKey");
    if key.is_empty() {
        errors.push(key.required("can not be empty"));
    }
    format::check(&key, format::qualified_name, errors);
}

/// `ValidateMatchLabelKeysAndMismatchLabelKeys`: keys whose values come from the pod, beside a selector.
fn label_keys(holder: &Place, errors: &mut Errors) {
    let selector = holder.field("labelSelector");
    let (matching, mismatching) = (holder.field("matchLabelKeys"), holder.field("mismatchLabelKeys"));
    for keys in [&matching, &mismatching] {
        if keys.is_empty() {
            continue;
        }
        if !selector.is_set() {
            errors.push(keys.forbidden("must not be specified when labelSelector is not set"));
            continue;
        }
        for key in keys.items() {
            format::check(&key, format::qualified_name, errors);
        }
    }
    let mut selected: Vec<&str> = selector.field("matchLabels").entries().map(|(key, _)| key).collect();
    for expression in selector.field("matchExpressions").items() {
        let key = expression.field("key").str();
        let position = matching.list().iter().position(|k| k == key);
        if let Some(index) = position.filter(|_| selected.contains(&key)) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(Error::invalid(holder.index(index).path(), key, detail));
        }
        selected.push(key);
    }
    for key in matching.items().filter(|key| mismatching.list().contains(key.value)) {
        errors.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
    }
}

pub fn spread_constraints(constraints: &Place, errors: &mut Errors) {
    for (i, constraint) in constraints.items().enumerate() {
        let (key, action) = (constraint.field("topologyKey"), constraint.field("whenUnsatisfiable"));
        let skew = constraint.field("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            errors.push(skew.invalid("must be greater than 0"));
        }
        if key.is_empty() {
            errors.push(key.required("can not be empty"));
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.str()) {
            errors.push(action.not_supported(&["DoNotSchedule", "ScheduleAnyway"]));
        }
        let repeated = constraints.list()[i + 1..]
            .iter()
            .any(|other| other["topologyKey"] == *key.value && other["whenUnsatisfiable"] == *action.value);
        if repeated {
            let path = constraint.field("{topologyKey, whenUnsatisfiable}").path();
            errors.push(Error::duplicate(path, format!("{{{}, {}}}", key.str(), action.str())));
        }
        let domains = constraint.field("minDomains");
        domains.positive(errors);
        if domains.is_set() && action.str() != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.str());
            errors.push(domains.invalid(detail));
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.field(policy).one_of(&["Honor", "Ignore"], errors);
        }
        label_keys(&constraint, errors);
        format::label_selector(&constraint.field("labelSelector"), errors);
    }
}

pub fn tolerations(tolerations: &Place, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator, value, effect) = (
            toleration.field("key"),
            toleration.field("operator"),
            toleration.field("value"),
            toleration.field("effect"),
        );
        if !key.is_empty() {
            format::check(&key, format::qualified_name, errors);
        } else if operator.str() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(operator.invalid(detail));
        }
        if toleration.field("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            errors.push(effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set"));
        }
        match operator.str() {
            "" | "Equal" => {
                let problems = format::label_value(value.str());
                if !problems.is_empty() {
                    errors.push(Error::invalid(operator.path(), value.str(), problems.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(operator.path(), value.str(), detail));
            }
            "Exists" => {}
            _ => errors.push(operator.not_supported(&["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            node::taint_effect(&effect, true, errors);
        }
    }
}
