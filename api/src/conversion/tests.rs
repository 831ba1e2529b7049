//! Conversions against recorded answers of upstream.

use serde_json::json;

use super::*;
use crate::catalogue::Catalogue;

fn converted(object: Value, to: (&str, &str)) -> Value {
    let catalogue = Catalogue::builtin();
    let (group, version) = crate::meta::split_api_version(object["apiVersion"].as_str().unwrap());
    let kind = object["kind"].as_str().unwrap();
    let from = catalogue.by_kind(group, version, kind).unwrap();
    let to = catalogue.by_kind(to.0, to.1, kind).unwrap();
    convert(object.clone(), from, to)
}

#[test]
fn events_change_names() {
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "action": "Act",
        "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null, "deprecatedSource": {},
        "eventTime": "2024-01-02T03:04:05.000001Z", "note": "n", "reason": "Testing", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "example.com/c", "reportingInstance": "i"});
    let core = converted(event.clone(), ("", "v1"));
    assert_eq!(
        core,
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "action": "Act",
            "firstTimestamp": null, "lastTimestamp": null, "source": {}, "eventTime": "2024-01-02T03:04:05.000001Z",
            "message": "n", "reason": "Testing", "type": "Normal", "involvedObject": {"kind": "Pod", "name": "p"},
            "reportingComponent": "example.com/c", "reportingInstance": "i"})
    );
    assert_eq!(converted(core, ("events.k8s.io", "v1")), event);
}

#[test]
fn autoscalers_keep_in_annotations_what_v1_can_not_say() {
    let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "behavior": {
                "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
                "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                    "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15},
                        {"type": "Percent", "value": 100, "periodSeconds": 15}]}},
            "metrics": [
                {"type": "Resource", "resource": {"name": "memory",
                    "target": {"type": "AverageValue", "averageValue": "100Mi"}}},
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 70}}}]},
        "status": {"currentMetrics": null, "desiredReplicas": 0}});
    let v1 = converted(v2.clone(), ("autoscaling", "v1"));
    assert_eq!(
        v1,
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {
                "autoscaling.alpha.kubernetes.io/behavior": "{\"ScaleUp\":{\"StabilizationWindowSeconds\":0,\"SelectPolicy\":\"Max\",\"Policies\":[{\"Type\":\"Pods\",\"Value\":4,\"PeriodSeconds\":15},{\"Type\":\"Percent\",\"Value\":100,\"PeriodSeconds\":15}],\"Tolerance\":null},\"ScaleDown\":{\"StabilizationWindowSeconds\":60,\"SelectPolicy\":\"Max\",\"Policies\":[{\"Type\":\"Percent\",\"Value\":100,\"PeriodSeconds\":15}],\"Tolerance\":null}}",
                "autoscaling.alpha.kubernetes.io/metrics":
                    "[{\"type\":\"Resource\",\"resource\":{\"name\":\"memory\",\"targetAverageValue\":\"100Mi\"}}]"}},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "d"},
                "targetCPUUtilizationPercentage": 70},
            "status": {"currentReplicas": 0, "desiredReplicas": 0}})
    );
    assert_eq!(converted(v1, ("autoscaling", "v2")), v2);
}

#[test]
fn every_kind_of_metric_survives_both_ways() {
    let metrics = json!([
        {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "1"}}},
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"},
            "target": {"type": "Value", "value": "2"}}},
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"},
            "target": {"type": "AverageValue", "averageValue": "2"}}},
        {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "3"}}},
        {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 5}}}
    ]);
    let current = json!([
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5, "averageValue": "1"}}},
        {"type": "Pods", "pods": {"metric": {"name": "m"}, "current": {"averageValue": "1"}}},
        {"type": "External", "external": {"metric": {"name": "m"}, "current": {"value": "1"}}}
    ]);
    let v2 = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "annotations": {"own": "x"}}, "spec": {"maxReplicas": 3, "metrics": metrics},
        "status": {"currentMetrics": current, "currentReplicas": 2, "desiredReplicas": 2,
            "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": null}]}});
    let v1 = converted(v2.clone(), ("autoscaling", "v1"));
    assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 5);
    assert_eq!(v1["metadata"]["annotations"]["own"], "x");
    assert_eq!(converted(v1, ("autoscaling", "v2")), v2);
}

#[test]
fn a_v1_autoscaler_without_a_target_gets_the_default_one() {
    let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3}, "status": {"currentReplicas": 0, "desiredReplicas": 0}});
    let v2 = converted(v1, ("autoscaling", "v2"));
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    assert_eq!(v2["spec"]["metrics"], cpu);
    assert_eq!(v2["status"], json!({"currentMetrics": null, "desiredReplicas": 0}));
}
