//! ResourceQuota and LimitRange.

use serde_json::{Map, Value};

use super::fill::{each, text};
use super::place::{Errors, Place};
use super::{Context, Strategy, format, resources};
use crate::field::Error;
use crate::meta;
use crate::quantity::{Format, Quantity};

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
const CONFLICTS: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
const POD_COMPUTE: &[&str] = &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        amounts(&spec.field("hard"), errors);
        let scopes = spec.field("scopes");
        let names: Vec<&str> = scopes.list().iter().filter_map(Value::as_str).collect();
        for scope in &names {
            if !SCOPES.contains(scope) {
                errors.push(scopes.invalid("unsupported scope"));
            }
            inapplicable(&spec, scope, &scopes, errors);
        }
        conflicts(&names, &scopes, errors);
        scope_selector(&spec, errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        let (now, was) = (spec.field("scopes"), before.field("scopes"));
        let same =
            now.list().iter().all(|s| was.list().contains(s)) && was.list().iter().all(|s| now.list().contains(s));
        if !same {
            errors.push(now.invalid("field is immutable"));
        }
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        let status = new.field("status");
        for list in ["hard", "used"] {
            amounts(&status.field(list), errors);
        }
    }
}

fn amounts(list: &Place, errors: &mut Errors) {
    for (name, amount) in list.entries() {
        resources::name(name, &amount, errors);
        if !name.contains('/') && !resources::is_standard_quota(name) {
            errors.push(Error::invalid(amount.path(), name, "must be a standard resource for quota"));
        }
        resources::amount(name, &amount, errors);
    }
}

/// A scope says nothing about some resources (`IsResourceQuotaScopeValidForResource`).
fn applies(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || POD_COMPUTE.contains(&resource)
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&resource),
        _ => true,
    }
}

fn inapplicable(spec: &Place, scope: &str, place: &Place, errors: &mut Errors) {
    for (resource, _) in spec.field("hard").entries() {
        if resources::is_standard_quota(resource) && !applies(scope, resource) {
            errors.push(place.invalid("unsupported scope applied to resource"));
        }
    }
}

fn conflicts(names: &[&str], place: &Place, errors: &mut Errors) {
    for (one, other) in CONFLICTS {
        if names.contains(&one) && names.contains(&other) {
            errors.push(place.invalid("conflicting scopes"));
        }
    }
}

/// Upstream reports all expressions at the list.
fn scope_selector(spec: &Place, errors: &mut Errors) {
    let selector = spec.field("scopeSelector");
    let expressions = selector.field("matchExpressions");
    let mut names = Vec::new();
    for expression in expressions.items() {
        let scope = expressions.named("scopeName", expression.field("scopeName").value);
        let operator = expressions.named("operator", expression.field("operator").value);
        let values = expressions.named("values", expression.field("values").value);
        if !SCOPES.contains(&scope.str()) {
            errors.push(scope.invalid("unsupported scope"));
        }
        inapplicable(spec, scope.str(), &expressions, errors);
        let valueless =
            !["PriorityClass", "VolumeAttributesClass"].contains(&scope.str()) && SCOPES.contains(&scope.str());
        if valueless && operator.str() != "Exists" {
            errors.push(operator.invalid(
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            ));
        }
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => errors.push(
                values.required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(
                values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        names.push(scope.str());
    }
    conflicts(&names, &spec.field("scopes"), errors);
}

pub struct LimitRange;

impl Strategy for LimitRange {
    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        each(spec, "limits", |item| {
            if text(item, "type") != "Container" {
                return;
            }
            let list =
                |item: &Value, name: &str| item.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
            let merged = |base: Map<String, Value>, more: Map<String, Value>| -> Map<String, Value> {
                more.into_iter().chain(base).collect()
            };
            let limits = merged(list(item, "default"), list(item, "max"));
            let requests = merged(list(item, "defaultRequest"), limits.clone());
            let requests = merged(requests, list(item, "min"));
            for (field, list) in [("default", limits), ("defaultRequest", requests)] {
                if !list.is_empty() {
                    item[field] = Value::Object(list);
                }
            }
        });
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let limits = spec.field("limits");
        for (i, item) in limits.items().enumerate() {
            let kind = item.field("type");
            let problems = format::qualified_name(kind.str());
            let known = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind.str());
            if problems.is_empty() && !kind.str().contains('/') && !known {
                errors.push(kind.invalid("must be a standard limit type or fully qualified"));
            }
            errors.extend(problems.into_iter().map(|p| kind.invalid(p)));
            if limits.list()[..i].iter().any(|other| other["type"] == *kind.value) {
                errors.push(kind.duplicate());
            }
            limit_item(&item, errors);
        }
    }
}

fn limit_item(item: &Place, errors: &mut Errors) {
    let kind = item.field("type").str();
    let mut names: Vec<&str> = Vec::new();
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let place = item.field(list);
        if kind == "Pod" && list.starts_with("default") {
            if !place.is_empty() {
                errors.push(place.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, amount) in place.entries() {
            if ["Pod", "Container"].contains(&kind) {
                resources::container_name(name, &amount, errors);
            } else {
                resources::name(name, &amount, errors);
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let bounded = ["min", "max"].iter().any(|list| item.field(list).value.get("storage").is_some());
    if kind == "PersistentVolumeClaim" && !bounded {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(item.field("limits").required(detail));
    }
    for name in names {
        bounds(item, name, kind == "Pod", errors);
    }
}

/// min <= default request <= default <= max, for one resource.
fn bounds(item: &Place, name: &str, is_pod: bool, errors: &mut Errors) {
    let read = |list: &str| item.field(list).value.get(name).map(resources::read);
    let defaulted = |list: &str| read(list).filter(|_| !is_pod);
    let (min, max) = (read("min"), read("max"));
    let (limit, request) = (defaulted("default"), defaulted("defaultRequest"));
    let greater = |low: Option<Quantity>, high: Option<Quantity>| low.zip(high).is_some_and(|(low, high)| low > high);
    let mut refuse = |list: &str, detail: String| {
        let list = item.field(list);
        errors.push(list.key(name).invalid(detail));
    };
    let show = |q: Option<Quantity>| q.unwrap_or_default().to_string();
    for (low, high, at, low_name, high_name) in [
        (min, max, "min", "min", "max"),
        (min, request, "defaultRequest", "min", "default request"),
        (request, max, "defaultRequest", "default request", "max"),
        (request, limit, "defaultRequest", "default request", "default limit"),
        (min, limit, "default", "min", "default"),
        (limit, max, "default", "default", "max"),
    ] {
        if greater(low, high) {
            let (low, high) = (show(low), show(high));
            refuse(at, format!("{low_name} value {low} is greater than {high_name} value {high}"));
        }
    }
    if let Some(ratio) = read("maxLimitRequestRatio") {
        if ratio < Quantity::new(1, Format::DecimalSi) {
            refuse("maxLimitRequestRatio", format!("ratio {ratio} is less than 1"));
        }
        if let Some((min, max)) = min.zip(max) {
            let widest = max.milli_value() as f64 / min.milli_value() as f64;
            if ratio.milli_value() as f64 / 1000.0 > widest {
                refuse("maxLimitRequestRatio", format!("ratio {ratio} is greater than max/min = {widest:.6}"));
            }
        }
    }
    if !resources::is_overcommittable(name) && limit.zip(request).is_some_and(|(l, r)| l != r) {
        let (limit, request) = (show(limit), show(request));
        refuse(
            "defaultRequest",
            format!("default value {limit} must equal to defaultRequest value {request} in {name}"),
        );
    }
}
