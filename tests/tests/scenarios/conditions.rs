//! What scenarios say about objects: `status.replicas=3`, `ready=True`, `rolled-out`, `-l app=web`.
//!
//! A path is looked up in the object, then in its status, then in its spec. In a list it picks an element by index,
//! or by the value of its `type`, `name` or `key`.

use api::catalogue::Resource;
use serde_json::Value;

use crate::truth::Objects;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Equal,
    Different,
    AtLeast,
    AtMost,
    More,
    Less,
    Containing,
}

/// The operators as they are written; longer ones first.
const OPERATORS: [(&str, Is); 7] = [
    ("!=", Is::Different),
    (">=", Is::AtLeast),
    ("<=", Is::AtMost),
    ("~", Is::Containing),
    ("=", Is::Equal),
    (">", Is::More),
    ("<", Is::Less),
];

/// One thing said about one object.
#[derive(Clone, Debug)]
enum Condition {
    Exists,
    Gone,
    RolledOut,
    Field { path: String, is: Is, value: String },
}

impl Condition {
    fn parse(word: &str) -> Result<Self, String> {
        match word {
            "exists" => return Ok(Self::Exists),
            "gone" => return Ok(Self::Gone),
            "rolled-out" => return Ok(Self::RolledOut),
            _ => {}
        }
        let found = OPERATORS.iter().filter_map(|(text, is)| word.find(text).map(|at| (at, *text, *is)));
        let Some((at, text, is)) = found.min_by_key(|(at, text, _)| (*at, std::cmp::Reverse(text.len()))) else {
            return Err(format!("{word:?} is no condition: exists, gone, rolled-out, or PATH=VALUE"));
        };
        Ok(Self::Field { path: word[..at].to_owned(), is, value: word[at + text.len()..].to_owned() })
    }

    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Gone, object) => object.is_none(),
            (Self::Exists, object) => object.is_some(),
            (_, None) => false,
            (Self::RolledOut, Some(object)) => rolled_out(object),
            (Self::Field { path, is, value }, Some(object)) => compare(&text(object, path), *is, value),
        }
    }
}

fn compare(found: &str, is: Is, wanted: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    // What is absent counts as zero of something.
    let ordered = number(if found == NONE { "0" } else { found }).zip(number(wanted)).map(|(f, w)| f.cmp(&w));
    match is {
        Is::Equal => found == wanted,
        Is::Different => found != wanted,
        Is::Containing => found.contains(wanted),
        Is::AtLeast => ordered.is_some_and(std::cmp::Ordering::is_ge),
        Is::AtMost => ordered.is_some_and(std::cmp::Ordering::is_le),
        Is::More => ordered.is_some_and(std::cmp::Ordering::is_gt),
        Is::Less => ordered.is_some_and(std::cmp::Ordering::is_lt),
    }
}

/// How an absent field is written.
pub const NONE: &str = "none";

/// The field at a path, as text.
pub fn text(object: &Value, path: &str) -> String {
    match path {
        "ready" => return text(object, "status.conditions.Ready.status"),
        "deleting" => return object.pointer("/metadata/deletionTimestamp").is_some().to_string(),
        "name" => return text(object, "metadata.name"),
        "owner" => return text(object, "metadata.ownerReferences.0.name"),
        _ => {}
    }
    let segments: Vec<&str> = split(path);
    let places = [Some(object), object.get("status"), object.get("spec"), object.get("metadata")];
    let found = places.into_iter().flatten().find_map(|place| walk(place, &segments));
    match found {
        None | Some(Value::Null) => NONE.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}

/// Dots separate; `[...]` keeps dots, as in `metadata.annotations[a.b/c]`.
fn split(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    for (index, part) in path.split('[').enumerate() {
        let (literal, rest) = match (index, part.split_once(']')) {
            (0, _) | (_, None) => (None, part),
            (_, Some((literal, rest))) => (Some(literal), rest),
        };
        segments.extend(literal);
        segments.extend(rest.split('.').filter(|s| !s.is_empty()));
    }
    segments
}

fn walk<'a>(value: &'a Value, segments: &[&str]) -> Option<&'a Value> {
    let Some((first, rest)) = segments.split_first() else { return Some(value) };
    let next = match value {
        Value::Object(map) => map.get(*first)?,
        Value::Array(items) => match first.parse::<usize>() {
            Ok(index) => items.get(index)?,
            Err(_) => items.iter().find(|i| ["type", "name", "key"].iter().any(|k| i[*k] == **first))?,
        },
        _ => return None,
    };
    walk(next, rest)
}

