//! HorizontalPodAutoscaler. Objects of `autoscaling/v1` and `v2` are one stored object, kept in the form of `v2`:
//! defaults apply to the version of the request, rules to the stored form.

use serde_json::{Value, json};

use super::fill::Lit::Int;
use super::fill::{fill, has, has_content, text, with};
use super::place::{Errors, Place};
use super::{Context, Strategy, format, resources, workload};
use crate::meta;
use crate::quantity::Quantity;

/// Where `v1` carries metrics it has no field for.
const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CPU_TARGET_PERCENT: i64 = 80;
const WINDOW_MAX_SECONDS: i64 = 3600;
const PERIOD_MAX_SECONDS: i64 = 1800;
/// Metric types with the field that holds each, in the order in which upstream looks at them.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        let v1 = text(object, "apiVersion") == "autoscaling/v1";
        let spec = meta::child_mut(object, "spec");
        fill(spec, &[("minReplicas", Int(1))]);
        if v1 {
            default_cpu(object);
            return;
        }
        if !has_content(spec, "metrics") {
            spec["metrics"] = json!([cpu_metric(CPU_TARGET_PERCENT)]);
        }
        with(spec, "behavior", |behavior| {
            complete_rules(
                behavior,
                "scaleUp",
                json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]}),
            );
            complete_rules(
                behavior,
                "scaleDown",
                json!({"selectPolicy": "Max", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15}]}),
            );
        });
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        spec_rules(&object.field("spec"), errors);
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        workload::status_counts(new, &["currentReplicas", "desiredReplicas"], errors);
    }
}

/// An object of `v1` that names no metric at all targets cpu.
fn default_cpu(object: &mut Value) {
    let annotated = meta::annotations(object).is_some_and(|a| a.contains_key(METRICS_ANNOTATION));
    let spec = meta::child_mut(object, "spec");
    if !annotated && !has(spec, "targetCPUUtilizationPercentage") {
        spec["targetCPUUtilizationPercentage"] = CPU_TARGET_PERCENT.into();
    }
}

/// A cpu utilization target.
fn cpu_metric(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn complete_rules(behavior: &mut Value, direction: &str, defaults: Value) {
    let rules = meta::child_mut(behavior, direction);
    for (field, value) in defaults.as_object().into_iter().flatten() {
        if !has(rules, field) {
            rules[field] = value.clone();
        }
    }
}

fn spec_rules(spec: &Place, errors: &mut Errors) {
    let (min, max) = (spec.field("minReplicas"), spec.field("maxReplicas"));
    if min.int().is_some_and(|n| n < 1) {
        errors.push(min.invalid("must be greater than or equal to 1"));
    }
    match max.int().unwrap_or(0) {
        0 => errors.push(max.required("must be set and greater than 0")),
        n if n < 0 => errors.push(max.invalid("must be greater than or equal to 1")),
        _ => {}
    }
    if min.int().is_some_and(|min| max.int().unwrap_or(0) < min) {
        errors.push(max.invalid("must be greater than or equal to `minReplicas`"));
    }
    reference(&spec.field("scaleTargetRef"), errors);
    let metrics = spec.field("metrics");
    for metric in metrics.items() {
        self::metric(&metric, errors);
    }
    let scales_to_zero = metrics.list().iter().any(|m| ["Object", "External"].contains(&text(m, "type")));
    if min.int() == Some(0) && !scales_to_zero {
        errors.push(
            metrics
                .forbidden("must specify at least one Object or External metric to support scaling to zero replicas"),
        );
    }
    for direction in ["scaleUp", "scaleDown"] {
        let behavior = spec.field("behavior");
        let rules = behavior.field(direction);
        if rules.is_set() {
            scaling_rules(&rules, errors);
        }
    }
}

fn reference(reference: &Place, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let place = reference.field(field);
        if place.require(errors) {
            format::check(&place, format::path_segment, errors);
        }
    }
}

