//! What has been read of a cluster, and what is still to be read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::target::{Kind, Kinds};

/// One read from the API server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    Get {
        kind: Kind,
        namespace: String,
        name: String,
    },
    /// An empty namespace is all of them; empty selectors select everything.
    List {
        kind: Kind,
        namespace: String,
        labels: String,
        fields: String,
    },
    /// The last line that a container wrote.
    Log {
        namespace: String,
        pod: String,
        container: String,
        previous: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Objects(Vec<Value>),
    Text(String),
    /// The server's words.
    Refused(String),
}

/// An object that was looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found<'w> {
    Here(&'w Value),
    Absent,
    /// Not read yet, or not to be read.
    Unknown,
}

impl<'w> Found<'w> {
    pub fn here(self) -> Option<&'w Value> {
        match self {
            Self::Here(object) => Some(object),
            Self::Absent | Self::Unknown => None,
        }
    }

    pub fn is_absent(self) -> bool {
        self == Self::Absent
    }
}

/// The answers so far. Looking at what is not among them notes a query for the next round.
pub struct World {
    pub kinds: Kinds,
    answers: BTreeMap<Query, Answer>,
    wanted: RefCell<BTreeSet<Query>>,
}

impl World {
    pub fn new(kinds: Kinds) -> Self {
        Self { kinds, answers: BTreeMap::new(), wanted: RefCell::default() }
    }

    /// What was looked for in vain since the last call.
    pub fn wanted(&self) -> Vec<Query> {
        std::mem::take(&mut *self.wanted.borrow_mut()).into_iter().collect()
    }

    pub fn learn(&mut self, query: Query, answer: Answer) {
        self.answers.insert(query, answer);
    }

    fn answer(&self, query: Query) -> Option<&Answer> {
        let answer = self.answers.get(&query);
        if answer.is_none() {
            self.wanted.borrow_mut().insert(query);
        }
        answer
    }

    /// One object of a resource such as `pods` or `deployments.apps`.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Found<'_> {
        self.kinds.resource(resource).map_or(Found::Unknown, |kind| self.get_of(kind, namespace, name))
    }

    pub fn get_of(&self, kind: &Kind, namespace: &str, name: &str) -> Found<'_> {
        let namespace = if kind.namespaced() { namespace } else { "" };
        let query = Query::Get { kind: kind.clone(), namespace: namespace.to_owned(), name: name.to_owned() };
        match self.answer(query) {
            Some(Answer::Objects(objects)) => objects.first().map_or(Found::Absent, Found::Here),
            _ => Found::Unknown,
        }
    }

    /// All objects of a resource; of all namespaces if it is empty.
    pub fn list(&self, resource: &str, namespace: &str) -> &[Value] {
        self.select(resource, namespace, "", "")
    }

    pub fn select(&self, resource: &str, namespace: &str, labels: &str, fields: &str) -> &[Value] {
        self.kinds.resource(resource).map_or(&[], |kind| self.select_of(kind, namespace, labels, fields))
    }

    /// Like [`World::list`]; `None` if the objects could not be read.
    pub fn listed(&self, resource: &str, namespace: &str) -> Option<&[Value]> {
        let kind = self.kinds.resource(resource)?.clone();
        let (namespace, labels, fields) = (namespace.to_owned(), String::new(), String::new());
        match self.answer(Query::List { kind, namespace, labels, fields }) {
            Some(Answer::Objects(objects)) => Some(objects),
            _ => None,
        }
    }

    pub fn select_of(&self, kind: &Kind, namespace: &str, labels: &str, fields: &str) -> &[Value] {
        let query = Query::List {
            kind: kind.clone(),
            namespace: namespace.to_owned(),
            labels: labels.to_owned(),
            fields: fields.to_owned(),
        };
        match self.answer(query) {
            Some(Answer::Objects(objects)) => objects,
            _ => &[],
        }
    }

    /// The last line that a container, or its run before, has written.
    pub fn last_line(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Option<&str> {
        let (namespace, pod, container) = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        match self.answer(Query::Log { namespace, pod, container, previous }) {
            Some(Answer::Text(text)) => text.lines().rev().map(str::trim).find(|line| !line.is_empty()),
            _ => None,
        }
    }

    /// What could not be read. Logs are a bonus, so their absence is not told.
    pub fn refusals(&self) -> Vec<String> {
        let refused = self.answers.iter().filter_map(|(query, answer)| match (query, answer) {
            (Query::Get { kind, name, .. }, Answer::Refused(why)) => Some(format!("{}/{name}: {why}", kind.singular)),
            (Query::List { kind, .. }, Answer::Refused(why)) => Some(format!("{}: {why}", kind.qualified())),
            _ => None,
        });
        refused.collect()
    }
}
