//! Events: the same facts under other names.

use serde_json::{Map, Value};

use super::rename;

/// Fields as (core, `events.k8s.io`).
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Texts of a core event that are there even when they are empty.
const ALWAYS_IN_CORE: [&str; 2] = ["reportingComponent", "reportingInstance"];

pub(super) fn to_core(event: &mut Map<String, Value>) {
    for (core, events) in NAMES {
        rename(event, events, core);
    }
    for field in ALWAYS_IN_CORE {
        event.entry(field).or_insert_with(|| "".into());
    }
    for field in ["involvedObject", "source"] {
        event.entry(field).or_insert_with(|| Value::Object(Map::new()));
    }
}

pub(super) fn to_events(event: &mut Map<String, Value>) {
    for (core, events) in NAMES {
        rename(event, core, events);
    }
    // Empty texts are left out in this version.
    for field in ["reportingController", "reportingInstance"] {
        if event.get(field).is_some_and(|v| v == "") {
            event.remove(field);
        }
    }
}
