//! Commands that write objects, as a user does with kubectl.

use api::catalogue::Resource;
use http::Method;
use serde_json::{Value, json};

use crate::conditions::Selection;
use crate::requests::{self, JSON, MERGE, STRATEGIC};
use crate::session::Session;
use crate::truth::Objects;

/// Documents of a YAML input.
fn documents(input: &str) -> Result<Vec<Value>, String> {
    let parts = input.split("\n---\n").filter(|part| !part.trim().is_empty());
    parts.map(|part| serde_yaml::from_str(part).map_err(|e| format!("input: {e}"))).collect()
}

fn row(session: &Session, object: &Value) -> Result<std::sync::Arc<Resource>, String> {
    let (group, version) = api::meta::split_api_version(object["apiVersion"].as_str().unwrap_or_default());
    let kind = object["kind"].as_str().unwrap_or_default();
    let server = session.cluster.front.server().ok_or("the server does not run")?;
    // Custom resources may have come.
    let catalogue = server.server().catalogue.load_full();
    session.cluster.truth.set_catalogue(catalogue.clone());
    catalogue.by_kind(group, version, kind).cloned().ok_or_else(|| format!("{group}/{version} {kind} is not served"))
}

fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or("default")
}

/// What a user is told when a request is refused becomes the output: refusals can be expected.
fn told(result: Result<Value, api_client::Error>) -> Result<String, String> {
    match result {
        Ok(_) => Ok(String::new()),
        Err(api_client::Error::Status(status)) => Ok(format!("{} {}: {}", status.code, status.reason, status.message)),
        Err(other) => Err(other.to_string()),
    }
}

pub async fn apply(session: &Session, input: &str) -> Result<String, String> {
    let mut output = String::new();
    for object in documents(input)? {
        let row = row(session, &object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = requests::path(&row, namespace(&object), "", "");
        let client = &session.cluster.user;
        let result = match requests::send(client, Method::POST, &path, JSON, &object).await {
            Err(error) if error.is_already_exists() => {
                let path = requests::path(&row, namespace(&object), name, "");
                requests::send(client, Method::PATCH, &path, MERGE, &object).await
            }
            other => other,
        };
        output.push_str(&told(result)?);
    }
    Ok(output)
}

/// `create KIND NAME [PATH=VALUE...]`: an object that works as it is, with fields set, and the input merged into it.
pub async fn create(session: &Session, kind: &str, name: &str, words: &[&str], input: &str) -> Result<String, String> {
    let row = session.cluster.truth.read(|objects| objects.resource(kind).cloned())?;
    let mut object = json!({ "apiVersion": row.api_version(), "kind": row.kind, "metadata": { "name": name } });
    let (words, namespace) = split_namespace(words)?;
    if row.namespaced() {
        object["metadata"]["namespace"] = namespace.into();
    }
    furnish(&mut object, &row.kind, name);
    merge(&mut object, &fields(&words)?);
    for document in documents(input)? {
        merge(&mut object, &document);
    }
    let path = requests::path(&row, namespace, "", "");
    told(requests::send(&session.cluster.user, Method::POST, &path, JSON, &object).await)
}

/// What the kind needs at least: a selector and a template of one container.
fn furnish(object: &mut Value, kind: &str, name: &str) {
    let labels = json!({ "app": name });
    let pod = json!({ "containers": [{ "name": "c", "image": "app:1" }] });
    let template = json!({ "metadata": { "labels": labels }, "spec": pod });
    object["spec"] = match kind {
        "Deployment" | "ReplicaSet" | "DaemonSet" => {
            json!({ "selector": { "matchLabels": labels }, "template": template })
        }
        "StatefulSet" => {
            json!({ "selector": { "matchLabels": labels }, "serviceName": name, "template": template })
        }
        "ReplicationController" => json!({ "selector": labels, "template": template }),
        "Job" | "CronJob" => {
            let mut template = template;
            template["spec"]["restartPolicy"] = "Never".into();
            let job = json!({ "template": template });
            if kind == "Job" { job } else { json!({ "schedule": "* * * * *", "jobTemplate": { "spec": job } }) }
        }
        "Pod" => {
            object["metadata"]["labels"] = labels;
            pod
        }
        "Service" => json!({ "selector": labels, "ports": [{ "port": 80 }] }),
        "PodDisruptionBudget" => json!({ "selector": { "matchLabels": labels } }),
        _ => return,
    };
}

/// Takes `-n NAMESPACE` out of the words.
fn split_namespace<'a>(words: &[&'a str]) -> Result<(Vec<&'a str>, &'a str), String> {
    let Some(at) = words.iter().position(|word| *word == "-n") else { return Ok((words.to_vec(), "default")) };
    let namespace = words.get(at + 1).ok_or("-n needs a namespace")?;
    Ok(([&words[..at], &words[at + 2..]].concat(), namespace))
}

/// `PATH=VALUE` words as one object. Values are YAML. A path that starts with none of metadata, spec, status, data
/// starts in spec.
fn fields(words: &[&str]) -> Result<Value, String> {
    let mut object = json!({});
    for word in words {
        let (path, text) = word.split_once('=').ok_or_else(|| format!("{word:?} is not PATH=VALUE"))?;
        let value: Value = serde_yaml::from_str(text).map_err(|e| format!("{word}: {e}"))?;
        let mut segments = segments(path);
        if !["metadata", "spec", "status", "data"].contains(&segments[0]) {
            segments.insert(0, "spec");
        }
        let nested = segments.iter().rev().fold(value, |value, segment| json!({ *segment: value }));
        merge(&mut object, &nested);
    }
    Ok(object)
}

