//! `metrics.k8s.io`: what nodes and pods use just now, as `kubectl top` and autoscalers read it. Nothing is stored and
//! nothing runs while nobody asks: a request reads the nodes that it concerns ([`collector`]), and what was read serves
//! all for some seconds.

mod collector;
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::selector::LabelSelector;
use api::status::Status;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::body::Body;
use crate::cache::Item;
use crate::encode::{self, Form};
use crate::endpoint::{Answer, Handler};
use crate::request::Call;
use crate::server::Server;
use crate::special::Special;

pub use collector::Collector;
use usage::{Measured, Window};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";

pub static SPECIAL: &[Special] = &[
    row("nodes", |server, call, _| Box::pin(async move { nodes(&server, &call).await }) as Answer),
    row("pods", |server, call, _| Box::pin(async move { pods(&server, &call).await }) as Answer),
];

const fn row(resource: &'static str, handler: Handler) -> Special {
    Special { group: GROUP, resource, subresource: "", handler }
}

/// What a request asks for: one object by name, or those that a selector matches.
struct Asked {
    name: String,
    selector: LabelSelector,
}

impl Asked {
    fn of(server: &Server, call: &Call) -> Result<Self, Status> {
        if !matches!(call.info.verb.as_str(), "get" | "list") {
            return Err(Status::method_not_allowed());
        }
        if !server.options.resource_metrics {
            return Err(Status::no_such_path());
        }
        let text = call.query.get("labelSelector").unwrap_or_default();
        let selector = LabelSelector::parse(text).map_err(|e| Status::bad_request(e.to_string()))?;
        Ok(Self { name: call.info.name.clone(), selector })
    }

    fn selects(&self, item: &Item) -> bool {
        self.selector.matches_with(|key| item.label(key))
    }
}

async fn nodes(server: &Arc<Server>, call: &Call) -> Result<Response<Body>, Status> {
    let asked = Asked::of(server, call)?;
    server.cache.fresh().await?;
    let known = known(server, "nodes", "", &asked)?;
    let names = known.iter().map(|(name, _)| name.clone()).collect();
    let windows = server.resource_metrics.read(server, names).await;
    let of = |(name, item): &(String, Arc<Item>)| {
        let measured = windows.get(name)?.node()?;
        Some(object("NodeMetrics", "", name, item, &measured, json!({"usage": measured.usage()})))
    };
    answer(server, call, "nodes", known.iter().filter_map(of).collect())
}

async fn pods(server: &Arc<Server>, call: &Call) -> Result<Response<Body>, Status> {
    let asked = Asked::of(server, call)?;
    server.cache.fresh().await?;
    let known = known(server, "pods", &call.info.namespace, &asked)?;
    let node = |item: &Item| item.field("spec.nodeName").filter(|name| !name.is_empty()).map(str::to_owned);
    let names: BTreeSet<String> = known.iter().filter_map(|(_, item)| node(item)).collect();
    let windows = server.resource_metrics.read(server, names).await;
    let of = |(key, item): &(String, Arc<Item>)| {
        let (namespace, name) = key.split_once('/')?;
        let containers = windows.get(&node(item)?)?.pod(namespace, name)?;
        // The shortest of the windows is what all of the pod's numbers hold for.
        let measured = containers.iter().map(|(_, measured)| *measured).min_by_key(|m| m.window)?;
        let containers: Vec<Value> =
            containers.iter().map(|(name, measured)| json!({"name": name, "usage": measured.usage()})).collect();
        Some(object("PodMetrics", namespace, name, item, &measured, json!({"containers": containers})))
    };
    answer(server, call, "pods", known.iter().filter_map(of).collect())
}

/// The objects that the request is about, by cache key.
fn known(server: &Server, resource: &str, namespace: &str, asked: &Asked) -> Result<Vec<(String, Arc<Item>)>, Status> {
    let Some((_, cache)) = server.resource("", resource) else { return Ok(Vec::new()) };
    let snapshot = cache.snapshot();
    let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    if asked.name.is_empty() {
        let selected = snapshot.range(&prefix, "").filter(|(_, item)| asked.selects(item));
        return Ok(selected.map(|(key, item)| (key.to_string(), item.clone())).collect());
    }
    let key = format!("{prefix}{}", asked.name);
    let found = snapshot.get(&key).ok_or_else(|| Status::not_found(GROUP, resource, &asked.name))?;
    Ok(vec![(key, found.clone())])
}

fn object(kind: &str, namespace: &str, name: &str, of: &Item, measured: &Measured, content: Value) -> Value {
    let labels: BTreeMap<&str, &str> = of.labels().collect();
    let time = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut object = content;
    object["kind"] = kind.into();
    object["apiVersion"] = format!("{GROUP}/{VERSION}").into();
    object["metadata"] = json!({"name": name, "creationTimestamp": time(Timestamp::now())});
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    if !labels.is_empty() {
        object["metadata"]["labels"] = json!(labels);
    }
    object["timestamp"] = time(measured.at).into();
    object["window"] = measured.window_text().into();
    object
}

fn answer(server: &Server, call: &Call, resource: &str, mut items: Vec<Value>) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(call)?;
    let catalogue = server.catalogue.load_full();
    let row = catalogue.find(GROUP, VERSION, resource).ok_or_else(Status::no_such_path)?;
    if call.info.name.is_empty() {
        return encode::object_list(items, row, &form);
    }
    match items.pop() {
        Some(only) => encode::object(StatusCode::OK, &only, row, &form),
        // It exists, and its node does not tell: another moment it may.
        None => Err(Status::not_found(GROUP, resource, &call.info.name)),
    }
}

/// What was read, by node.
type Windows = HashMap<String, Window>;
