//! Commands that look: they wait for a state, require one, or print one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_client::transport::Body;
use api_client::{Client, Error, Transport};
use bytes::Bytes;
use http::{Request, Response};
use serde_json::Value;

use super::duration;
use crate::conditions::{Count, Selection, describe, text};
use crate::session::{PATIENCE, Session};
use crate::truth::Objects;

/// What `wait`, `expect` and `always` check: a count of objects, or conditions on them.
struct Check {
    count: Option<Count>,
    selection: Selection,
}

impl Check {
    fn parse(words: &[String], objects: &Objects) -> Result<Self, String> {
        let count = words.first().and_then(|word| Count::parse(word));
        let words = if count.is_some() { &words[1..] } else { words };
        Ok(Self { count, selection: Selection::parse(words, objects, false)? })
    }

    fn holds(&self, objects: &Objects) -> Result<(), String> {
        let Some(count) = self.count else { return self.selection.holds(objects) };
        let found = self.selection.matching(objects);
        if count.holds(found.len()) {
            return Ok(());
        }
        let plural = &self.selection.resource.plural;
        Err(format!("there are {} such {plural}; all {plural}:\n{}", found.len(), list(objects, plural)))
    }
}

/// Every object of a kind, a line each, for messages.
pub fn list(objects: &Objects, kind: &str) -> String {
    let lines: Vec<String> = objects.of(kind).into_iter().map(brief).collect();
    lines.join("\n")
}

/// One line about an object, for messages.
fn brief(object: &Value) -> String {
    let deleting = if object["metadata"].get("deletionTimestamp").is_some() { " deleting" } else { "" };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let mut line = format!("  {namespace}/{}{deleting}", text(object, "name"));
    for path in default_fields(object["kind"].as_str().unwrap_or_default()) {
        line.push_str(&format!(" {path}={}", text(object, path)));
    }
    line
}

/// `[within TIME] COUNT KIND ...` or `[within TIME] KIND[/NAME] CONDITION...`.
pub async fn wait(session: &Session, words: &[String]) -> Result<String, String> {
    let (limit, words) = match words {
        [within, time, rest @ ..] if within == "within" => (duration(time)?, rest),
        _ => (PATIENCE, words),
    };
    let check = session.cluster.truth.read(|objects| Check::parse(words, objects))?;
    session.wait(limit, |objects| check.holds(objects)).await.map(|()| String::new())
}

pub fn expect(session: &Session, words: &[String]) -> Result<String, String> {
    session.cluster.truth.read(|objects| Check::parse(words, objects)?.holds(objects)).map(|()| String::new())
}

pub fn always(session: &Session, words: &[String]) -> Result<String, String> {
    let check = session.cluster.truth.read(|objects| Check::parse(words, objects))?;
    let known_by = format!("always {}", words.join(" "));
    session.cluster.truth.always((known_by, Box::new(move |objects| check.holds(objects))))?;
    Ok(String::new())
}

/// `show KIND[/NAME] [FIELD...]`: one line per object, equal ones counted; a named one without fields in full.
pub fn show(session: &Session, words: &[String]) -> Result<String, String> {
    session.cluster.truth.read(|objects| {
        let selection = Selection::parse(words, objects, true)?;
        let found = selection.matching(objects);
        if selection.name.is_some() && selection.rest.is_empty() {
            return Ok(found.first().map_or("none".to_owned(), |object| describe(object)));
        }
        let default = default_fields(&selection.resource.kind);
        let fields: Vec<&str> = match selection.rest.as_slice() {
            [] => default.to_vec(),
            fields => fields.iter().map(String::as_str).collect(),
        };
        let hashes = hashes(objects);
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        for object in found {
            let mut line = stable_name(object, &hashes);
            for field in &fields {
                line.push_str(&format!("  {field}={}", stable(&text(object, field), &hashes)));
            }
            *lines.entry(line).or_default() += 1;
        }
        let print = |(line, count): (&String, &usize)| {
            if *count == 1 { format!("{line}\n") } else { format!("{line}  x{count}\n") }
        };
        Ok(lines.iter().map(print).collect())
    })
}

/// Simulated nodes have no logs, and a simulation no network that they could be asked over.
struct WithoutLogs(Client);

#[async_trait::async_trait]
impl Transport for WithoutLogs {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        if request.uri().path().ends_with("/log") {
            return Err(Error::Limit { attempted: request.uri().to_string(), limit: "no logs" });
        }
        self.0.send(request).await
    }
}

