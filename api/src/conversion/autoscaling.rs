//! Horizontal pod autoscalers: v1 knows one target, the average CPU utilization. Everything else that v2 can say
//! travels in annotations of the v1 object.

use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];
/// The target upstream assumes where none is stated, in percent.
const DEFAULT_CPU_UTILIZATION: i64 = 80;

/// The metric's CPU utilization, if that is what it is about; `part` is `target` or `current`.
fn cpu_utilization<'v>(metric: &'v Value, part: &str) -> Option<&'v Value> {
    let resource = &metric["resource"];
    let is_cpu = metric["type"] == "Resource" && resource["name"] == "cpu";
    resource[part].get("averageUtilization").filter(|u| is_cpu && !u.is_null())
}

fn list(object: &mut Map<String, Value>, part: &str, field: &str) -> Vec<Value> {
    match object.get_mut(part).and_then(Value::as_object_mut).and_then(|p| p.remove(field)) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn part<'m>(object: &'m mut Map<String, Value>, name: &str) -> &'m mut Map<String, Value> {
    crate::meta::object_mut(object.entry(name).or_insert_with(|| json!({})))
}

/// Takes the annotations that carry v2's fields.
fn take_annotations(object: &mut Map<String, Value>) -> Map<String, Value> {
    let mut taken = Map::new();
    let metadata = part(object, "metadata");
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return taken };
    for name in ANNOTATIONS {
        taken.extend(annotations.remove_entry(name));
    }
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    taken
}

pub(super) fn to_v1(object: &mut Map<String, Value>) {
    take_annotations(object);
    let mut annotations = Map::new();
    let metrics = list(object, "spec", "metrics");
    let utilization = metrics.iter().find_map(|m| cpu_utilization(m, "target").cloned());
    let others: Vec<Value> =
        metrics.iter().filter(|m| cpu_utilization(m, "target").is_none()).map(metric_to_v1).collect();
    let spec = part(object, "spec");
    if let Some(utilization) = utilization {
        spec.insert("targetCPUUtilizationPercentage".to_owned(), utilization);
    }
    if let Some(behavior) = spec.remove("behavior").filter(Value::is_object) {
        annotations.insert(BEHAVIOR.to_owned(), behavior_text(&behavior).into());
    }
    if !others.is_empty() {
        annotations.insert(METRICS.to_owned(), ordered_text(&others).into());
    }
    let current = list(object, "status", "currentMetrics");
    let conditions = list(object, "status", "conditions");
    let status = part(object, "status");
    // v1 writes the number of replicas even when it is zero.
    status.entry("currentReplicas").or_insert_with(|| 0.into());
    if let Some(utilization) = current.iter().filter_map(|m| cpu_utilization(m, "current")).next_back() {
        status.insert("currentCPUUtilizationPercentage".to_owned(), utilization.clone());
    }
    if !current.is_empty() {
        let current: Vec<Value> = current.iter().map(status_to_v1).collect();
        annotations.insert(CURRENT_METRICS.to_owned(), ordered_text(&current).into());
    }
    if !conditions.is_empty() {
        annotations.insert(CONDITIONS.to_owned(), ordered_text(&conditions).into());
    }
    if !annotations.is_empty() {
        let metadata = part(object, "metadata");
        part(metadata, "annotations").append(&mut annotations);
    }
}

pub(crate) fn to_v2(object: &mut Map<String, Value>) {
    let annotations = take_annotations(object);
    let carried = |name: &str| -> Option<Value> { serde_json::from_str(annotations.get(name)?.as_str()?).ok() };
    let items = |name: &str| carried(name).and_then(|v| v.as_array().cloned());
    let mut metrics: Vec<Value> = items(METRICS).unwrap_or_default().iter().map(metric_to_v2).collect();
    let spec = part(object, "spec");
    let utilization = spec.remove("targetCPUUtilizationPercentage").filter(|u| !u.is_null());
    if utilization.is_some() || metrics.is_empty() {
        let utilization = utilization.unwrap_or_else(|| DEFAULT_CPU_UTILIZATION.into());
        metrics.push(json!({ "type": "Resource", "resource": {
            "name": "cpu", "target": { "type": "Utilization", "averageUtilization": utilization } } }));
    }
    spec.insert("metrics".to_owned(), metrics.into());
    if let Some(behavior) =
        carried(BEHAVIOR).map(|b| lower_names(&b)).filter(|b| b.as_object().is_some_and(|b| !b.is_empty()))
    {
        spec.insert("behavior".to_owned(), behavior);
    }
    let status = part(object, "status");
    let utilization = status.remove("currentCPUUtilizationPercentage").filter(|u| !u.is_null());
    let current = match (items(CURRENT_METRICS), utilization) {
        (Some(current), _) => Value::Array(current.iter().map(status_to_v2).collect()),
        (None, Some(utilization)) => json!([{ "type": "Resource", "resource": {
            "name": "cpu", "current": { "averageUtilization": utilization } } }]),
        (None, None) => Value::Null,
    };
    status.insert("currentMetrics".to_owned(), current);
    // v2 leaves zero out.
    if status.get("currentReplicas").is_some_and(|r| r == 0) {
        status.remove("currentReplicas");
    }
    if let Some(conditions) = items(CONDITIONS) {
        status.insert("conditions".to_owned(), conditions.into());
    }
}