fn metric(metric: &Place, errors: &mut Errors) {
    let kind = metric.field("type");
    let expected = SOURCES.iter().find(|(name, _)| *name == kind.str()).map(|(_, field)| *field);
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric source type"));
    }
    if expected.is_none() {
        // Reported by two of upstream's checks.
        let types = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        errors.push(kind.not_supported(&types));
        errors.push(kind.not_supported(&types));
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|f| metric.field(f).is_set()).collect();
    if let Some(first) = present.first() {
        source(first, &metric.field(first), errors);
    }
    if let Some(field) = expected.filter(|field| !present.contains(field)) {
        errors.push(metric.field(field).required("must populate information for the given metric source"));
    }
    if present.len() > 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            errors.push(metric.field(field).forbidden("must populate the given metric source only"));
        }
    }
}

fn source(kind: &str, source: &Place, errors: &mut Errors) {
    let target = source.field("target");
    let (value, average, utilization) =
        (target.field("value"), target.field("averageValue"), target.field("averageUtilization"));
    match kind {
        "object" | "external" | "pods" => {
            if kind == "object" {
                reference(&source.field("describedObject"), errors);
            }
            let metric = source.field("metric");
            let name = metric.field("name");
            if name.is_empty() {
                errors.push(name.required("must specify a metric name"));
            } else {
                format::check(&name, format::path_segment, errors);
            }
            if !average.is_set() && (kind == "pods" || !value.is_set()) {
                errors.push(average.required("must set either a target value or averageValue"));
            }
            if kind == "external" && value.is_set() && average.is_set() {
                errors.push(value.forbidden("may not set both a target value for metric and a per-pod target"));
            }
        }
        _ => {
            let name = source.field("name");
            if name.is_empty() {
                errors.push(name.required("must specify a resource name"));
            } else if kind == "containerResource" {
                resources::container_name(name.str(), &name, errors);
            }
            let container = source.field("container");
            if kind == "containerResource" {
                if container.is_empty() {
                    errors.push(container.required("must specify a container"));
                } else {
                    format::check(&container, format::label, errors);
                }
            }
            match (utilization.is_set(), average.is_set()) {
                (false, false) => {
                    errors.push(utilization.required("must set either a target raw value or a target utilization"))
                }
                (true, true) => {
                    errors.push(average.forbidden("may not set both a target raw value and a target utilization"));
                }
                _ => {}
            }
        }
    }
    self::target(&target, errors);
}

fn target(target: &Place, errors: &mut Errors) {
    let kind = target.field("type");
    if kind.is_empty() {
        errors.push(kind.required("must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.str()) {
        errors.push(kind.invalid("must be either Utilization, Value, or AverageValue"));
    }
    for field in ["value", "averageValue"] {
        let place = target.field(field);
        if place.is_set() && resources::read(place.value) <= Quantity::default() {
            errors.push(place.invalid("must be positive"));
        }
    }
    target.field("averageUtilization").positive(errors);
}

fn scaling_rules(rules: &Place, errors: &mut Errors) {
    let window = rules.field("stabilizationWindowSeconds");
    if window.int().is_some_and(|s| s < 0) {
        errors.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int().is_some_and(|s| s > WINDOW_MAX_SECONDS) {
        errors.push(window.invalid(format!("must be less than or equal to {WINDOW_MAX_SECONDS}")));
    }
    rules.field("selectPolicy").one_of(&["Disabled", "Max", "Min"], errors);
    let policies = rules.field("policies");
    if policies.is_empty() {
        errors.push(policies.required("must specify at least one Policy"));
    }
    for policy in policies.items() {
        let kind = policy.field("type");
        if !["Percent", "Pods"].contains(&kind.str()) {
            errors.push(kind.not_supported(&["Percent", "Pods"]));
        }
        for field in ["value", "periodSeconds"] {
            let place = policy.field(field);
            if place.int().unwrap_or(0) <= 0 {
                errors.push(place.invalid("must be greater than zero"));
            }
        }
        let period = policy.field("periodSeconds");
        if period.int().is_some_and(|s| s > PERIOD_MAX_SECONDS) {
            errors.push(period.invalid(format!("must be less than or equal to {PERIOD_MAX_SECONDS}")));
        }
    }
    let tolerance = rules.field("tolerance");
    if tolerance.is_set() && resources::read(tolerance.value) < Quantity::default() {
        errors.push(tolerance.invalid("must be greater than or equal to 0"));
    }
}
