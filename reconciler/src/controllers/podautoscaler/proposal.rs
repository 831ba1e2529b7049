//! What one metric of an autoscaler proposes: read, compared with its target, and told in its status.

use api_client::Client;
use jiff::Timestamp;
use serde_json::{Value, json};

use api::quantity::{Format, Quantity};
use api::selector::LabelSelector;

use super::metrics::Metrics;
use super::replicas::{self, Pods, Tolerances};
use crate::controllers::served::ServedResources;

/// The target as it is now.
pub struct Target<'a> {
    pub client: &'a Client,
    pub served: &'a ServedResources,
    pub namespace: &'a str,
    /// Its pods' selector, as text.
    pub selector: &'a str,
    pub pods: &'a [Value],
    pub spec_replicas: i32,
    pub status_replicas: i32,
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

pub struct Proposal {
    pub replicas: i32,
    /// The metric as events and conditions name it.
    pub name: String,
    pub status: Value,
}

/// Why a metric proposes nothing: the reason of event and condition, and the texts of both.
pub struct Failure {
    pub reason: &'static str,
    pub why: String,
    pub told: String,
}

fn failure(reason: &'static str, context: String) -> impl Fn(String) -> Failure {
    move |why| Failure { reason, told: format!("failed to get {context} value: {why}"), why }
}

fn milli(value: &Value) -> Option<i64> {
    let text = value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|n| n.to_string()))?;
    Some(Quantity::parse(&text).ok()?.milli_value())
}

fn shown(milli: i64, resource: &str) -> String {
    let format = if resource == "memory" { Format::BinarySi } else { Format::DecimalSi };
    Quantity::from_milli(milli, format).to_string()
}

fn selector_text(metric: &Value) -> Result<String, String> {
    match metric.get("selector").filter(|s| !s.is_null()) {
        None => Ok(String::new()),
        some => LabelSelector::from_object(some).map(|s| s.to_string()).map_err(|e| e.to_string()),
    }
}