/// The key of a metric's own part and its contents.
fn source(metric: &Value) -> (&'static str, &Value) {
    let key = match metric["type"].as_str().unwrap_or_default() {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        _ => "external",
    };
    (key, &metric[key])
}

/// An object of the members that are there.
fn members<const N: usize>(members: [(&str, &Value); N]) -> Value {
    let there = members.iter().filter(|(_, value)| !value.is_null());
    Value::Object(there.map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect())
}

fn metric_to_v1(metric: &Value) -> Value {
    let (key, source) = source(metric);
    let (target, identifier) = (&source["target"], &source["metric"]);
    let part = match key {
        "resource" | "containerResource" => members([
            ("name", &source["name"]),
            ("container", &source["container"]),
            ("targetAverageUtilization", &target["averageUtilization"]),
            ("targetAverageValue", &target["averageValue"]),
        ]),
        "pods" => members([
            ("metricName", &identifier["name"]),
            ("selector", &identifier["selector"]),
            ("targetAverageValue", &target["averageValue"]),
        ]),
        "object" => members([
            ("target", &source["describedObject"]),
            ("metricName", &identifier["name"]),
            ("targetValue", target.get("value").unwrap_or(&Value::from("0"))),
            ("selector", &identifier["selector"]),
            ("averageValue", &target["averageValue"]),
        ]),
        _ => members([
            ("metricName", &identifier["name"]),
            ("metricSelector", &identifier["selector"]),
            ("targetValue", &target["value"]),
            ("targetAverageValue", &target["averageValue"]),
        ]),
    };
    json!({ "type": metric["type"], key: part })
}

fn metric_to_v2(metric: &Value) -> Value {
    let (key, source) = source(metric);
    let identifier = members([
        ("name", &source["metricName"]),
        ("selector", if key == "external" { &source["metricSelector"] } else { &source["selector"] }),
    ]);
    let target = |kind: &str, value: &Value, average: &Value, utilization: &Value| {
        members([
            ("type", &kind.into()),
            ("value", value),
            ("averageValue", average),
            ("averageUtilization", utilization),
        ])
    };
    let average = &source["targetAverageValue"];
    let part = match key {
        "resource" | "containerResource" => {
            let utilization = &source["targetAverageUtilization"];
            let kind = if utilization.is_null() { "AverageValue" } else { "Utilization" };
            let target = target(kind, &Value::Null, average, utilization);
            members([("name", &source["name"]), ("container", &source["container"]), ("target", &target)])
        }
        "pods" => {
            let target = target("AverageValue", &Value::Null, average, &Value::Null);
            members([("metric", &identifier), ("target", &target)])
        }
        "object" => {
            let average = &source["averageValue"];
            let (kind, value) = match (average.is_null(), &source["targetValue"]) {
                (true, value) => ("Value", value),
                (false, value) if value == "0" => ("AverageValue", &Value::Null),
                (false, value) => ("AverageValue", value),
            };
            let target = target(kind, value, average, &Value::Null);
            members([("describedObject", &source["target"]), ("metric", &identifier), ("target", &target)])
        }
        _ => {
            let value = &source["targetValue"];
            let kind = if value.is_null() { "AverageValue" } else { "Value" };
            let target = target(kind, value, average, &Value::Null);
            members([("metric", &identifier), ("target", &target)])
        }
    };
    json!({ "type": metric["type"], key: part })
}

