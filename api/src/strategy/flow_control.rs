//! FlowSchema and PriorityLevelConfiguration.

use serde_json::Value;

use super::fill::Lit::Int;
use super::fill::{fill, with};
use super::place::{Errors, Place};
use super::{Context, Strategy, format};
use crate::meta;

const PRECEDENCE_DEFAULT: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;
const VERBS: &[&str] =
    &["connect", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const QUEUES_MAX: i64 = 10_000_000;

/// Both write their own checks of metadata once.
pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn counts_generation(&self) -> bool {
        true
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        if spec.get("matchingPrecedence") == Some(&Value::from(0)) {
            meta::object_mut(spec).remove("matchingPrecedence");
        }
        fill(spec, &[("matchingPrecedence", Int(PRECEDENCE_DEFAULT))]);
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let precedence = spec.field("matchingPrecedence");
        let number = precedence.int().unwrap_or(0);
        if number <= 0 {
            errors.push(precedence.invalid("must be a positive value"));
        }
        if number > PRECEDENCE_MAX {
            errors.push(precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}")));
        }
        if number == 1 && meta::name(object.value) != "exempt" {
            errors.push(precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"));
        }
        let method = spec.field("distinguisherMethod");
        if method.is_set() {
            let kind = method.field("type");
            if !["ByNamespace", "ByUser"].contains(&kind.str()) {
                errors.push(kind.not_supported(&["ByNamespace", "ByUser"]));
            }
        }
        let level = spec.field("priorityLevelConfiguration");
        let name = level.field("name");
        if name.is_empty() {
            errors.push(name.required("must reference a priority level"));
        } else {
            format::check(&name, format::subdomain, errors);
        }
        for rule in spec.field("rules").items() {
            policy_rule(&rule, errors);
        }
    }
}

fn policy_rule(rule: &Place, errors: &mut Errors) {
    let subjects = rule.field("subjects");
    if subjects.is_empty() {
        errors.push(subjects.required("subjects must contain at least one value"));
    }
    for subject in subjects.items() {
        self::subject(&subject, errors);
    }
    let (resources, urls) = (rule.field("resourceRules"), rule.field("nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        errors.push(rule.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    for resource in resources.items() {
        verbs(&resource, errors);
        for list in ["apiGroups", "resources"] {
            let list = resource.field(list);
            list.require(errors);
            lonely_star(&list, errors);
        }
        let namespaces = resource.field("namespaces");
        if namespaces.is_empty() && !resource.field("clusterScope").is_true() {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(namespaces.required(detail));
        }
        lonely_star(&namespaces, errors);
        for namespace in namespaces.items().filter(|n| n.str() != "*") {
            format::check(&namespace, format::label, errors);
        }
    }
    for url in urls.items() {
        verbs(&url, errors);
        let paths = url.field("nonResourceURLs");
        paths.require(errors);
        lonely_star(&paths, errors);
        for path in paths.items().filter(|p| p.str() != "*" && !p.str().starts_with('/')) {
            errors.push(path.invalid("must start with slash"));
        }
    }
}

fn lonely_star(list: &Place, errors: &mut Errors) {
    if list.list().len() > 1 && list.list().iter().any(|item| item == "*") {
        errors.push(list.invalid("if '*' is present, must not specify others"));
    }
}

fn verbs(rule: &Place, errors: &mut Errors) {
    let verbs = rule.field("verbs");
    verbs.require(errors);
    lonely_star(&verbs, errors);
    let names = || verbs.list().iter().filter_map(Value::as_str);
    if !names().any(|v| v == "*") && names().any(|v| !VERBS.contains(&v)) {
        errors.push(verbs.not_supported(VERBS));
    }
}

fn subject(subject: &Place, errors: &mut Errors) {
    const FIELDS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.field("kind");
    let Some((_, own)) = FIELDS.iter().find(|(name, _)| *name == kind.str()) else {
        errors.push(kind.not_supported(&["Group", "ServiceAccount", "User"]));
        return;
    };
    for (name, field) in FIELDS.iter().filter(|(_, field)| field != own && subject.field(field).is_set()) {
        let detail = format!("{field} is forbidden when subject kind is not '{name}'");
        errors.push(subject.field(field).forbidden(detail));
    }
    let place = subject.field(own);
    if !place.is_set() {
        errors.push(place.required(format!("{own} is required when subject kind is '{}'", kind.str())));
        return;
    }
    let name = place.field("name");
    let named = name.require(errors);
    if *own == "serviceAccount" {
        if named && name.str() != "*" {
            format::check(&name, format::subdomain, errors);
        }
        let namespace = place.field("namespace");
        if namespace.is_empty() {
            errors.push(namespace.required("must specify namespace for service account"));
        } else {
            format::check(&namespace, format::label, errors);
        }
    }
}

pub struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn counts_generation(&self) -> bool {
        true
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        with(spec, "exempt", |exempt| {
            fill(exempt, &[("nominalConcurrencyShares", Int(0)), ("lendablePercent", Int(0))]);
        });
        with(spec, "limited", |limited| {
            fill(limited, &[("nominalConcurrencyShares", Int(30)), ("lendablePercent", Int(0))]);
            with(limited, "limitResponse", |response| {
                with(response, "queuing", |queuing| {
                    for field in ["handSize", "queues", "queueLengthLimit"] {
                        if queuing.get(field) == Some(&Value::from(0)) {
                            meta::object_mut(queuing).remove(field);
                        }
                    }
                    fill(queuing, &[("handSize", Int(8)), ("queues", Int(64)), ("queueLengthLimit", Int(50))]);
                });
            });
        });
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let (kind, limited, exempt) = (spec.field("type"), spec.field("limited"), spec.field("exempt"));
        match kind.str() {
            "Exempt" => {
                if limited.is_set() {
                    errors.push(limited.forbidden("must be nil if the type is not Limited"));
                }
                exempt.field("nominalConcurrencyShares").nonnegative(errors);
                exempt.field("lendablePercent").in_range(0, 100, errors);
            }
            "Limited" => {
                if exempt.is_set() {
                    errors.push(exempt.forbidden("must be nil if the type is Limited"));
                }
                if limited.is_set() {
                    self::limited(&limited, errors);
                } else {
                    errors.push(limited.required("must not be empty when type is Limited"));
                }
            }
            _ => errors.push(kind.not_supported(&["Exempt", "Limited"])),
        }
    }
}

fn limited(limited: &Place, errors: &mut Errors) {
    limited.field("nominalConcurrencyShares").nonnegative(errors);
    limited.field("lendablePercent").in_range(0, 100, errors);
    limited.field("borrowingLimitPercent").nonnegative(errors);
    let response = limited.field("limitResponse");
    let (kind, queuing) = (response.field("type"), response.field("queuing"));
    match kind.str() {
        "Reject" if queuing.is_set() => {
            errors.push(queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"));
        }
        "Reject" => {}
        "Queue" if !queuing.is_set() => {
            errors.push(queuing.required("must not be empty if limited.limitResponse.type is Limited"));
        }
        "Queue" => {
            for field in ["queueLengthLimit", "queues", "handSize"] {
                queuing.field(field).positive(errors);
            }
            let (queues, hand) = (queuing.field("queues"), queuing.field("handSize"));
            if queues.int().is_some_and(|n| n > QUEUES_MAX) {
                errors.push(queues.invalid(format!("must not be greater than {QUEUES_MAX}")));
            }
            if hand.int() > queues.int() {
                errors.push(hand.invalid("should not be greater than queues"));
            }
        }
        _ => errors.push(kind.not_supported(&["Queue", "Reject"])),
    }
}