/// As `kubectl rollout status` sees it.
pub fn rolled_out(object: &Value) -> bool {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |value: &Value| value.as_i64().unwrap_or_default();
    let observed = count(&status["observedGeneration"]) >= count(&object["metadata"]["generation"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    observed
        && match object["kind"].as_str() {
            Some("DaemonSet") => {
                let wanted = count(&status["desiredNumberScheduled"]);
                count(&status["updatedNumberScheduled"]) == wanted && count(&status["numberAvailable"]) == wanted
            }
            Some("StatefulSet") => {
                let partition = count(&spec["updateStrategy"]["rollingUpdate"]["partition"]);
                count(&status["readyReplicas"]) == wanted
                    && count(&status["replicas"]) == wanted
                    && count(&status["updatedReplicas"]) >= wanted - partition
            }
            Some("Deployment") => {
                count(&status["updatedReplicas"]) == wanted
                    && count(&status["replicas"]) == wanted
                    && count(&status["availableReplicas"]) == wanted
            }
            _ => count(&status["readyReplicas"]) == wanted && count(&status["replicas"]) == wanted,
        }
}

/// Some objects of one resource: one by name, or all that fit.
#[derive(Clone, Debug)]
pub struct Selection {
    pub resource: std::sync::Arc<Resource>,
    pub namespace: Option<String>,
    /// `Some` for `KIND/NAME`.
    pub name: Option<String>,
    labels: Vec<(String, String)>,
    conditions: Vec<Condition>,
    /// Other words, for the command to read.
    pub rest: Vec<String>,
}

impl Selection {
    /// Reads `KIND[/NAME] [-n NAMESPACE|-A] [-l K=V,...] [CONDITION...]`. Words that are no condition are kept in
    /// `rest` if `lenient`.
    pub fn parse(words: &[String], objects: &Objects, lenient: bool) -> Result<Self, String> {
        let Some(first) = words.first() else { return Err("which objects?".to_owned()) };
        let (kind, name) = first.split_once('/').map_or((first.as_str(), None), |(k, n)| (k, Some(n.to_owned())));
        let resource = std::sync::Arc::clone(objects.resource(kind)?);
        let namespace = resource.namespaced().then(|| "default".to_owned());
        let (labels, conditions) = (Vec::new(), Vec::new());
        let mut this = Self { resource, namespace, name, labels, conditions, rest: Vec::new() };
        let mut words = words[1..].iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-A" => this.namespace = None,
                "-n" => {
                    let namespace = words.next().ok_or("-n needs a namespace")?.clone();
                    this.namespace = this.resource.namespaced().then_some(namespace);
                }
                "-l" => {
                    let selector = words.next().ok_or("-l needs KEY=VALUE")?;
                    let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
                    this.labels.extend(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
                }
                word => match Condition::parse(word) {
                    Ok(condition) => this.conditions.push(condition),
                    Err(_) if lenient => this.rest.push(word.to_owned()),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(this)
    }

    fn selects(&self, object: &Value) -> bool {
        let namespace = object["metadata"]["namespace"].as_str();
        let labels = &object["metadata"]["labels"];
        self.namespace.as_deref().is_none_or(|n| namespace == Some(n))
            && self.labels.iter().all(|(key, value)| labels[key] == **value)
    }

    /// The objects that are selected and of which all conditions hold.
    pub fn matching<'a>(&self, objects: &'a Objects) -> Vec<&'a Value> {
        let all = objects.all(&self.resource).filter(|o| self.selects(o));
        let named = all.filter(|o| self.name.as_deref().is_none_or(|name| o["metadata"]["name"] == *name));
        named.filter(|o| self.conditions.iter().all(|c| c.holds(Some(o)))).collect()
    }

    /// The object that `KIND/NAME` names.
    pub fn one<'a>(&self, objects: &'a Objects) -> Option<&'a Value> {
        objects.get(&self.resource, self.namespace.as_deref().unwrap_or_default(), self.name.as_deref()?)
    }

    /// Whether all conditions hold: of the one that is named, or of every object that is selected.
    pub fn holds(&self, objects: &Objects) -> Result<(), String> {
        if self.name.is_some() {
            let object = self.one(objects);
            return match self.conditions.iter().all(|c| c.holds(object)) {
                true => Ok(()),
                false => Err(object.map_or("it is not there".to_owned(), describe)),
            };
        }
        let wrong = objects
            .all(&self.resource)
            .filter(|o| self.selects(o))
            .find(|o| !self.conditions.iter().all(|c| c.holds(Some(o))));
        wrong.map_or(Ok(()), |object| Err(describe(object)))
    }
}

/// How many objects there must be: `3`, `>=2`, `<=4`.
#[derive(Clone, Copy, Debug)]
pub struct Count(Is, i64);

impl Count {
    pub fn parse(word: &str) -> Option<Self> {
        let operators = [(">=", Is::AtLeast), ("<=", Is::AtMost), (">", Is::More), ("<", Is::Less), ("", Is::Equal)];
        operators.into_iter().find_map(|(text, is)| Some(Self(is, word.strip_prefix(text)?.parse().ok()?)))
    }

    pub fn holds(self, count: usize) -> bool {
        compare(&count.to_string(), self.0, &self.1.to_string())
    }
}

/// An object for a failure's message.
pub fn describe(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    serde_json::to_string_pretty(&object).unwrap_or_default()
}