/// Dots separate; `[...]` keeps dots, as in `metadata.annotations[a.b/c]`.
fn segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for (index, part) in path.split('[').enumerate() {
        match part.split_once(']').filter(|_| index > 0) {
            Some((literal, rest)) => {
                segments.push(literal);
                segments.extend(rest.split('.').filter(|s| !s.is_empty()));
            }
            None => segments.extend(part.split('.').filter(|s| !s.is_empty())),
        }
    }
    segments
}

/// Objects are merged by key; lists of named elements by name; everything else is replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) if from.iter().all(|i| i["name"].is_string()) => {
            for item in from {
                match into.iter_mut().find(|i| i["name"] == item["name"]) {
                    Some(present) => merge(present, item),
                    None => into.push(item.clone()),
                }
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// One object that exists, and its path.
fn find(session: &Session, object: &str, rest: &[&str]) -> Result<(Selection, String, Value), String> {
    let words: Vec<String> = std::iter::once(&object).chain(rest).map(|w| (*w).to_owned()).collect();
    session.cluster.truth.read(|objects: &Objects| {
        let selection = Selection::parse(&words, objects, true)?;
        let found = *selection.matching(objects).first().ok_or_else(|| format!("there is no {object}"))?;
        let name = found["metadata"]["name"].as_str().unwrap_or_default();
        let path = requests::path(&selection.resource, namespace(found), name, "");
        Ok((selection, path, found.clone()))
    })
}

pub async fn patch(session: &Session, object: &str, words: &[&str], input: &str) -> Result<String, String> {
    let (words, namespace) = split_namespace(words)?;
    let (selection, path, _) = find(session, object, &["-n", namespace])?;
    let mut patch = fields(&words)?;
    for document in documents(input)? {
        merge(&mut patch, &document);
    }
    let kind = if selection.resource.custom { MERGE } else { STRATEGIC };
    told(requests::send(&session.cluster.user, Method::PATCH, &path, kind, &patch).await)
}

pub async fn patch_status(session: &Session, object: &str, words: &[&str], input: &str) -> Result<String, String> {
    let (words, namespace) = split_namespace(words)?;
    let (selection, path, _) = find(session, object, &["-n", namespace])?;
    let mut patch = fields(&words)?;
    for document in documents(input)? {
        merge(&mut patch, &document);
    }
    let path = format!("{path}/status");
    let kind = if selection.resource.custom { MERGE } else { STRATEGIC };
    told(requests::send(&session.cluster.user, Method::PATCH, &path, kind, &patch).await)
}

/// A new image for the first container of the template.
pub async fn image(session: &Session, object: &str, image: &str, rest: &[&str]) -> Result<String, String> {
    let (_, path, found) = find(session, object, rest)?;
    let name = found["spec"]["template"]["spec"]["containers"][0]["name"].clone();
    let patch = json!({ "spec": { "template": { "spec": { "containers": [{ "name": name, "image": image }] } } } });
    told(requests::send(&session.cluster.user, Method::PATCH, &path, STRATEGIC, &patch).await)
}

pub async fn scale(session: &Session, object: &str, count: &str, rest: &[&str]) -> Result<String, String> {
    let count: i32 = count.parse().map_err(|_| format!("{count:?} is no count"))?;
    let (_, path, _) = find(session, object, rest)?;
    let patch = json!({ "spec": { "replicas": count } });
    told(requests::send(&session.cluster.user, Method::PATCH, &format!("{path}/scale"), MERGE, &patch).await)
}

/// `delete KIND/NAME [-n NAMESPACE] [cascade=background|foreground|orphan] [grace=SECONDS]`; without a name, the
/// first that is selected.
pub async fn delete(session: &Session, object: &str, words: &[&str]) -> Result<String, String> {
    let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
    let mut rest = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some(("cascade", policy)) => {
                let policy = match policy {
                    "background" => "Background",
                    "foreground" => "Foreground",
                    "orphan" => "Orphan",
                    other => return Err(format!("cascade={other}: background, foreground or orphan")),
                };
                options["propagationPolicy"] = policy.into();
            }
            Some(("grace", seconds)) => {
                options["gracePeriodSeconds"] = seconds.parse::<i64>().map_err(|e| format!("{word}: {e}"))?.into();
            }
            _ => rest.push(*word),
        }
    }
    let (_, path, _) = find(session, object, &rest)?;
    told(requests::send(&session.cluster.user, Method::DELETE, &path, JSON, &options).await)
}

pub async fn evict(session: &Session, object: &str, rest: &[&str]) -> Result<String, String> {
    let (_, path, found) = find(session, object, rest)?;
    let metadata = json!({ "name": found["metadata"]["name"], "namespace": found["metadata"]["namespace"] });
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata });
    let result =
        requests::send(&session.cluster.user, Method::POST, &format!("{path}/eviction"), JSON, &eviction).await;
    told(result)
}

/// `kubectl rollout undo deployment/NAME`: the template of the revision before the newest.
pub async fn undo(session: &Session, object: &str, rest: &[&str]) -> Result<String, String> {
    let (_, path, found) = find(session, object, rest)?;
    let revision = |set: &Value| {
        let text = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
        text.and_then(|t| t.parse::<u64>().ok()).unwrap_or_default()
    };
    let mut sets: Vec<Value> = session.cluster.truth.read(|objects| {
        let owned = |set: &&Value| set["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"];
        objects.of("replicasets").into_iter().filter(owned).cloned().collect()
    });
    sets.sort_by_key(|set| std::cmp::Reverse(revision(set)));
    let mut template = sets.get(1).ok_or("no revision to go back to")?["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    let patch = json!([{ "op": "replace", "path": "/spec/template", "value": template }]);
    let kind = "application/json-patch+json";
    told(requests::send(&session.cluster.user, Method::PATCH, &path, kind, &patch).await)
}
