//! Node selectors: of pods, persistent volumes and device slices (`ValidateNodeSelector`).

use super::format;
use super::place::{Errors, Place};

/// `strict`: label values must be valid too.
pub fn rules(selector: &Place, strict: bool, errors: &mut Errors) {
    let terms = selector.field("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in terms.items() {
        self::term(&term, strict, errors);
    }
}

pub fn term(term: &Place, strict: bool, errors: &mut Errors) {
    for requirement in term.field("matchExpressions").items() {
        expression(&requirement, strict, errors);
    }
    for requirement in term.field("matchFields").items() {
        field(&requirement, errors);
    }
}

fn expression(requirement: &Place, strict: bool, errors: &mut Errors) {
    let (operator, values) = (requirement.field("operator"), requirement.field("values"));
    match operator.str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
        }
        "Gt" | "Lt" => {
            if values.list().len() != 1 {
                errors.push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
            }
        }
        _ => errors.push(operator.invalid("not a valid selector operator")),
    }
    format::check(&requirement.field("key"), format::qualified_name, errors);
    if strict {
        for value in values.items() {
            format::check(&value, format::label_value, errors);
        }
    }
}

/// Only `metadata.name` can be selected by field.
fn field(requirement: &Place, errors: &mut Errors) {
    let (operator, values, key) =
        (requirement.field("operator"), requirement.field("values"), requirement.field("key"));
    if !["In", "NotIn"].contains(&operator.str()) {
        errors.push(operator.invalid("not a valid selector operator"));
    } else if values.list().len() != 1 {
        errors
            .push(values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector"));
    }
    if key.str() != "metadata.name" {
        errors.push(key.invalid("not a valid field selector key"));
        return;
    }
    for value in values.items() {
        format::check(&value, format::subdomain, errors);
    }
}
