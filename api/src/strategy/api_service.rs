//! APIService: which server serves a version of a group.

use serde_json::{Value, json};

use super::fill::{Lit::Int, fill_at, with};
use super::format;
use super::place::{Errors, Place};
use super::{Context, NameRule, Strategy};
use crate::field::Error;
use crate::meta;

/// What the kinds without a group are served as.
const LEGACY_VERSION: &str = "v1";
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

pub struct ApiService;

impl Strategy for ApiService {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| fill_at(spec, "service", &[("port", Int(443))]));
    }

    /// What this server serves itself is available from the start.
    fn on_create(&self, object: &mut Value, ctx: &Context) {
        let local = !Place::root(object).field("spec").field("service").is_set();
        *meta::child_mut(object, "status") = match local {
            true => json!({"conditions": [{
                "type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available",
                "lastTransitionTime": ctx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            }]}),
            false => json!({}),
        };
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let (metadata, spec) = (object.field("metadata"), object.field("spec"));
        let (group, version) = (spec.field("group"), spec.field("version"));
        let (name, wanted) = (metadata.field("name"), format!("{}.{}", version.str(), group.str()));
        if name.str() != wanted {
            errors.push(name.invalid(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}")));
        }
        if !group.is_empty() {
            format::check(&group, format::subdomain, errors);
        } else if version.str() != LEGACY_VERSION {
            errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
        }
        format::check(&version, format::label_1035, errors);
        for (field, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
            let priority = spec.field(field);
            let number = priority.int().unwrap_or(0);
            if !(1..=max).contains(&number) {
                let detail = format!("must be positive and less than {max}");
                errors.push(Error::invalid(priority.path(), number, detail));
            }
        }
        trust(&spec, errors);
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        for condition in new.field("status").field("conditions").items() {
            condition.field("status").one_of(&["True", "False", "Unknown"], errors);
        }
    }
}

/// The service, and how its certificate is checked.
fn trust(spec: &Place, errors: &mut Errors) {
    let (service, bundle, insecure) =
        (spec.field("service"), spec.field("caBundle"), spec.field("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            errors.push(bundle.invalid("local APIServices may not have a caBundle"));
        }
        if insecure.is_true() {
            errors.push(insecure.invalid("local APIServices may not have insecureSkipTLSVerify"));
        }
        return;
    }
    service.field("namespace").require(errors);
    service.field("name").require(errors);
    let port = service.field("port");
    if !format::port_number(port.int().unwrap_or(0)).is_empty() {
        errors.push(port.invalid("port is not valid: must be between 1 and 65535, inclusive"));
    }
    if insecure.is_true() && !bundle.is_empty() {
        errors.push(insecure.invalid("may not be true if caBundle is present"));
    }
}
