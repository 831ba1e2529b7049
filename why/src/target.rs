//! What is asked about: `KIND/NAME` in words, and the kinds a server has.

use api_client::GroupVersionResource;
use api_client::discovery::{Discovery, Served};

/// A kind of object, as the server names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub resource: GroupVersionResource,
    pub kind: String,
    pub singular: String,
    pub short_names: Vec<String>,
    /// Its objects can be listed and live until they are deleted; what is made up for each request, such as metrics, is
    /// nobody's cause.
    pub listable: bool,
}

impl Kind {
    pub fn namespaced(&self) -> bool {
        self.resource.namespaced
    }

    /// `pods` or `deployments.apps`.
    pub fn qualified(&self) -> String {
        self.resource.qualified()
    }

    fn of(served: &Served) -> Self {
        let singular = if served.singular.is_empty() { served.kind.to_lowercase() } else { served.singular.clone() };
        Self {
            resource: served.gvr.clone(),
            kind: served.kind.clone(),
            singular,
            short_names: served.short_names.clone(),
            listable: served.has_verbs(&["list", "get", "delete"]),
        }
    }

    fn is_called(&self, word: &str) -> bool {
        *self.resource.resource == *word
            || self.singular == word
            || self.kind.eq_ignore_ascii_case(word)
            || self.short_names.iter().any(|short| short == word)
    }
}

/// All kinds of a server.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    kinds: Vec<Kind>,
    /// Group versions that the server can't describe now.
    pub failed: Vec<String>,
}

impl Kinds {
    pub fn of(discovery: &Discovery) -> Self {
        Self { kinds: discovery.resources.iter().map(Kind::of).collect(), failed: discovery.failed.clone() }
    }

    pub fn resource(&self, qualified: &str) -> Option<&Kind> {
        let (resource, group) = qualified.split_once('.').unwrap_or((qualified, ""));
        self.kinds.iter().find(|k| *k.resource.resource == *resource && *k.resource.group == *group)
    }

    /// The kind of an owner reference or another typed reference.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Kind> {
        let (group, _) = api::meta::split_api_version(api_version);
        self.kinds.iter().find(|k| *k.resource.group == *group && k.kind == kind)
    }

    /// What a person calls it: `po`, `pod`, `Pods`, `deployments.apps`, `certificates.v1.example.com`. The core group
    /// comes first, as with kubectl.
    pub fn called(&self, word: &str) -> Option<&Kind> {
        let word = word.to_lowercase();
        let plain = self.kinds.iter().find(|k| k.is_called(&word));
        plain.or_else(|| {
            let (word, group) = word.split_once('.')?;
            let fits = |k: &&Kind| {
                *k.resource.group == *group || group == format!("{}.{}", k.resource.version, k.resource.group)
            };
            self.kinds.iter().filter(fits).find(|k| k.is_called(word))
        })
    }

    /// Kinds whose objects live in namespaces and can be listed.
    pub fn in_namespaces(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().filter(|k| k.namespaced() && k.listable)
    }
}

/// What a person asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Target {
    /// Reads `KIND/NAME` or `KIND NAME`.
    pub fn parse(words: &[String], namespace: &str) -> Option<Self> {
        let (kind, name) = match words {
            [one] => one.split_once('/')?,
            [kind, name] if !kind.contains('/') => (kind.as_str(), name.as_str()),
            _ => return None,
        };
        let filled = !kind.is_empty() && !name.is_empty() && !name.contains('/');
        filled.then(|| Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Kinds {
        let kind = |group: &'static str, plural: &'static str, kind: &str, short: &[&str]| Kind {
            resource: GroupVersionResource {
                group: group.into(),
                version: "v1".into(),
                resource: plural.into(),
                namespaced: true,
            },
            kind: kind.to_owned(),
            singular: kind.to_lowercase(),
            short_names: short.iter().map(|s| (*s).to_owned()).collect(),
            listable: true,
        };
        Kinds {
            kinds: vec![
                kind("", "events", "Event", &["ev"]),
                kind("events.k8s.io", "events", "Event", &["ev"]),
                kind("apps", "deployments", "Deployment", &["deploy"]),
            ],
            failed: Vec::new(),
        }
    }

    #[test]
    fn kinds_go_by_many_names() {
        let kinds = kinds();
        let called = |word: &str| kinds.called(word).map_or("-".to_owned(), Kind::qualified);
        assert_eq!(
            ["deploy", "Deployment", "DEPLOYMENTS", "deployments.apps", "deployment.v1.apps"].map(called),
            ["deployments.apps"; 5]
        );
        assert_eq!(called("ev"), "events");
        assert_eq!(called("events.events.k8s.io"), "events.events.k8s.io");
        assert_eq!(called("deployments.extensions"), "-");
    }

    #[test]
    fn an_object_is_named_in_one_word_or_two() {
        let parse = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            Target::parse(&words, "ns").map(|t| format!("{} {} {}", t.kind, t.namespace, t.name))
        };
        assert_eq!(parse(&["pod/a"]).as_deref(), Some("pod ns a"));
        assert_eq!(parse(&["pod", "a"]).as_deref(), Some("pod ns a"));
        for bad in [&["pod"][..], &["pod/"], &["/a"], &["pod/a", "b"], &["pod/a/b"], &[]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
