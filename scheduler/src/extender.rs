//! Programs that have a say in decisions, over HTTP (`extender/v1`): they drop nodes, score them, bind, and choose
//! victims. Requests and answers have upstream's form.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Extender;
use crate::objects::Pod;

/// Largest answer that is read: a list of nodes of a large cluster fits.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("extender {url}: no answer within {timeout:?}")]
    Timeout { url: String, timeout: Duration },
    #[error("extender {url}: {detail}")]
    Transport { url: String, detail: String },
    #[error("extender {url}: status {status}")]
    Status { url: String, status: u16 },
    #[error("extender {url}: {source}")]
    Answer { url: String, source: serde_json::Error },
    /// It answered that it failed.
    #[error("{0}")]
    Refused(String),
}

/// What a filter answers (`ExtenderFilterResult`).
#[derive(Debug, Default, PartialEq)]
pub struct Filtered {
    pub fitting: Vec<String>,
    /// With reasons; fewer pods could help there.
    pub failed: BTreeMap<String, String>,
    pub failed_for_good: BTreeMap<String, String>,
}

/// Victims per node by uid, and how many break their budgets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Victims {
    #[serde(rename = "pods", default, deserialize_with = "api_client::nullable")]
    pub pods: Vec<Victim>,
    #[serde(rename = "numPDBViolations", default)]
    pub violations: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Victim {
    pub uid: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FilterAnswer {
    nodes: Option<NodeList>,
    nodenames: Option<Vec<String>>,
    #[serde(rename = "failedNodes", deserialize_with = "api_client::nullable")]
    failed_nodes: BTreeMap<String, String>,
    #[serde(rename = "failedAndUnresolvableNodes", deserialize_with = "api_client::nullable")]
    failed_for_good: BTreeMap<String, String>,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeList {
    items: Vec<NodeName>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeName {
    metadata: Name,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Name {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Score {
    host: String,
    score: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BindAnswer {
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PreemptAnswer {
    #[serde(deserialize_with = "api_client::nullable")]
    node_name_to_meta_victims: BTreeMap<String, Victims>,
}

impl Extender {
    /// Whether the pod is its business (`IsInterested`).
    pub fn is_interested(&self, pod: &Pod) -> bool {
        self.managed.is_empty() || pod.request.exact.scalar.keys().any(|name| self.managed.contains_key(name))
    }
}

/// Speaks to extenders. Cheap to clone.
#[derive(Clone)]
pub struct Speaker {
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Default for Speaker {
    fn default() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http() }
    }
}

impl Speaker {
    /// Which of the nodes are left. `nodes`: their names, or the objects (a NodeList) where the extender needs those.
    pub async fn filter(&self, extender: &Extender, pod: &Value, nodes: &Nodes<'_>) -> Result<Filtered, Error> {
        let answer: FilterAnswer = self.post(extender, &extender.filter_verb, &nodes.with(pod)).await?;
        if !answer.error.is_empty() {
            return Err(Error::Refused(answer.error));
        }
        let of_list = answer.nodes.map(|list| list.items.into_iter().map(|node| node.metadata.name).collect());
        Ok(Filtered {
            fitting: answer.nodenames.or(of_list).unwrap_or_default(),
            failed: answer.failed_nodes,
            failed_for_good: answer.failed_for_good,
        })
    }

    /// Scores by node, up to 10 each.
    pub async fn prioritize(
        &self,
        extender: &Extender,
        pod: &Value,
        nodes: &Nodes<'_>,
    ) -> Result<BTreeMap<String, i64>, Error> {
        let scores: Vec<Score> = self.post(extender, &extender.prioritize_verb, &nodes.with(pod)).await?;
        Ok(scores.into_iter().map(|s| (s.host, s.score)).collect())
    }

    pub async fn bind(&self, extender: &Extender, pod: &Pod, node: &str) -> Result<(), Error> {
        let binding = json!({
            "podName": pod.metadata.name, "podNamespace": pod.metadata.namespace, "podUID": pod.metadata.uid,
            "node": node,
        });
        let answer: BindAnswer = self.post(extender, &extender.bind_verb, &binding).await?;
        if answer.error.is_empty() { Ok(()) } else { Err(Error::Refused(answer.error)) }
    }

    /// The nodes and victims that are left of `victims`.
    pub async fn preempt(
        &self,
        extender: &Extender,
        pod: &Value,
        victims: &BTreeMap<String, Victims>,
    ) -> Result<BTreeMap<String, Victims>, Error> {
        let arguments = json!({ "pod": pod, "nodeNameToMetaVictims": victims });
        let answer: PreemptAnswer = self.post(extender, &extender.preempt_verb, &arguments).await?;
        Ok(answer.node_name_to_meta_victims)
    }

    async fn post<T: DeserializeOwned>(&self, extender: &Extender, verb: &str, body: &Value) -> Result<T, Error> {
        let url = format!("{}/{verb}", extender.url_prefix);
        match tokio::time::timeout(extender.timeout, self.exchange(&url, body)).await {
            Ok(answer) => serde_json::from_slice(&answer?).map_err(|source| Error::Answer { url, source }),
            Err(_) => Err(Error::Timeout { url, timeout: extender.timeout }),
        }
    }

    async fn exchange(&self, url: &str, body: &Value) -> Result<Bytes, Error> {
        let fault = |detail: String| Error::Transport { url: url.to_owned(), detail };
        let request = http::Request::post(url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|e| fault(e.to_string()))?;
        let answer = self.client.request(request).await.map_err(|e| fault(e.to_string()))?;
        if answer.status() != http::StatusCode::OK {
            return Err(Error::Status { url: url.to_owned(), status: answer.status().as_u16() });
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|e| fault(e.to_string()))?.to_bytes())
    }
}

/// The nodes a question is about.
pub enum Nodes<'a> {
    Names(&'a [String]),
    /// A NodeList.
    Objects(Value),
}

impl Nodes<'_> {
    /// `ExtenderArgs`.
    fn with(&self, pod: &Value) -> Value {
        match self {
            Self::Names(names) => json!({ "pod": pod, "nodes": null, "nodenames": names }),
            Self::Objects(nodes) => json!({ "pod": pod, "nodes": nodes, "nodenames": null }),
        }
    }
}

#[cfg(test)]
mod tests;
