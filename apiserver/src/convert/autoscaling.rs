//! HorizontalPodAutoscalers: v1 knows one CPU target; everything else of v2 travels in annotations
//! (`pkg/apis/autoscaling/v1/conversion.go`).

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn take(object: &mut Value, part: &str, field: &str) -> Option<Value> {
    object.get_mut(part)?.as_object_mut()?.remove(field)
}

fn annotations(object: &mut Value) -> &mut Map<String, Value> {
    api::meta::object_mut(api::meta::child_mut(api::meta::child_mut(object, "metadata"), "annotations"))
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    annotations(object).insert(key.to_owned(), value.to_string().into());
}

/// Takes a JSON annotation off the object; one that does not parse is dropped, as upstream does.
fn annotated(object: &mut Value, key: &str) -> Option<Value> {
    let all = object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    let text = all.remove(key)?;
    if all.is_empty() {
        api::meta::metadata_mut(object).remove("annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn is_cpu_utilization(metric: &Value) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && (metric["resource"]["target"]["type"] == "Utilization"
            || metric["resource"]["current"]["averageUtilization"].is_number())
}

pub(super) fn v2_to_v1(object: &mut Value) {
    if let Some(Value::Array(metrics)) = take(object, "spec", "metrics") {
        let (cpu, others): (Vec<_>, Vec<_>) = metrics.into_iter().partition(is_cpu_utilization);
        let mut cpu = cpu.into_iter();
        if let Some(first) = cpu.next() {
            object["spec"]["targetCPUUtilizationPercentage"] =
                first["resource"]["target"]["averageUtilization"].clone();
        }
        let others: Vec<Value> = cpu.chain(others).map(|m| spec_to_v1(&m)).collect();
        if !others.is_empty() {
            annotate(object, METRICS, &Value::Array(others));
        }
    }
    if let Some(behavior) = take(object, "spec", "behavior") {
        let capitalized = rename(&behavior, &[("scaleUp", "ScaleUp"), ("scaleDown", "ScaleDown")]);
        annotate(object, BEHAVIOR, &capitalized);
    }
    if let Some(Value::Array(current)) = take(object, "status", "currentMetrics") {
        let cpu = current.iter().find(|m| is_cpu_utilization(m));
        if let Some(cpu) = cpu {
            object["status"]["currentCPUUtilizationPercentage"] =
                cpu["resource"]["current"]["averageUtilization"].clone();
        }
        if !current.is_empty() {
            annotate(object, CURRENT_METRICS, &Value::Array(current));
        }
    }
    if let Some(conditions) =
        take(object, "status", "conditions").filter(|c| c.as_array().is_some_and(|c| !c.is_empty()))
    {
        annotate(object, CONDITIONS, &conditions);
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        for field in ["currentReplicas", "desiredReplicas"] {
            status.entry(field).or_insert(0.into());
        }
    }
}

pub(super) fn v1_to_v2(object: &mut Value) {
    let mut metrics = Vec::new();
    if let Some(target) = take(object, "spec", "targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": target});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if let Some(Value::Array(others)) = annotated(object, METRICS) {
        metrics.extend(others.iter().map(spec_to_v2));
    }
    if !metrics.is_empty() {
        object["spec"]["metrics"] = metrics.into();
    }
    if let Some(behavior) = annotated(object, BEHAVIOR) {
        object["spec"]["behavior"] = rename(&behavior, &[("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown")]);
    }
    let mut current = Vec::new();
    if let Some(Value::Array(annotated)) = annotated(object, CURRENT_METRICS) {
        current = annotated;
    }
    if let Some(percentage) = take(object, "status", "currentCPUUtilizationPercentage")
        && !current.iter().any(is_cpu_utilization)
    {
        let value = json!({"averageUtilization": percentage});
        current.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": value}}));
    }
    if object.get("status").is_some_and(Value::is_object) {
        object["status"]["currentMetrics"] = if current.is_empty() { Value::Null } else { current.into() };
        if let Some(conditions) = annotated(object, CONDITIONS) {
            object["status"]["conditions"] = conditions;
        }
    }
}

fn rename(object: &Value, names: &[(&str, &str)]) -> Value {
    let Some(map) = object.as_object() else { return object.clone() };
    let renamed = map.iter().map(|(key, value)| {
        let name = names.iter().find(|(from, _)| from == key).map_or(key.as_str(), |(_, to)| to);
        (name.to_owned(), value.clone())
    });
    Value::Object(renamed.collect())
}

/// A metric as `autoscaling/v1` has it in the annotation: targets are flat fields of the source.
fn spec_to_v1(metric: &Value) -> Value {
    let mut out = metric.clone();
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(Value::Object(inner)) = out.get_mut(source) else { continue };
        let Some(target) = inner.remove("target") else { continue };
        let moved = |inner: &mut Map<String, Value>, name: &str, value: &Value| {
            if !value.is_null() {
                inner.insert(name.to_owned(), value.clone());
            }
        };
        match source {
            "resource" | "containerResource" => {
                moved(inner, "targetAverageUtilization", &target["averageUtilization"]);
                moved(inner, "targetAverageValue", &target["averageValue"]);
            }
            "pods" => moved(inner, "targetAverageValue", &target["averageValue"]),
            "object" => {
                moved(inner, "targetValue", &target["value"]);
                moved(inner, "averageValue", &target["averageValue"]);
                if let Some(described) = inner.remove("describedObject") {
                    inner.insert("target".to_owned(), described);
                }
            }
            _ => {
                moved(inner, "targetValue", &target["value"]);
                moved(inner, "targetAverageValue", &target["averageValue"]);
            }
        }
        flatten_metric(inner, true);
    }
    out
}

fn spec_to_v2(metric: &Value) -> Value {
    let mut out = metric.clone();
    for source in ["resource", "containerResource", "pods", "object", "external"] {
        let Some(Value::Object(inner)) = out.get_mut(source) else { continue };
        let mut target = Map::new();
        for (from, to, kind) in [
            ("targetAverageUtilization", "averageUtilization", "Utilization"),
            ("targetAverageValue", "averageValue", "AverageValue"),
            ("averageValue", "averageValue", "AverageValue"),
            ("targetValue", "value", "Value"),
        ] {
            if let Some(value) = inner.remove(from) {
                target.insert(to.to_owned(), value);
                target.insert("type".to_owned(), kind.into());
            }
        }
        if let (Some(described), "object") = (inner.remove("target"), source) {
            inner.insert("describedObject".to_owned(), described);
        }
        inner.insert("target".to_owned(), Value::Object(target));
        flatten_metric(inner, false);
    }
    out
}

/// `metric: {name, selector}` of v2 against `metricName` (and the selector) of v1.
fn flatten_metric(inner: &mut Map<String, Value>, flatten: bool) {
    if flatten {
        let Some(Value::Object(mut metric)) = inner.remove("metric") else { return };
        if let Some(name) = metric.remove("name") {
            inner.insert("metricName".to_owned(), name);
        }
        if let Some(selector) = metric.remove("selector") {
            let key = if inner.contains_key("targetAverageValue") || inner.contains_key("targetValue") {
                "metricSelector"
            } else {
                "selector"
            };
            inner.insert(key.to_owned(), selector);
        }
    } else {
        let Some(name) = inner.remove("metricName") else { return };
        let mut metric = Map::from_iter([("name".to_owned(), name)]);
        if let Some(selector) = inner.remove("metricSelector").or_else(|| inner.remove("selector")) {
            metric.insert("selector".to_owned(), selector);
        }
        inner.insert("metric".to_owned(), Value::Object(metric));
    }
}
