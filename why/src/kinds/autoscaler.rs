//! Why a HorizontalPodAutoscaler does not scale.

use serde_json::Value;

use crate::chain::Cause;
use crate::look::{Look, condition_is, count, kubectl, text};

pub fn causes(look: &Look, autoscaler: &Value) -> Vec<Cause> {
    let cause = |reason: &str, message: String| Cause::new(reason, message).about(autoscaler);
    let namespace = api::meta::namespace(autoscaler);
    let target = &autoscaler["spec"]["scaleTargetRef"];
    let target_name = format!("{}/{}", text(&target["kind"]).to_lowercase(), text(&target["name"]));
    if let Some(c) = condition_is(autoscaler, "AbleToScale", "False") {
        let kind = look.world.kinds.of_kind(text(&target["apiVersion"]), text(&target["kind"]));
        let absent = kind.is_some_and(|k| look.world.get_of(k, namespace, text(&target["name"])).is_absent());
        return vec![match absent {
            true => cause("TargetMissing", format!("what it is to scale, {target_name}, does not exist")),
            false => cause(text(&c["reason"]), format!("it cannot scale {target_name}: {}", text(&c["message"]))),
        }];
    }
    if let Some(c) = condition_is(autoscaler, "ScalingActive", "False") {
        return vec![inactive(look, autoscaler, &target_name, text(&c["reason"]), text(&c["message"]))];
    }
    if let Some(c) = condition_is(autoscaler, "ScalingLimited", "True") {
        let (most, name) = (count(&autoscaler["spec"]["maxReplicas"]), api::meta::name(autoscaler));
        return match text(&c["reason"]) {
            "TooManyReplicas" => {
                let patch = format!("patch hpa {name} --type=merge -p '{{\"spec\":{{\"maxReplicas\":MORE}}}}'");
                let message = format!("the load asks for more than its maxReplicas of {most}");
                vec![cause("TooManyReplicas", message).fix("", kubectl(namespace, &patch))]
            }
            // The least there may be is no trouble.
            "TooFewReplicas" => Vec::new(),
            reason => vec![cause(reason, text(&c["message"]).to_owned())],
        };
    }
    if autoscaler["status"]["conditions"].is_null() {
        return vec![cause(
            "NotObserved",
            "its controller has not looked at it yet: do the controllers run?".to_owned(),
        )];
    }
    Vec::new()
}

fn inactive(look: &Look, autoscaler: &Value, target: &str, reason: &str, message: &str) -> Cause {
    let namespace = api::meta::namespace(autoscaler);
    let cause = |reason: &str, message: String| Cause::new(reason, message).about(autoscaler);
    if reason == "ScalingDisabled" {
        let scale = format!("scale {target} --replicas=1");
        let message = format!("{target} has no replicas, which switches it off");
        return cause("ScalingDisabled", message).fix("from one on it scales by itself", kubectl(namespace, &scale));
    }
    if message.contains("missing request for") {
        let resource =
            message.split("missing request for ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or("cpu");
        let set = format!("set resources {target} --requests={resource}=AMOUNT");
        let message = format!("it goes by the share of the {resource} that its pods ask for, and they ask for none");
        return cause("RequestsMissing", message).fix("", kubectl(namespace, &set));
    }
    let api = match reason {
        "FailedGetExternalMetric" => "external.metrics.k8s.io",
        "FailedGetPodsMetric" | "FailedGetObjectMetric" => "custom.metrics.k8s.io",
        _ => "metrics.k8s.io",
    };
    let services = look.world.list("apiservices.apiregistration.k8s.io", "");
    let service = services.iter().find(|s| s["spec"]["group"] == api);
    match service {
        None => cause("NoMetrics", format!("it has no metrics to go by: nothing in this cluster serves {api}"))
            .fix("for example the metrics-server", "kubectl get apiservices | grep metrics"),
        Some(service) if condition_is(service, "Available", "True").is_none() => {
            cause("MetricsUnavailable", format!("it has no metrics to go by, as the server of {api} is not available"))
                .because([Cause::new("APIServiceUnavailable", "is not available")
                    .about(service)
                    .because(look.why(service))])
        }
        Some(_) => cause(reason, format!("it has no metrics to go by: {message}")),
    }
}
