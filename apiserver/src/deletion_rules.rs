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
    /// The first deletion only marks the object, whatever finalizers it has; its instances go first.
    pub cleans_instances: bool,
    /// `spec.finalizers` keep the object, too; a controller removes them.
    pub spec_finalizers: bool,
}

impl Rules {
    pub fn of(resource: &Resource) -> Self {
        let (group, plural) = (resource.group.as_str(), resource.plural.as_str());
        Self {
            returns_object: resource.returns_deleted || (group, plural) == ("", "namespaces"),
            orphans_by_default: matches!((group, plural), ("", "replicationcontrollers") | ("batch", "jobs")),
            garbage_collected: plural != "events",
            cleans_instances: (group, plural) == ("apiextensions.k8s.io", "customresourcedefinitions"),
            spec_finalizers: (group, plural) == ("", "namespaces"),
        }
    }
}
