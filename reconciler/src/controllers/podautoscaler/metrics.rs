//! Reads the metrics APIs: resource metrics, custom metrics and external metrics. Whoever serves them is found as any
//! API is; without one the error says so.

use std::fmt::Write;

use api::quantity::Quantity;
use api_client::Client;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::replicas::{Measure, Measures};

/// Measures without a window are of this one (`metricServerDefaultMetricWindow`).
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];

pub struct Metrics<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
}

/// A text as a part of a query.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            // Writing to a string can't fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

fn milli(value: &Value) -> Option<i64> {
    Some(Quantity::parse(value.as_str()?).ok()?.milli_value())
}

fn timestamp(item: &Value) -> Timestamp {
    item["timestamp"].as_str().and_then(|t| t.parse().ok()).unwrap_or_default()
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

impl Metrics<'_> {
    /// A resource of each pod, or of one of its containers.
    pub async fn resource(&self, name: &str, selector: &str, container: &str) -> Result<Measures, String> {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods?labelSelector={}",
            self.namespace,
            quoted(selector)
        );
        let list: Value = self
            .client
            .get_path(&path)
            .await
            .map_err(|e| format!("unable to fetch metrics from resource metrics API: {e}"))?;
        if items(&list).is_empty() {
            return Err("no metrics returned from resource metrics API".into());
        }
        Ok(items(&list).iter().filter_map(|item| of_pod(item, name, container)).collect())
    }

    async fn custom(&self, path: &str) -> Result<Value, String> {
        let mut failure = String::new();
        for version in CUSTOM_VERSIONS {
            match self.client.get_path(&format!("/apis/custom.metrics.k8s.io/{version}/{path}")).await {
                Ok(list) => return Ok(list),
                Err(e) => failure = format!("unable to fetch metrics from custom metrics API: {e}"),
            }
        }
        Err(failure)
    }

    /// A custom metric of each pod.
    pub async fn pods(&self, metric: &str, selector: &str, metric_selector: &str) -> Result<Measures, String> {
        let (namespace, selector, narrowed) = (self.namespace, quoted(selector), quoted(metric_selector));
        let path =
            format!("namespaces/{namespace}/pods/*/{metric}?labelSelector={selector}&metricLabelSelector={narrowed}");
        let list = self.custom(&path).await?;
        if items(&list).is_empty() {
            return Err("no metrics returned from custom metrics API".into());
        }
        let measure = |item: &Value| {
            let seconds = item["windowSeconds"].as_i64().map(SignedDuration::from_secs);
            let measure = Measure {
                value: milli(&item["value"])?,
                timestamp: timestamp(item),
                window: seconds.unwrap_or(WINDOW),
            };
            Some((item["describedObject"]["name"].as_str()?.to_owned(), measure))
        };
        Ok(items(&list).iter().filter_map(measure).collect())
    }

    /// A custom metric of one object, given as `resource.group/name`; of the namespace itself for `None`.
    pub async fn object(&self, object: Option<&str>, metric: &str, metric_selector: &str) -> Result<i64, String> {
        let (namespace, narrowed) = (self.namespace, quoted(metric_selector));
        let of = object.unwrap_or("metrics");
        let list = self.custom(&format!("namespaces/{namespace}/{of}/{metric}?metricLabelSelector={narrowed}")).await?;
        let value = items(&list).first().and_then(|item| milli(&item["value"]));
        value.ok_or_else(|| "the custom metrics API server returned no value".into())
    }

    /// The sum of an external metric's values.
    pub async fn external(&self, metric: &str, selector: &str) -> Result<i64, String> {
        let (namespace, selector) = (self.namespace, quoted(selector));
        let path =
            format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}?labelSelector={selector}");
        let list: Value = self
            .client
            .get_path(&path)
            .await
            .map_err(|e| format!("unable to fetch metrics from external metrics API: {e}"))?;
        if items(&list).is_empty() {
            return Err("no metrics returned from external metrics API".into());
        }
        Ok(items(&list).iter().filter_map(|item| milli(&item["value"])).fold(0, i64::saturating_add))
    }
}

/// A pod's measure; none where a container lacks it.
fn of_pod(item: &Value, resource: &str, container: &str) -> Option<(String, Measure)> {
    let all = item["containers"].as_array()?.iter();
    let counted: Vec<&Value> = all.filter(|c| container.is_empty() || c["name"] == container).collect();
    let values: Vec<i64> = counted.iter().map(|c| milli(&c["usage"][resource])).collect::<Option<_>>()?;
    if values.is_empty() {
        return None;
    }
    let window = item["window"].as_str().and_then(|w| w.parse::<SignedDuration>().ok()).unwrap_or(WINDOW);
    let measure = Measure { value: values.iter().sum(), timestamp: timestamp(item), window };
    Some((item["metadata"]["name"].as_str()?.to_owned(), measure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_containers_are_summed() {
        let item = json!({
            "metadata": {"name": "p"}, "timestamp": "2026-01-01T12:00:00Z", "window": "15s",
            "containers": [{"name": "a", "usage": {"cpu": "100m"}}, {"name": "b", "usage": {"cpu": "1", "memory": "1Ki"}}],
        });
        let value = |resource: &str, container: &str| of_pod(&item, resource, container).map(|(_, m)| m.value);
        assert_eq!(value("cpu", ""), Some(1100));
        assert_eq!(value("cpu", "a"), Some(100));
        assert_eq!(value("memory", ""), None, "one container was not measured");
        assert_eq!(value("cpu", "x"), None);
        assert_eq!(of_pod(&item, "cpu", "").unwrap().1.window, SignedDuration::from_secs(15));
        assert_eq!(quoted("app in (a,b)"), "app%20in%20%28a%2Cb%29");
    }
}
