//! How deletion of a resource departs from the rule. One row per departure.

use api::catalogue::Resource;

/// How a resource is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The answer is the deleted object instead of a Status (`ReturnDeletedObject`).
    pub returns_object: bool,
    /// Without a propagation policy dependents are orphaned (`DefaultGarbageCollectionPolicy`).
    pub orphans_by_default: bool,
    /// Propagation policies count at all.
    pub garbage_collected: bool,
    /// `spec.finalizers` keep the object, too; a controller removes them.
    pub spec_finalizers: bool,
}

/// Resources that answer with the deleted object, by group.
const RETURNING: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "namespaces",
            "persistentvolumeclaims",
            "persistentvolumes",
            "pods",
            "podtemplates",
            "resourcequotas",
            "serviceaccounts",
            "services",
        ],
    ),
    (
        "resource.k8s.io",
        &["deviceclasses", "devicetaintrules", "resourceclaims", "resourceclaimtemplates", "resourceslices"],
    ),
    ("storage.k8s.io", &["csidrivers", "csinodes", "storageclasses", "volumeattachments", "volumeattributesclasses"]),
];

impl Rules {
    pub fn of(resource: &Resource) -> Self {
        let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
        Self {
            returns_object: RETURNING.iter().any(|(g, plurals)| *g == group && plurals.contains(&plural)),
            orphans_by_default: matches!((group, plural), ("", "replicationcontrollers") | ("batch", "jobs")),
            garbage_collected: plural != "events",
            spec_finalizers: (group, plural) == ("", "namespaces"),
        }
    }
}
