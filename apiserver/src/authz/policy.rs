//! All RBAC objects of the cluster, indexed by who they speak of. An immutable snapshot that shares structure with its
//! predecessor; a change of one object replaces only what it touches.
//!
//! Invariant: evaluation looks at the bindings that name the user or one of its groups and at nothing else, whatever
//! the number of bindings in the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use rpds::HashTrieMapSync;
use serde_json::Value;

use api::meta::{self, ObjectKey};

use super::Attributes;
use super::rule::Rule;
use crate::user::{SERVICE_ACCOUNT_PREFIX, User};

/// Which of the four kinds an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    ClusterRole,
    Role,
    ClusterRoleBinding,
    RoleBinding,
}

impl Kind {
    pub fn of_resource(resource: &str) -> Option<Self> {
        Some(match resource {
            "clusterroles" => Self::ClusterRole,
            "roles" => Self::Role,
            "clusterrolebindings" => Self::ClusterRoleBinding,
            "rolebindings" => Self::RoleBinding,
            _ => return None,
        })
    }
}

/// Subject of a binding as a lookup key. Service accounts are users with a fixed form of name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(Box<str>),
    Group(Box<str>),
}

#[derive(Debug)]
struct Binding {
    key: ObjectKey,
    role_kind: Box<str>,
    role_name: Box<str>,
    /// Each subject with the text a reason names it by.
    subjects: Vec<(Subject, Box<str>)>,
}

/// Bindings of one subject in one scope, by object key so that evaluation is deterministic.
type Bindings = BTreeMap<ObjectKey, Arc<Binding>>;

#[derive(Clone, Default)]
pub struct Policy {
    /// Cluster roles have no namespace in their key.
    roles: HashTrieMapSync<ObjectKey, Arc<[Rule]>>,
    /// Scope (empty for the cluster) and subject to bindings.
    by_subject: HashTrieMapSync<(Box<str>, Subject), Arc<Bindings>>,
    /// To take a binding's old subjects out again.
    bindings: HashTrieMapSync<ObjectKey, Arc<Binding>>,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Policy({} roles, {} bindings)", self.roles.size(), self.bindings.size())
    }
}

/// A rule with the binding that gives it.
pub struct Grant<'p> {
    pub rule: &'p Rule,
    binding: &'p Binding,
    subject: &'p str,
}

impl Grant<'_> {
    /// `RBAC: allowed by RoleBinding "b/ns" of Role "r" to User "u"`.
    pub fn reason(&self) -> String {
        let key = &self.binding.key;
        let (kind, name) = if key.namespace.is_empty() {
            ("ClusterRoleBinding", key.name.clone())
        } else {
            ("RoleBinding", format!("{}/{}", key.name, key.namespace))
        };
        let Binding { role_kind, role_name, .. } = self.binding;
        format!("RBAC: allowed by {kind} {name:?} of {role_kind} {role_name:?} to {}", self.subject)
    }
}

impl Policy {
    /// The policy with one object changed; `None` takes it out.
    pub fn with(&self, kind: Kind, key: &ObjectKey, object: Option<&Value>) -> Self {
        let mut next = self.clone();
        match kind {
            Kind::ClusterRole | Kind::Role => match object {
                Some(role) => next.roles.insert_mut(key.clone(), Rule::parse_all(role).into()),
                None => {
                    next.roles.remove_mut(key);
                }
            },
            Kind::ClusterRoleBinding | Kind::RoleBinding => next.rebind(key, object),
        }
        next
    }

    fn rebind(&mut self, key: &ObjectKey, object: Option<&Value>) {
        let scope: Box<str> = key.namespace.as_str().into();
        if let Some(old) = self.bindings.get(key).cloned() {
            for (subject, _) in &old.subjects {
                let slot = (scope.clone(), subject.clone());
                let Some(bindings) = self.by_subject.get(&slot) else { continue };
                let mut left = Bindings::clone(bindings);
                left.remove(key);
                if left.is_empty() {
                    self.by_subject.remove_mut(&slot);
                } else {
                    self.by_subject.insert_mut(slot, Arc::new(left));
                }
            }
            self.bindings.remove_mut(key);
        }
        let Some(object) = object else { return };
        let binding = Arc::new(parse_binding(key, object));
        for (subject, _) in &binding.subjects {
            let slot = (scope.clone(), subject.clone());
            let mut bindings = self.by_subject.get(&slot).map(|b| Bindings::clone(b)).unwrap_or_default();
            bindings.insert(key.clone(), Arc::clone(&binding));
            self.by_subject.insert_mut(slot, Arc::new(bindings));
        }
        self.bindings.insert_mut(key.clone(), binding);
    }

