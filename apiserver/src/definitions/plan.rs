//! What the status of each definition should be. Pure.

use std::collections::HashSet;

use api::catalogue::Catalogue;
use api::meta;
use jiff::Timestamp;
use serde_json::{Value, json};

pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    definition["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn is_true(definition: &Value, kind: &str) -> bool {
    condition(definition, kind).is_some_and(|condition| condition["status"] == "True")
}

/// Its names are accepted: its rows are served, from then on until it is gone.
pub(super) fn is_served(definition: &Value) -> bool {
    is_true(definition, "NamesAccepted") || is_true(definition, "Established")
}

/// Deleted, and waiting for its objects to go.
pub(super) fn is_terminating(definition: &Value) -> bool {
    meta::deletion_timestamp(definition).is_some() && meta::finalizers(definition).any(|f| f == CLEANUP_FINALIZER)
}

/// The definitions whose status is to be written, with the new status. Definitions earlier in the list win names.
pub(super) fn statuses(definitions: &[Value], builtin: &Catalogue, now: Timestamp) -> Vec<(String, Value)> {
    let mut current = definitions.to_vec();
    let mut out = Vec::new();
    for index in 0..current.len() {
        let next = status(&current[index], &current, builtin, now);
        if next != current[index]["status"] {
            out.push((meta::name(&current[index]).to_owned(), next.clone()));
            // Those behind it see the names it has got.
            current[index]["status"] = next;
        }
    }
    out
}

fn status(definition: &Value, all: &[Value], builtin: &Catalogue, now: Timestamp) -> Value {
    let mut next = definition.clone();
    let names = Names::taken(definition, all, builtin);
    let (accepted, refusal) = names.judge(&definition["spec"]["names"], &definition["status"]["acceptedNames"]);
    meta::child_mut(&mut next, "status")["acceptedNames"] = accepted;
    let accepted = refusal.is_none();
    let (state, reason, message) = match refusal {
        Some((reason, message)) => ("False", reason, message),
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
    };
    next["status"] = with_condition(&next, said("NamesAccepted", state, reason, &message), now);
    // Established is never taken back. It follows a round after the names, when the rows are served.
    if !is_true(definition, "Established") {
        let established = match (accepted, is_true(definition, "NamesAccepted")) {
            (true, true) => said("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
            (true, false) => said("Established", "False", "Installing", "the initial names have been accepted"),
            (false, _) => said("Established", "False", "NotAccepted", "not all names are accepted"),
        };
        next["status"] = with_condition(&next, established, now);
    }
    next["status"].take()
}

fn said(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

/// That all objects are gone.
pub(super) fn removed() -> Value {
    said("Terminating", "False", "InstanceDeletionCompleted", "removed all instances")
}

/// That objects are going.
pub fn terminating() -> Value {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    said("Terminating", "True", "InstanceDeletionPending", message)
}

/// The status with a condition put in; its transition time moves only with its state.
pub fn with_condition(definition: &Value, condition: Value, now: Timestamp) -> Value {
    let mut status = definition["status"].clone();
    let mut condition = condition;
    condition["lastTransitionTime"] = crate::verbs::timestamp(now).into();
    let conditions = meta::child_mut(&mut status, "conditions");
    if !conditions.is_array() {
        *conditions = Value::Array(Vec::new());
    }
    if let Some(list) = conditions.as_array_mut() {
        match list.iter_mut().find(|existing| existing["type"] == condition["type"]) {
            Some(existing) => {
                if existing["status"] == condition["status"] {
                    condition["lastTransitionTime"] = existing["lastTransitionTime"].clone();
                }
                *existing = condition;
            }
            None => list.push(condition),
        }
    }
    status
}

/// Names of a group that others have.
struct Names<'a> {
    resources: HashSet<&'a str>,
    kinds: HashSet<&'a str>,
}

impl<'a> Names<'a> {
    fn taken(definition: &Value, all: &'a [Value], builtin: &'a Catalogue) -> Self {
        let group = text(&definition["spec"]["group"]);
        let mut names = Self { resources: HashSet::new(), kinds: HashSet::new() };
        for row in builtin.iter().filter(|row| row.group == group) {
            names.resources.extend([row.plural.as_str(), row.singular.as_str()]);
            names.resources.extend(row.short_names.iter().map(String::as_str));
            names.kinds.extend([row.kind.as_str(), row.list_kind.as_str()]);
        }
        for other in all.iter().filter(|other| text(&other["spec"]["group"]) == group) {
            if meta::name(other) == meta::name(definition) {
                continue;
            }
            let accepted = &other["status"]["acceptedNames"];
            names.resources.extend([text(&accepted["plural"]), text(&accepted["singular"])]);
            names.resources.extend(texts(&accepted["shortNames"]));
            names.kinds.extend([text(&accepted["kind"]), text(&accepted["listKind"])]);
        }
        names.resources.remove("");
        names.kinds.remove("");
        names
    }

    /// The names a definition gets of those it asks for, and why it does not get all (`calculateNamesAndConditions`).
    fn judge(&self, asked: &Value, had: &Value) -> (Value, Option<(&'static str, String)>) {
        let mut accepted = had.clone();
        let mut refusal = None;
        for (field, reason, used) in [
            ("plural", "PluralConflict", &self.resources),
            ("singular", "SingularConflict", &self.resources),
            ("kind", "KindConflict", &self.kinds),
            ("listKind", "ListKindConflict", &self.kinds),
        ] {
            let name = text(&asked[field]);
            if used.contains(name) && name != text(&had[field]) {
                refusal = Some((reason, format!("{name:?} is already in use")));
            } else if !name.is_empty() {
                accepted[field] = name.into();
            }
        }
        let fresh = |name: &&str| texts(&had["shortNames"]).all(|own| own != *name) && self.resources.contains(name);
        match texts(&asked["shortNames"]).find(fresh) {
            Some(name) => refusal = Some(("ShortNamesConflict", format!("{name:?} is already in use"))),
            None => copy(&mut accepted, asked, "shortNames"),
        }
        copy(&mut accepted, asked, "categories");
        (accepted, refusal)
    }
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => drop(meta::object_mut(to).remove(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
            }},
        })
    }

    fn settle(mut all: Vec<Value>) -> Vec<Value> {
        for _ in 0..20 {
            let changes = statuses(&all, &Catalogue::default(), Timestamp::UNIX_EPOCH);
            if changes.is_empty() {
                return all;
            }
            for (name, status) in changes {
                all.iter_mut().filter(|d| meta::name(d) == name).for_each(|d| d["status"] = status.clone());
            }
        }
        panic!("statuses do not settle");
    }

    #[test]
    fn names_are_accepted_then_the_definition_is_established() {
        let settled = settle(vec![definition("things", "Thing")]);
        assert!(is_true(&settled[0], "NamesAccepted") && is_true(&settled[0], "Established"));
        assert_eq!(settled[0]["status"]["acceptedNames"]["kind"], "Thing");
    }

    #[test]
    fn a_taken_kind_is_refused() {
        let settled = settle(vec![definition("things", "Thing"), definition("others", "Thing")]);
        let refused = condition(&settled[1], "NamesAccepted").unwrap();
        assert_eq!((&refused["status"], &refused["reason"]), (&json!("False"), &json!("ListKindConflict")));
        assert!(!is_served(&settled[1]));
    }
}
