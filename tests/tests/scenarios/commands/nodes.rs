//! Commands about machines and what runs on them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use simulate::{Shape, Timing};

use crate::conditions::Selection;
use crate::session::Session;

/// `nodes 3` adds n1, n2 and n3; `nodes a b cpu=4 pods=10` adds two named ones. The input has labels and taints.
pub async fn add(session: &mut Session, words: &[&str], input: &str) -> Result<String, String> {
    let mut shape = Shape::default();
    let mut names = Vec::new();
    for word in words {
        match (word.split_once('='), word.parse::<usize>()) {
            (Some((resource, quantity)), _) => {
                shape.resources.insert(resource.to_owned(), quantity.to_owned());
            }
            (None, Ok(count)) => {
                let first = session.cluster.nodes.len() + 1;
                names.extend((first..first + count).map(|number| format!("n{number}")));
            }
            (None, Err(_)) => names.push((*word).to_owned()),
        }
    }
    if !input.trim().is_empty() {
        let value: Value = serde_yaml::from_str(input).map_err(|e| format!("input: {e}"))?;
        let labels = value["labels"].as_object().into_iter().flatten();
        shape.labels = labels.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect();
        let taints = value.get("taints").cloned().unwrap_or(Value::Array(Vec::new()));
        shape.taints = serde_json::from_value(taints).map_err(|e| format!("taints: {e}"))?;
    }
    for name in &names {
        session.cluster.add_node(name, shape.clone(), Timing::default())?;
    }
    let has_controllers = session.cluster.runs("controllers");
    let ready = |objects: &crate::truth::Objects| {
        let nodes: BTreeMap<&str, &Value> =
            objects.of("nodes").into_iter().filter_map(|n| Some((n["metadata"]["name"].as_str()?, n))).collect();
        let missing =
            names.iter().find(|name| nodes.get(name.as_str()).is_none_or(|node| !takes_pods(node, has_controllers)));
        missing.map_or(Ok(()), |name| Err(format!("node {name} is not ready")))
    };
    session.wait(Duration::from_secs(60), ready).await.map(|()| String::new())
}

/// Ready is not enough: until the controllers have taken the taint of its first moments away, a node gets no pods, and
/// the first one without it would get all pods of a scenario.
fn takes_pods(node: &Value, has_controllers: bool) -> bool {
    const NOT_READY: &str = "node.kubernetes.io/not-ready";
    let taints = node["spec"]["taints"].as_array();
    let is_tainted = taints.into_iter().flatten().any(|taint| taint["key"] == NOT_READY);
    crate::conditions::text(node, "ready") == "True" && !(has_controllers && is_tainted)
}

pub async fn agent(session: &mut Session, verb: &str, name: &str) -> Result<String, String> {
    match verb {
        "stop" => session.cluster.stop_agent(name).await?,
        "start" => session.cluster.start_agent(name)?,
        "restart" => {
            session.cluster.stop_agent(name).await?;
            session.cluster.start_agent(name)?;
        }
        _ => return Err(format!("agent {verb}: stop, start or restart")),
    }
    Ok(String::new())
}

/// Ends the containers of a pod, or of the first that is selected.
pub async fn exit(session: &mut Session, object: &str, code: &str, rest: &[&str]) -> Result<String, String> {
    let code: i32 = code.parse().map_err(|_| format!("{code:?} is no exit code"))?;
    let words: Vec<String> = std::iter::once(&object).chain(rest).map(|w| (*w).to_owned()).collect();
    let found = session.cluster.truth.read(|objects| -> Result<(String, String), String> {
        let selection = Selection::parse(&words, objects, false)?;
        let pod = *selection.matching(objects).first().ok_or("there is no such pod")?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        Ok((node, pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()))
    })?;
    let node = session.cluster.nodes.get(&found.0).ok_or_else(|| format!("the pod's node is {:?}", found.0))?;
    node.runtime.exit(&found.1, code);
    Ok(String::new())
}

/// How many pods run on each node, whatever the API server has of them.
pub fn running(session: &Session) -> Result<String, String> {
    let lines = session.cluster.nodes.iter().map(|(name, node)| {
        let running = node.runtime.all().iter().filter(|(_, c)| c.exited.is_none()).count();
        format!("{name} {running}\n")
    });
    Ok(lines.collect())
}
