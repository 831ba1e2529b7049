//! Cells of a HorizontalPodAutoscaler: what `autoscaling/v2` says of it, in whichever version it is shown.

use serde_json::Value;

use crate::conversion;
use crate::table::View;
use crate::table::text::field;

/// Metrics shown before "+ n more...".
const METRICS_MAX: usize = 2;
const UNKNOWN: &str = "<unknown>";

/// Reference, targets, minimum, maximum and current replicas.
pub fn autoscaler(view: &View) -> Vec<Value> {
    match view.object.as_object() {
        Some(object) if view.text("/apiVersion") == "autoscaling/v1" => {
            let mut object = object.clone();
            conversion::autoscaling::to_v2(&mut object);
            summary(&View { object: &object.into(), now: view.now })
        }
        _ => summary(view),
    }
}

fn summary(view: &View) -> Vec<Value> {
    let reference = format!("{}/{}", view.text("/spec/scaleTargetRef/kind"), view.text("/spec/scaleTargetRef/name"));
    let minimum = view.at("/spec/minReplicas").as_i64().map_or("<unset>".to_owned(), |n| n.to_string());
    vec![
        reference.into(),
        metrics(view).into(),
        minimum.into(),
        view.int("/spec/maxReplicas").into(),
        view.int("/status/currentReplicas").into(),
    ]
}

fn metrics(view: &View) -> String {
    let specs = view.list("/spec/metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let statuses = view.list("/status/currentMetrics");
    let all: Vec<String> = specs.iter().enumerate().map(|(i, spec)| metric(spec, statuses.get(i))).collect();
    let shown = all[..all.len().min(METRICS_MAX)].join(", ");
    if all.len() > METRICS_MAX { format!("{shown} + {} more...", all.len() - METRICS_MAX) } else { shown }
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    let source = match field(spec, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let target = |name: &str| spec.get(source).and_then(|s| s.get("target")).and_then(|t| t.get(name));
    let current =
        |name: &str| status.and_then(|s| s.get(source)).and_then(|s| s.get("current")).and_then(|c| c.get(name));
    let amount = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned();
    let by_average = target("averageValue").is_some();
    let label = match source {
        "resource" | "containerResource" => format!("{}: ", field(&spec[source], "name")),
        _ => String::new(),
    };
    match source {
        "resource" | "containerResource" if !by_average => {
            let percent = |value: Option<&Value>| value.and_then(Value::as_i64).map(|n| format!("{n}%"));
            let now = percent(current("averageUtilization")).unwrap_or_else(|| UNKNOWN.to_owned());
            let wanted = percent(target("averageUtilization")).unwrap_or_else(|| "<auto>".to_owned());
            format!("{label}{now}/{wanted}")
        }
        "external" | "object" if by_average => {
            format!("{}/{} (avg)", amount(current("averageValue")), amount(target("averageValue")))
        }
        "external" | "object" => format!("{}/{}", amount(current("value")), amount(target("value"))),
        _ => format!("{label}{}/{}", amount(current("averageValue")), amount(target("averageValue"))),
    }
}