impl Target<'_> {
    fn metrics(&self) -> Metrics<'_> {
        Metrics { client: self.client, namespace: self.namespace }
    }

    fn pods(&self, cpu: bool) -> Pods<'_> {
        Pods { pods: self.pods, now: self.now, cpu }
    }

    pub async fn propose(&self, metric: &Value) -> Result<Proposal, Failure> {
        let kind = metric["type"].as_str().unwrap_or_default();
        match kind {
            "Resource" => {
                let source = &metric["resource"];
                let context = format!("{} resource metric", source["name"].as_str().unwrap_or_default());
                let failed = failure("FailedGetResourceMetric", context);
                self.of_resource(source, "", "resource").await.map_err(failed)
            }
            "ContainerResource" => {
                let source = &metric["containerResource"];
                let container = source["container"].as_str().unwrap_or_default();
                let failed = failure("FailedGetContainerResourceMetric", format!("{container} container metric"));
                self.of_resource(source, container, "containerResource").await.map_err(failed)
            }
            "Pods" => self.of_pods(&metric["pods"]).await.map_err(failure("FailedGetPodsMetric", "pods metric".into())),
            "Object" => self
                .of_object(&metric["object"])
                .await
                .map_err(failure("FailedGetObjectMetric", "object metric".into())),
            "External" => {
                let name = metric["external"]["metric"]["name"].as_str().unwrap_or_default();
                let failed = failure("FailedGetExternalMetric", format!("{name} external metric"));
                self.of_external(&metric["external"]).await.map_err(failed)
            }
            _ => {
                let why = format!("unknown metric source type {kind:?}");
                Err(Failure { reason: "InvalidMetricSourceType", told: why.clone(), why })
            }
        }
    }

    async fn of_resource(&self, source: &Value, container: &str, field: &str) -> Result<Proposal, String> {
        let name = source["name"].as_str().unwrap_or_default();
        let target = &source["target"];
        let unavailable = |e| format!("unable to get metrics for resource {name}: {e}");
        let pods = self.pods(name == "cpu");
        let average = milli(&target["averageValue"]);
        let what = if average.is_some() { "usage" } else { "utilization" };
        let failed = |why| format!("failed to get {name} {what}: {why}");
        let measures = self.metrics().resource(name, self.selector, container).await;
        let measures = measures.map_err(unavailable).map_err(failed)?;
        let (replicas, current, told) = if let Some(goal) = average {
            let found = pods.by_average(measures, self.spec_replicas, goal, self.tolerances);
            let (replicas, value) = found.map_err(failed)?;
            (replicas, json!({"averageValue": shown(value, name)}), format!("{name} resource"))
        } else if let Some(goal) = target["averageUtilization"].as_i64() {
            let goal = i32::try_from(goal).unwrap_or(i32::MAX);
            let requests = replicas::requests(self.pods, container, name).map_err(failed)?;
            let found = pods.by_utilization(measures, self.spec_replicas, goal, &requests, self.tolerances);
            let (replicas, percent, value) = found.map_err(failed)?;
            let of = if container.is_empty() { "resource" } else { "container resource" };
            let current = json!({"averageUtilization": percent, "averageValue": shown(value, name)});
            (replicas, current, format!("{name} {of} utilization (percentage of request)"))
        } else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                .into());
        };
        let kind = if container.is_empty() { "Resource" } else { "ContainerResource" };
        let mut status = json!({"type": kind, field: {"name": name, "current": current}});
        if !container.is_empty() {
            status[field]["container"] = container.into();
        }
        Ok(Proposal { replicas, name: told, status })
    }

    async fn of_pods(&self, source: &Value) -> Result<Proposal, String> {
        let metric = &source["metric"];
        let name = metric["name"].as_str().unwrap_or_default();
        let narrowed = selector_text(metric)?;
        let goal = milli(&source["target"]["averageValue"]).unwrap_or_default();
        let measures = self.metrics().pods(name, self.selector, &narrowed).await;
        let measures = measures.map_err(|e| format!("unable to get metric {name}: {e}"))?;
        let (replicas, value) = self.pods(false).by_average(measures, self.spec_replicas, goal, self.tolerances)?;
        let status = json!({"type": "Pods", "pods": {"metric": metric, "current": {"averageValue": shown(value, "")}}});
        Ok(Proposal { replicas, name: format!("pods metric {name}"), status })
    }

    async fn of_object(&self, source: &Value) -> Result<Proposal, String> {
        let (metric, target) = (&source["metric"], &source["target"]);
        let name = metric["name"].as_str().unwrap_or_default();
        let object = &source["describedObject"];
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let narrowed = selector_text(metric)?;
        let of = format!("{} {}/{}", text("kind"), self.namespace, text("name"));
        let unavailable = |e: String| format!("unable to get metric {name}: {e} on {of}");
        let path = if text("kind") == "Namespace" {
            None
        } else {
            let resource = self.served.of_kind(text("apiVersion"), text("kind")).await;
            let resource = resource.map_err(|e| unavailable(e.to_string()))?;
            let resource = resource.ok_or_else(|| unavailable(format!("no matches for kind {:?}", text("kind"))))?;
            Some(format!("{}/{}", resource.qualified(), text("name")))
        };
        let usage = self.metrics().object(path.as_deref(), name, &narrowed).await.map_err(unavailable)?;
        let (replicas, current, told) =
            self.by_total(target, usage, || format!("{} metric {name}", text("kind")), metric)?;
        let status =
            json!({"type": "Object", "object": {"metric": metric, "describedObject": object, "current": current}});
        Ok(Proposal { replicas, name: told, status })
    }

    async fn of_external(&self, source: &Value) -> Result<Proposal, String> {
        let metric = &source["metric"];
        let name = metric["name"].as_str().unwrap_or_default();
        let selector = selector_text(metric)?;
        let unavailable = |e| format!("unable to get external metric {}/{name}/{selector}: {e}", self.namespace);
        let usage = self.metrics().external(name, &selector).await.map_err(unavailable)?;
        let (replicas, current, told) = self.by_total(&source["target"], usage, || external_name(metric), metric)?;
        let status = json!({"type": "External", "external": {"metric": metric, "current": current}});
        Ok(Proposal { replicas, name: told, status })
    }

    /// A value for all pods together, as it is or per pod.
    fn by_total(
        &self,
        target: &Value,
        usage: i64,
        name: impl Fn() -> String,
        metric: &Value,
    ) -> Result<(i32, Value, String), String> {
        if let Some(goal) = milli(&target["averageValue"]) {
            let (replicas, share) = replicas::by_share(self.status_replicas, usage, goal, self.tolerances);
            return Ok((replicas, json!({"averageValue": shown(share, "")}), external_name(metric)));
        }
        let Some(goal) = milli(&target["value"]) else {
            return Err("invalid metric source: neither a value target nor an average value target was set".into());
        };
        let replicas = self.pods(false).by_value(self.spec_replicas, usage, goal, self.tolerances)?;
        Ok((replicas, json!({"value": shown(usage, "")}), name()))
    }
}

fn external_name(metric: &Value) -> String {
    let selector = metric.get("selector").filter(|s| !s.is_null()).map_or("nil".into(), Value::to_string);
    format!("external metric {}({selector})", metric["name"].as_str().unwrap_or_default())
}
