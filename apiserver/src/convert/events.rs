//! `events.k8s.io/v1` Events and the core ones they are stored as: the same object under other names.

use serde_json::Value;

/// Name in `events.k8s.io/v1`, name in core `v1`.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

pub(super) fn to_core(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    for (new, core) in RENAMED {
        if let Some(value) = map.remove(new) {
            map.insert(core.to_owned(), value);
        }
    }
}

pub(super) fn from_core(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    for (new, core) in RENAMED {
        if let Some(value) = map.remove(core) {
            map.insert(new.to_owned(), value);
        }
    }
}
