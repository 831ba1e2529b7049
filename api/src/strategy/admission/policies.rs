//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings.

use serde_json::Value;

use super::{default_match, expression, match_conditions, match_resources};
use crate::field::Error;
use crate::meta;
use crate::name;
use crate::strategy::fill::Lit::Str;
use crate::strategy::fill::{fill, with};
use crate::strategy::place::{Errors, Place};
use crate::strategy::{Context, Strategy, format, metadata};

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const AUDIT_ANNOTATIONS_MAX: usize = 20;

pub struct Policy {
    pub mutating: bool,
}

impl Strategy for Policy {
    fn counts_generation(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, &[("failurePolicy", Str("Fail"))]);
        with(spec, "matchConstraints", default_match);
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        spec.field("failurePolicy").require_one_of(&["Fail", "Ignore"], errors);
        param_kind(&spec.field("paramKind"), errors);
        let matching = spec.field("matchConstraints");
        if matching.is_set() {
            match_resources(&matching, errors);
            matching.field("resourceRules").require(errors);
        } else {
            errors.push(matching.required(""));
        }
        match_conditions(&spec.field("matchConditions"), errors);
        for variable in spec.field("variables").items() {
            let name = variable.field("name");
            if name.require(errors) {
                format::check(&name, name::c_identifier, errors);
            }
            expression(&variable.field("expression"), errors);
        }
        if self.mutating {
            mutations(&spec, errors);
        } else {
            validations(&spec, errors);
        }
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        let status = new.field("status");
        metadata::conditions(&status.field("conditions"), errors);
        let checking = status.field("typeChecking");
        for warning in checking.field("expressionWarnings").items() {
            warning.field("warning").require(errors);
            warning.field("fieldRef").require(errors);
        }
    }
}

fn param_kind(kind: &Place, errors: &mut Errors) {
    if !kind.is_set() {
        return;
    }
    let (version, name) = (kind.field("apiVersion"), kind.field("kind"));
    if version.require(errors) {
        let (group, of) = meta::split_api_version(version.str());
        if !group.is_empty() {
            errors.extend(format::subdomain(group).into_iter().map(|p| version.invalid(p)));
        }
        if of.is_empty() {
            errors.push(version.invalid("version must be specified"));
        } else {
            errors.extend(format::label_1035(of).into_iter().map(|p| version.invalid(p)));
        }
    }
    if name.require(errors) {
        for problem in format::label_1035(&name.str().to_lowercase()) {
            errors.push(name.invalid(format!("may have mixed case, but should otherwise match: {problem}")));
        }
    }
}

fn validations(spec: &Place, errors: &mut Errors) {
    const NONE: &str = "validations or auditAnnotations must contain at least one item";
    let (validations, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        errors.push(validations.required(NONE));
        errors.push(annotations.required(NONE));
        return;
    }
    for validation in validations.items() {
        expression(&validation.field("expression"), errors);
        let message = validation.field("message");
        if !message.is_empty() && message.str().trim().is_empty() {
            errors.push(message.invalid("message must be non-empty if specified"));
        } else if message.str().contains('\n') {
            errors.push(message.invalid("message must not contain line breaks"));
        }
        validation.field("reason").one_of(REASONS, errors);
    }
    if annotations.list().len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(annotations.invalid(detail));
    }
    for (i, annotation) in annotations.items().enumerate() {
        let key = annotation.field("key");
        format::check(&key, format::qualified_name, errors);
        expression(&annotation.field("valueExpression"), errors);
        if annotations.list()[..i].iter().any(|other| other["key"] == *key.value) {
            errors.push(key.duplicate());
        }
    }
}

fn mutations(spec: &Place, errors: &mut Errors) {
    let mutations = spec.field("mutations");
    if mutations.is_empty() {
        errors.push(mutations.required("mutations must contain at least one item"));
    }
    for mutation in mutations.items() {
        let kind = mutation.field("patchType");
        let (own, other) = match kind.str() {
            "JSONPatch" => ("jsonPatch", "applyConfiguration"),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
            _ => {
                kind.require_one_of(&["ApplyConfiguration", "JSONPatch"], errors);
                continue;
            }
        };
        let (patch, unwanted) = (mutation.field(own), mutation.field(other));
        if patch.is_set() {
            expression(&patch.field("expression"), errors);
        } else {
            errors.push(patch.required(format!("must be specified when patchType is {}", kind.str())));
        }
        if unwanted.is_set() {
            let detail = format!("must not be specified when patchType is {}", kind.str());
            errors.push(Error::invalid(unwanted.path(), format!("{{{other}}}"), detail));
        }
    }
    spec.field("reinvocationPolicy").require_one_of(&["IfNeeded", "Never"], errors);
}

pub struct PolicyBinding {
    pub mutating: bool,
}

impl Strategy for PolicyBinding {
    fn counts_generation(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        with(meta::child_mut(object, "spec"), "matchResources", default_match);
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let policy = spec.field("policyName");
        if policy.require(errors) {
            format::check(&policy, format::subdomain, errors);
        }
        param_ref(&spec.field("paramRef"), errors);
        match_resources(&spec.field("matchResources"), errors);
        if self.mutating {
            return;
        }
        let actions = spec.field("validationActions");
        for (i, action) in actions.items().enumerate() {
            action.one_of(ACTIONS, errors);
            if actions.list()[..i].contains(action.value) {
                errors.push(action.duplicate());
            }
        }
        let has = |action: &str| actions.list().iter().any(|a| a == action);
        if has("Deny") && has("Warn") {
            errors.push(actions.invalid("must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"));
        }
        if actions.is_empty() {
            errors.push(actions.required("at least one validation action is required"));
        }
    }
}

fn param_ref(reference: &Place, errors: &mut Errors) {
    if !reference.is_set() {
        return;
    }
    const BOTH: &str = "name and selector are mutually exclusive";
    let (name, selector) = (reference.field("name"), reference.field("selector"));
    if !name.is_empty() {
        format::check(&name, format::path_segment, errors);
    }
    format::label_selector(&selector, errors);
    match (name.is_empty(), selector.is_set()) {
        (false, true) => errors.extend([name.forbidden(BOTH), selector.forbidden(BOTH)]),
        (true, false) => errors.push(reference.required("one of name or selector must be specified")),
        _ => {}
    }
    reference.field("parameterNotFoundAction").require_one_of(&["Allow", "Deny"], errors);
}
