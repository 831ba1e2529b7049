//! Expressions in objects that are written: those of admission policies, those of definitions of custom resources, and
//! the rules of a definition on its resources. Most resources have none.

use api::field::Error;
use serde_json::Value;

use crate::admission::policy;
use crate::definitions;
use crate::verbs::Target;

/// What is wrong, for an object about to be stored.
pub fn errors(target: &Target, object: &Value, old: Option<&Value>) -> Vec<Error> {
    let row = &target.storage;
    // Status and other parts hold no expressions.
    let whole = target.call.info.subresource.is_empty();
    match (row.group.as_str(), row.plural.as_str()) {
        ("admissionregistration.k8s.io", "validatingadmissionpolicies" | "mutatingadmissionpolicies") if whole => {
            let unchanged = old.is_some_and(|old| old["spec"] == object["spec"]);
            if unchanged { Vec::new() } else { policy::check::errors(object) }
        }
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations" | "mutatingwebhookconfigurations") => {
            let unchanged = old.is_some_and(|old| old["webhooks"] == object["webhooks"]);
            if unchanged { Vec::new() } else { policy::check::webhook_errors(object) }
        }
        ("apiextensions.k8s.io", "customresourcedefinitions") if whole => {
            let unchanged = old.is_some_and(|old| old["spec"]["versions"] == object["spec"]["versions"]);
            if unchanged { Vec::new() } else { definitions::check_rules(object) }
        }
        _ => match &target.facts {
            Some(facts) => facts.broken_rules(&row.version, object, old),
            None => Vec::new(),
        },
    }
}
