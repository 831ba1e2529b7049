//! Event. Events of `v1` and `events.k8s.io/v1` are one stored object, kept in the form of `v1`. Rules read and name
//! the stored form, as upstream's do; which of them hold depends on the version of the request.

use serde_json::Value;

use super::fill::text;
use super::place::{Errors, Place};
use super::{Context, Strategy, Verb, format};
use crate::field::Error;
use crate::meta;

const ACTION_MAX_BYTES: usize = 128;
const INSTANCE_MAX_BYTES: usize = 128;
const REASON_MAX_BYTES: usize = 128;
const NOTE_MAX_BYTES: usize = 1024;
/// What never changes once an event is there.
const FIXED: &[&str] = &[
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reason",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingController",
    "reportingInstance",
];

/// Requests of `events.k8s.io/v1` obey stricter rules than those of `v1`.
pub struct Event {
    pub strict: bool,
}

impl Strategy for Event {
    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        legacy(object, self.strict, errors);
        if self.strict && ctx.verb == Verb::Create {
            series(object, errors);
            created(object, errors);
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        if !self.strict {
            return;
        }
        if !new.field("series").same(&old.field("series")) {
            series(new, errors);
        }
        for field in FIXED {
            let stored = if *field == "reportingController" { "reportingComponent" } else { field };
            let (now, before) = (new.field(stored), old.field(stored));
            if !now.same(&before) {
                errors.push(Error::invalid(*field, now.value.clone(), "field is immutable"));
            }
        }
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let involved = object.get("involvedObject").unwrap_or(&Value::Null);
        let component = object.get("source").map(|s| text(s, "component")).unwrap_or_default();
        let controller = text(object, "reportingComponent");
        let source = if component.is_empty() { controller } else { component };
        [
            ("involvedObject.kind", text(involved, "kind")),
            ("involvedObject.namespace", text(involved, "namespace")),
            ("involvedObject.name", text(involved, "name")),
            ("involvedObject.uid", text(involved, "uid")),
            ("involvedObject.apiVersion", text(involved, "apiVersion")),
            ("involvedObject.resourceVersion", text(involved, "resourceVersion")),
            ("involvedObject.fieldPath", text(involved, "fieldPath")),
            ("reason", text(object, "reason")),
            ("reportingComponent", controller),
            ("source", source),
            ("type", text(object, "type")),
        ]
        .map(|(field, value)| (field, value.to_owned()))
        .to_vec()
    }
}

/// `legacyValidateEvent`: both forms.
fn legacy(event: &Place, strict: bool, errors: &mut Errors) {
    let namespace = meta::namespace(event.value);
    let involved = event.field("involvedObject");
    let about = involved.field("namespace");
    let timed = event.field("eventTime").is_set();
    let fits = match (timed, about.is_empty()) {
        (false, true) => namespace.is_empty() || namespace == "default",
        (false, false) => namespace == about.str(),
        (true, true) => namespace == "default" || namespace == "kube-system",
        (true, false) => true,
    };
    if !fits {
        errors.push(Error::invalid(about.path(), about.str(), "does not match event.namespace"));
    }
    if timed {
        let controller = event.field("reportingComponent");
        let controller = if strict { event.named("reportingController", controller.value) } else { controller };
        controller.require(errors);
        format::check(&controller, format::qualified_name, errors);
        for (field, max, needed) in [
            ("reportingInstance", INSTANCE_MAX_BYTES, true),
            ("action", ACTION_MAX_BYTES, true),
            ("reason", REASON_MAX_BYTES, true),
            ("message", NOTE_MAX_BYTES, false),
        ] {
            let place = event.field(field);
            if needed {
                place.require(errors);
            }
            if place.str().len() > max {
                errors.push(Error::invalid(place.path(), "", format!("can have at most {max} characters")));
            }
        }
    }
    for problem in format::subdomain(namespace) {
        errors.push(Error::invalid("namespace", namespace, problem));
    }
}

/// What `events.k8s.io/v1` asks of a new event beyond.
fn created(event: &Place, errors: &mut Errors) {
    event.field("eventTime").require(errors);
    let kind = event.field("type");
    if !["Normal", "Warning"].contains(&kind.str()) {
        errors.push(Error::invalid("type", "", format!("has invalid value: {}", kind.str())));
    }
    let source = event.field("source");
    let sourced = ["component", "host"].iter().any(|f| !source.field(f).is_empty());
    let set = [
        ("firstTimestamp", event.field("firstTimestamp").is_set()),
        ("lastTimestamp", event.field("lastTimestamp").is_set()),
        ("count", event.field("count").int().unwrap_or(0) != 0),
        ("source", sourced),
    ];
    for (field, _) in set.iter().filter(|(_, set)| *set) {
        errors.push(Error::invalid(*field, "", "needs to be unset"));
    }
}

fn series(event: &Place, errors: &mut Errors) {
    let series = event.field("series");
    if !series.is_set() {
        return;
    }
    if series.field("count").int().unwrap_or(0) < 2 {
        errors.push(Error::invalid("series.count", "", "should be at least 2"));
    }
    series.field("lastObservedTime").require(errors);
}
