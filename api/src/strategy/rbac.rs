//! Role, ClusterRole and their bindings.

use serde_json::Value;

use super::fill::Lit::{Object, Str};
use super::fill::{each, fill, fill_at, text};
use super::place::{Errors, Place};
use super::{Context, NameRule, Strategy, format, workload};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Role and ClusterRole.
pub struct Role {
    pub namespaced: bool,
}

impl Strategy for Role {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
    fn allows_create_on_update(&self) -> bool {
        true
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        for rule in object.field("rules").items() {
            policy_rule(&rule, self.namespaced, errors);
        }
        let aggregation = object.field("aggregationRule");
        if self.namespaced || !aggregation.is_set() {
            return;
        }
        let selectors = aggregation.field("clusterRoleSelectors");
        if selectors.is_empty() {
            errors.push(selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for selector in selectors.items() {
            format::label_selector(&selector, errors);
            if workload::matches(&selector, &selector.with_value(&Value::Null)).is_err() {
                errors.push(selector.invalid("invalid label selector."));
            }
        }
    }
}

/// `ValidatePolicyRule`.
fn policy_rule(rule: &Place, namespaced: bool, errors: &mut Errors) {
    if rule.field("verbs").is_empty() {
        errors.push(rule.field("verbs").required("verbs must contain at least one value"));
    }
    let urls = rule.field("nonResourceURLs");
    let (groups, resources) = (rule.field("apiGroups"), rule.field("resources"));
    if !urls.is_empty() {
        if namespaced {
            errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if !groups.is_empty() || !resources.is_empty() || !rule.field("resourceNames").is_empty() {
            errors.push(urls.invalid("rules cannot apply to both regular resources and non-resource URLs"));
        }
        return;
    }
    if groups.is_empty() {
        errors.push(groups.required("resource rules must supply at least one api group"));
    }
    if resources.is_empty() {
        errors.push(resources.required("resource rules must supply at least one resource"));
    }
}

/// RoleBinding and ClusterRoleBinding.
pub struct Binding {
    pub namespaced: bool,
}

impl Strategy for Binding {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
    fn allows_create_on_update(&self) -> bool {
        true
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        fill(object, &[("roleRef", Object)]);
        fill_at(object, "roleRef", &[("apiGroup", Str(GROUP))]);
        if text(&object["roleRef"], "apiGroup").is_empty() {
            object["roleRef"]["apiGroup"] = GROUP.into();
        }
        each(object, "subjects", |subject| {
            if ["User", "Group"].contains(&text(subject, "kind")) {
                fill(subject, &[("apiGroup", Str(GROUP))]);
            }
        });
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let reference = object.field("roleRef");
        let (group, kind, name) = (reference.field("apiGroup"), reference.field("kind"), reference.field("name"));
        if group.str() != GROUP {
            errors.push(group.not_supported(&[GROUP]));
        }
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&kind.str()) {
            errors.push(kind.not_supported(kinds));
        }
        if name.require(errors) {
            format::check(&name, format::path_segment, errors);
        }
        for subject in object.field("subjects").items() {
            self::subject(&subject, self.namespaced, errors);
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let reference = new.field("roleRef");
        if !reference.same(&old.field("roleRef")) {
            errors.push(reference.invalid("cannot change roleRef"));
        }
    }
}

/// `ValidateRoleBindingSubject`.
fn subject(subject: &Place, namespaced: bool, errors: &mut Errors) {
    let (name, kind, group) = (subject.field("name"), subject.field("kind"), subject.field("apiGroup"));
    let named = name.require(errors);
    match kind.str() {
        "ServiceAccount" => {
            if named {
                format::check(&name, format::subdomain, errors);
            }
            if !group.is_empty() {
                errors.push(group.not_supported(&[""]));
            }
            if !namespaced {
                subject.field("namespace").require(errors);
            }
        }
        "User" | "Group" => {
            if group.str() != GROUP {
                errors.push(group.not_supported(&[GROUP]));
            }
        }
        _ => errors.push(kind.not_supported(&["ServiceAccount", "User", "Group"])),
    }
}