/// `why KIND/NAME [-n NAMESPACE]`, or `why KIND CONDITION...` for the first that fits: what `keelson why` prints.
pub async fn why(session: &Session, words: &[String]) -> Result<String, String> {
    let namespace =
        words.iter().position(|w| w == "-n").and_then(|at| words.get(at + 1)).map_or("default", String::as_str);
    let target = match words.first() {
        Some(word) if word.contains('/') => ::why::Target::parse(std::slice::from_ref(word), namespace),
        _ => session.cluster.truth.read(|objects| {
            let selection = Selection::parse(words, objects, false)?;
            let found = *selection.matching(objects).first().ok_or("there is no such object")?;
            let words = [text(found, "kind"), text(found, "name")];
            Ok::<_, String>(::why::Target::parse(&words, found["metadata"]["namespace"].as_str().unwrap_or_default()))
        })?,
    };
    let target = target.ok_or("why which object?")?;
    let client = Client::new(Arc::new(WithoutLogs(session.cluster.user.clone())), "why");
    let explanation = ::why::ask(&client, &target, jiff::Timestamp::now()).await;
    let explanation = explanation.map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))?;
    let hashes = session.cluster.truth.read(made_up);
    Ok(stable(&explanation.to_string(), &hashes))
}

fn default_fields(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &["phase", "ready", "nodeName"],
        "Deployment" => &["spec.replicas", "updatedReplicas", "availableReplicas"],
        "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
            &["spec.replicas", "status.replicas", "readyReplicas"]
        }
        "DaemonSet" => &["desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable"],
        "Job" => &["active", "succeeded", "failed"],
        "Node" => &["ready", "taints"],
        "Event" => &["type", "reason", "message"],
        _ => &[],
    }
}

/// Template hashes with what stands for them: the revision of their replica set.
fn hashes(objects: &Objects) -> BTreeMap<String, String> {
    let sets = objects.of("replicasets");
    let named = sets.into_iter().filter_map(|set| {
        let hash = set["metadata"]["labels"]["pod-template-hash"].as_str()?;
        let revision = set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str()?;
        Some((hash.to_owned(), format!("#{revision}")))
    });
    named.collect()
}

/// [`hashes`], and whole names that were made up, with the beginning that was asked for.
fn made_up(objects: &Objects) -> BTreeMap<String, String> {
    let mut names = hashes(objects);
    for kind in ["pods", "jobs", "replicasets"] {
        names.extend(objects.of(kind).into_iter().filter_map(|object| {
            let prefix = object["metadata"]["generateName"].as_str()?;
            Some((object["metadata"]["name"].as_str()?.to_owned(), format!("{prefix}*")))
        }));
    }
    names
}

/// A name without what was made up: hashes by their revision, random ends as `*`.
fn stable_name(object: &Value, hashes: &BTreeMap<String, String>) -> String {
    let metadata = &object["metadata"];
    let name = match (metadata["generateName"].as_str(), object["kind"].as_str()) {
        (Some(prefix), _) => format!("{prefix}*"),
        // NAME.TIME
        (None, Some("Event")) => {
            let name = object["involvedObject"]["name"].as_str().unwrap_or_default();
            return stable(name, hashes);
        }
        (None, _) => metadata["name"].as_str().unwrap_or_default().to_owned(),
    };
    stable(&name, hashes)
}

fn stable(text: &str, hashes: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for (hash, stands) in hashes {
        // A pod's whole name, as messages have it: the random end goes too.
        while let Some(at) = text.find(&format!("-{hash}-")) {
            let end = at + hash.len() + 2;
            let random = text[end..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '*').count();
            text.replace_range(at..end + random, &format!("-{stands}-*"));
        }
        text = text.replace(hash, stands);
    }
    text
}

/// `writes TIME MOST [KIND]`: lets time pass, in which at most so many objects may be written.
pub async fn writes(session: &Session, time: &str, most: &str, rest: &[String]) -> Result<String, String> {
    let most: u64 = most.parse().map_err(|_| format!("{most:?} is no number"))?;
    let prefix = match rest.first() {
        Some(kind) => session.cluster.truth.read(|o| o.resource(kind).map(|r| format!("{}/", r.storage_prefix())))?,
        None => "/registry/".to_owned(),
    };
    let before = session.cluster.truth.writes();
    let time: Duration = duration(time)?;
    tokio::time::sleep(time).await;
    let heartbeats = |key: &str| rest.is_empty() && key.starts_with("/registry/leases/");
    let mut new: Vec<(String, u64)> = Vec::new();
    for (key, count) in session.cluster.truth.writes() {
        let count = count - before.get(&key).copied().unwrap_or_default();
        if count > 0 && key.starts_with(&prefix) && !heartbeats(&key) {
            new.push((key, count));
        }
    }
    let sum: u64 = new.iter().map(|(_, count)| count).sum();
    if sum <= most { Ok(String::new()) } else { Err(format!("{sum} writes: {new:?}")) }
}