    /// The rules of the role `kind` `name`, seen from a binding in `namespace`.
    pub fn role(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        let namespace = if kind == "Role" { namespace } else { "" };
        self.roles.get(&ObjectKey::new(namespace, name))
    }

    /// Calls `visit` with every rule the user holds in `namespace` (empty: cluster-wide only) until it returns false.
    /// Returns what could not be resolved.
    pub fn visit<'p>(&'p self, user: &User, namespace: &str, mut visit: impl FnMut(&Grant<'p>) -> bool) -> Vec<String> {
        let mut unresolved = Vec::new();
        let scopes = ["", namespace];
        let scopes = if namespace.is_empty() { &scopes[..1] } else { &scopes[..] };
        for scope in scopes {
            let who = std::iter::once(Subject::User(user.name.as_str().into()))
                .chain(user.groups.iter().map(|g| Subject::Group(g.as_str().into())));
            for subject in who {
                let Some(bindings) = self.by_subject.get(&(Box::from(*scope), subject.clone())) else { continue };
                for binding in bindings.values() {
                    let Some(rules) = self.role(&binding.role_kind, scope, &binding.role_name) else {
                        unresolved.push(not_found(binding));
                        continue;
                    };
                    let text = binding.subjects.iter().find(|(s, _)| *s == subject).map_or("", |(_, text)| text);
                    for rule in rules.iter() {
                        if !visit(&Grant { rule, binding, subject: text }) {
                            return unresolved;
                        }
                    }
                }
            }
        }
        unresolved
    }

    /// `Ok` with the reason when some rule allows it, `Err` with what stood in the way (often nothing) otherwise.
    pub fn allows(&self, asked: &Attributes<'_>) -> Result<String, String> {
        let mut reason = None;
        let unresolved = self.visit(asked.user, asked.namespace, |grant| {
            if grant.rule.allows(asked) {
                reason = Some(grant.reason());
            }
            reason.is_none()
        });
        reason.ok_or_else(|| match unresolved.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }
}

fn not_found(binding: &Binding) -> String {
    let resource = if &*binding.role_kind == "Role" { "role" } else { "clusterrole" };
    format!("{resource}.rbac.authorization.k8s.io {:?} not found", binding.role_name)
}

fn parse_binding(key: &ObjectKey, object: &Value) -> Binding {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let role = object.get("roleRef").unwrap_or(&Value::Null);
    let subjects = object.get("subjects").and_then(Value::as_array).into_iter().flatten().filter_map(|subject| {
        let (kind, name) = (text(subject, "kind"), text(subject, "name"));
        match kind.as_str() {
            "User" => Some((Subject::User(name.as_str().into()), format!("User {name:?}").into())),
            "Group" => Some((Subject::Group(name.as_str().into()), format!("Group {name:?}").into())),
            "ServiceAccount" => {
                let mut namespace = text(subject, "namespace");
                if namespace.is_empty() {
                    namespace.clone_from(&key.namespace);
                }
                if namespace.is_empty() {
                    return None;
                }
                let user = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}");
                let shown = format!("ServiceAccount {:?}", format!("{name}/{namespace}"));
                Some((Subject::User(user.into()), shown.into()))
            }
            _ => None,
        }
    });
    Binding {
        key: key.clone(),
        role_kind: text(role, "kind").into(),
        role_name: text(role, "name").into(),
        subjects: subjects.collect(),
    }
}

/// Builds a policy from whole objects, for tests and for the start.
pub fn from_objects<'v>(objects: impl IntoIterator<Item = (Kind, &'v Value)>) -> Policy {
    objects
        .into_iter()
        .fold(Policy::default(), |policy, (kind, object)| policy.with(kind, &meta::key(object), Some(object)))
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
