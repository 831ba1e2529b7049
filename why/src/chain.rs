//! What an explanation is made of: causes, each because of others, each with what would help.

use serde::Serialize;
use serde_json::Value;

/// An object that is spoken of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reference {
    pub kind: String,
    /// Empty for cluster-scoped objects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
}

impl Reference {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn of(object: &Value) -> Self {
        let kind = object["kind"].as_str().unwrap_or_default();
        Self::new(kind, api::meta::namespace(object), api::meta::name(object))
    }

    /// As kubectl takes it: `deployment/web`.
    pub fn short(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }
}

/// Something to do about a cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// A command for a shell. Words in capitals are for the reader to fill in.
    pub command: String,
    /// What it does, or when it is the right thing to do.
    pub what: String,
}

/// One link of the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// For programs: a word in CamelCase that does not change with the wording.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Reference>,
    /// What is the matter with the object. One that starts with a comma says first which object that is.
    #[serde(serialize_with = "alone")]
    pub message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

/// Programs get the object beside the message, not in front of it.
fn alone<S: serde::Serializer>(message: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(message.trim_start_matches(", "))
}

impl Cause {
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), ..Self::default() }
    }

    pub fn about(mut self, object: &Value) -> Self {
        self.object = Some(Reference::of(object));
        self
    }

    pub fn named(mut self, kind: &str, namespace: &str, name: &str) -> Self {
        self.object = Some(Reference::new(kind, namespace, name));
        self
    }

    pub fn fix(mut self, what: impl Into<String>, command: impl Into<String>) -> Self {
        self.fixes.push(Fix { command: command.into(), what: what.into() });
        self
    }

    pub fn because(mut self, causes: impl IntoIterator<Item = Cause>) -> Self {
        self.causes.extend(causes);
        self
    }

    /// The reasons of this cause and of those below: equal for two objects that have the same trouble.
    pub fn signature(&self) -> String {
        let below: Vec<String> = self.causes.iter().map(Self::signature).collect();
        format!("{}({})", self.reason, below.join(","))
    }
}

/// The answer to "why?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub object: Reference,
    /// How the object is: `Pending for 5m`, `1 of 3 replicas are available`.
    pub state: String,
    /// Nothing is wrong, as far as anybody can tell.
    pub healthy: bool,
    pub causes: Vec<Cause>,
    /// What could not be read, and why: the explanation may lack what stands there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}