fn status_to_v1(metric: &Value) -> Value {
    let (key, source) = source(metric);
    let (current, identifier) = (&source["current"], &source["metric"]);
    let zero = Value::from("0");
    let value = current.get("value").unwrap_or(&zero);
    let average = current.get("averageValue").unwrap_or(&zero);
    let part = match key {
        "resource" | "containerResource" => members([
            ("name", &source["name"]),
            ("container", &source["container"]),
            ("currentAverageUtilization", &current["averageUtilization"]),
            ("currentAverageValue", average),
        ]),
        "pods" => members([
            ("metricName", &identifier["name"]),
            ("currentAverageValue", average),
            ("selector", &identifier["selector"]),
        ]),
        "object" => members([
            ("target", &source["describedObject"]),
            ("metricName", &identifier["name"]),
            ("currentValue", value),
            ("selector", &identifier["selector"]),
            ("averageValue", &current["averageValue"]),
        ]),
        _ => members([
            ("metricName", &identifier["name"]),
            ("metricSelector", &identifier["selector"]),
            ("currentValue", value),
            ("currentAverageValue", &current["averageValue"]),
        ]),
    };
    json!({ "type": metric["type"], key: part })
}

fn status_to_v2(metric: &Value) -> Value {
    let (key, source) = source(metric);
    let identifier = members([
        ("name", &source["metricName"]),
        ("selector", if key == "external" { &source["metricSelector"] } else { &source["selector"] }),
    ]);
    let average = if key == "object" { &source["averageValue"] } else { &source["currentAverageValue"] };
    let current = members([
        ("value", &source["currentValue"]),
        ("averageValue", average),
        ("averageUtilization", &source["currentAverageUtilization"]),
    ]);
    let part = match key {
        "resource" | "containerResource" => {
            members([("name", &source["name"]), ("container", &source["container"]), ("current", &current)])
        }
        "object" => members([("describedObject", &source["target"]), ("metric", &identifier), ("current", &current)]),
        _ => members([("metric", &identifier), ("current", &current)]),
    };
    json!({ "type": metric["type"], key: part })
}

/// JSON with `type` before the other members, the order in which upstream writes metrics and conditions.
fn ordered_text(items: &[Value]) -> String {
    let shown: Vec<String> = items
        .iter()
        .map(|item| {
            let rest = item.as_object().into_iter().flatten().filter(|(name, _)| *name != "type");
            let rest: Vec<String> =
                rest.map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
            let first = format!("\"type\":{}", item["type"]);
            format!("{{{}}}", std::iter::once(first).chain(rest).collect::<Vec<_>>().join(","))
        })
        .collect();
    format!("[{}]", shown.join(","))
}

/// Behavior as upstream writes it into the annotation: its internal type, whose fields have upper-case names and are
/// all written.
fn behavior_text(behavior: &Value) -> String {
    let policy = |policy: &Value| {
        let (kind, value, period) = (&policy["type"], &policy["value"], &policy["periodSeconds"]);
        format!("{{\"Type\":{kind},\"Value\":{value},\"PeriodSeconds\":{period}}}")
    };
    let rules = |rules: &Value| {
        if rules.is_null() {
            return "null".to_owned();
        }
        let policies = rules["policies"]
            .as_array()
            .map_or_else(|| "null".to_owned(), |p| format!("[{}]", p.iter().map(policy).collect::<Vec<_>>().join(",")));
        format!(
            "{{\"StabilizationWindowSeconds\":{},\"SelectPolicy\":{},\"Policies\":{policies},\"Tolerance\":{}}}",
            rules["stabilizationWindowSeconds"], rules["selectPolicy"], rules["tolerance"]
        )
    };
    format!("{{\"ScaleUp\":{},\"ScaleDown\":{}}}", rules(&behavior["scaleUp"]), rules(&behavior["scaleDown"]))
}

/// Members with their first letter in lower case, nulls dropped, all the way down.
fn lower_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let lower = |(name, value): (&String, &Value)| {
                let mut chars = name.chars();
                let first = chars.next().map(|c| c.to_ascii_lowercase());
                (first.into_iter().chain(chars).collect::<String>(), lower_names(value))
            };
            Value::Object(map.iter().filter(|(_, value)| !value.is_null()).map(lower).collect())
        }
        Value::Array(items) => items.iter().map(lower_names).collect(),
        other => other.clone(),
    }
}
