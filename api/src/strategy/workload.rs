//! What the kinds that keep pods from a template share: replicas, selector and template must fit each other.

use serde_json::{Map, Value};

use super::format;
use super::place::{Errors, Place};
use super::pod::template;
use crate::selector::LabelSelector;

/// Rules of `spec.selector`: present, valid, not empty. `empty_detail` is upstream's complaint about an empty one.
pub fn selector(spec: &Place, empty_detail: &str, errors: &mut Errors) {
    let selector = spec.field("selector");
    if !selector.is_set() {
        errors.push(selector.required(""));
        return;
    }
    format::label_selector(&selector, errors);
    if is_empty(&selector) {
        errors.push(selector.invalid(empty_detail));
    }
}

/// Selects everything.
pub fn is_empty(selector: &Place) -> bool {
    selector.field("matchLabels").is_empty() && selector.field("matchExpressions").is_empty()
}

/// The template's labels are selected by `spec.selector`; reported at the template's labels. False when the selector
/// is too broken to say, which upstream reports as such and leaves the template alone.
pub fn selects_template(spec: &Place, errors: &mut Errors) -> bool {
    let selector = spec.field("selector");
    let template = spec.field("template");
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    match matches(&selector, &labels) {
        Ok(true) => {}
        Ok(false) => errors.push(labels.invalid("`selector` does not match template `labels`")),
        Err(problem) => {
            errors.push(selector.invalid(problem));
            return false;
        }
    }
    true
}

/// `LabelSelectorAsSelector`: absent selects nothing, empty everything.
pub fn matches(selector: &Place, labels: &Place) -> Result<bool, String> {
    let parsed = LabelSelector::from_object(Some(selector.value)).map_err(|e| e.to_string())?;
    Ok(parsed.matches(labels.map()))
}

/// The template of pods that run for ever: restarted always, never timed out. `owner` is named in the complaint.
pub fn lasting_template(template: &Place, owner: &str, errors: &mut Errors) {
    template::rules(template, errors);
    lasting(template, owner, errors);
}

pub fn lasting(template: &Place, owner: &str, errors: &mut Errors) {
    let spec = template.field("spec");
    let policy = spec.field("restartPolicy");
    // Anything but the three known policies is reported by the spec's own rules, and here again.
    if policy.str() != "Always" {
        errors.push(policy.not_supported(&["Always"]));
    }
    let deadline = spec.field("activeDeadlineSeconds");
    if deadline.is_set() {
        errors.push(deadline.forbidden(format!("activeDeadlineSeconds in {owner} is not Supported")));
    }
}

/// A count or a percentage (`ValidatePositiveIntOrPercent`): not negative, or digits with a percent sign.
pub fn count_or_percent(place: &Place, errors: &mut Errors) {
    match place.value {
        Value::String(text) if percent(text).is_none() => {
            errors.push(place.invalid("a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"));
        }
        Value::Number(_) => place.nonnegative(errors),
        _ => {}
    }
}

/// `IsNotMoreThan100Percent`.
pub fn at_most_all(place: &Place, errors: &mut Errors) {
    if percent(place.str()).is_some_and(|n| n > 100) {
        errors.push(place.invalid("must not be greater than 100%"));
    }
}

/// The number in `12%`.
pub fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The number a count or percentage amounts to being zero: `0` or `0%`.
pub fn is_zero(place: &Place) -> bool {
    place.int() == Some(0) || percent(place.str()) == Some(0)
}

/// Counts in a status: none negative (rows of upstream's `Validate*Status`).
pub fn status_counts(object: &Place, fields: &[&str], errors: &mut Errors) {
    let status = object.field("status");
    for field in fields {
        status.field(field).nonnegative(errors);
    }
}

/// `fields` of the status do not exceed `replicas`.
pub fn within_replicas(object: &Place, fields: &[&str], errors: &mut Errors) {
    let status = object.field("status");
    let replicas = status.field("replicas").int().unwrap_or(0);
    for field in fields {
        let count = status.field(field);
        if count.int().unwrap_or(0) > replicas {
            errors.push(count.invalid("cannot be greater than status.replicas"));
        }
    }
}

/// No more available than ready.
pub fn available_within_ready(object: &Place, errors: &mut Errors) {
    let status = object.field("status");
    let available = status.field("availableReplicas");
    if available.int().unwrap_or(0) > status.field("readyReplicas").int().unwrap_or(0) {
        errors.push(available.invalid("cannot be greater than status.readyReplicas"));
    }
}

/// The collision count only grows.
pub fn collisions(new: &Place, old: &Place, errors: &mut Errors) {
    let (new, old) = (new.field("status"), old.field("status"));
    let (now, before) = (new.field("collisionCount"), old.field("collisionCount"));
    if before.int().is_some_and(|before| now.int().is_none_or(|now| now < before)) {
        errors.push(now.invalid("cannot be decremented"));
    }
}

/// `status.replicas` as a selectable field.
pub fn replicas_field(object: &Value) -> Vec<(&'static str, String)> {
    let replicas = object.get("status").and_then(|s| s.get("replicas")).and_then(Value::as_i64).unwrap_or(0);
    vec![("status.replicas", replicas.to_string())]
}

/// Only `fields` of the spec differ between `new` and `old`.
pub fn only_changed(new: &Place, old: &Place, fields: &[&str]) -> bool {
    let none = Map::new();
    let (new, old) = match (new.map(), old.map()) {
        (Some(new), Some(old)) => (new, old),
        // What is absent has no fields.
        (Some(new), None) if old.value.is_null() => (new, &none),
        (None, Some(old)) if new.value.is_null() => (&none, old),
        _ => return new.value == old.value,
    };
    let keys = new.keys().chain(old.keys().filter(|k| !new.contains_key(*k)));
    keys.filter(|key| !fields.contains(&key.as_str())).all(|key| {
        let (new, old) = (new.get(key).unwrap_or(&Value::Null), old.get(key).unwrap_or(&Value::Null));
        Place::root(new).same(&Place::root(old))
    })
}
