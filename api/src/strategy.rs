//! One strategy per kind: what its schema cannot say. A kind without one takes [`Strategy`]'s provided methods.
//!
//! A write passes through a strategy in this order: [`Strategy::default`] (after decoding), then
//! [`Strategy::prepare_create`] or [`Strategy::prepare_update`], then [`Strategy::validate_create`] or
//! [`Strategy::validate_update`]. The object is well typed by then: decoding against the schema came first, so a rule
//! reads a field of the wrong type as absent and never has to report it.
//!
//! Kinds implement the small hooks (`name_rule`, `rules`, `change_rules`, …); callers use the composed methods, which
//! add what holds for every kind: metadata, status isolation, generation.

mod address;
mod admission;
mod api_service;
mod autoscaler;
mod certificate;
mod config_map;
mod controller_revision;
mod cron_job;
mod custom;
mod daemon_set;
mod definition;
mod deployment;
mod device;
mod endpoints;
mod event;
mod fill;
mod flow_control;
mod format;
mod immutable_data;
mod job;
mod lease;
pub mod metadata;
mod namespace;
mod network;
mod node;
mod node_selector;
mod persistent_volume;
mod persistent_volume_claim;
mod place;
pub mod pod;
mod pod_template;
mod policy;
mod priority_class;
mod quota;
mod rbac;
mod registry;
mod replica_set;
mod replication_controller;
mod resources;
mod runtime_class;
mod secret;
pub mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage;
mod volume_source;
mod warnings;
mod workload;

use jiff::Timestamp;
use serde_json::Value;

use crate::field;
use crate::meta;

pub use metadata::NameRule;
pub use place::{Errors, Place};
pub use registry::of;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    Update,
}

/// What a strategy may know about the request it serves.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub verb: Verb,
    /// Empty for the object itself, else `status`, `ephemeralcontainers`, `resize`, ….
    pub subresource: &'a str,
    pub now: Timestamp,
    /// The resource lives in namespaces.
    pub namespaced: bool,
    /// The resource has a `status` subresource.
    pub has_status: bool,
    /// Who asks, as an `authentication.k8s.io/v1` UserInfo (`username`, `uid`, `groups`, `extra`); null when unknown.
    pub requester: &'a Value,
}

/// The rules of one kind.
///
/// `default` and `validate_*` are pure in the object; a strategy has no state of its own.
pub trait Strategy: Sync {
    // Facts of the kind.

    /// How `metadata.name` may look.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }
    /// The server counts `metadata.generation`: 1 at creation, one more with each change of the desired state.
    fn counts_generation(&self) -> bool {
        false
    }
    /// The fields besides metadata and status whose change is a new generation.
    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }
    /// A PUT to a name that does not exist creates the object.
    fn allows_create_on_update(&self) -> bool {
        false
    }
    /// A PUT may leave `resourceVersion` out.
    fn allows_unconditional_update(&self) -> bool {
        true
    }
    /// Fields (as dotted paths) that a write to `subresource` never owns: server-side apply leaves them out.
    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "status" => &["spec"],
            _ => &["status"],
        }
    }
    /// How often an update reports what is wrong with the metadata. Upstream's store checks it, and most kinds check it
    /// once more; clients see every complaint.
    fn metadata_checks_on_update(&self) -> usize {
        2
    }
    /// An update also checks the metadata as if the object were new.
    fn revalidates_metadata(&self) -> bool {
        false
    }
    /// Finalizers without a domain are refused unless they are upstream's own.
    fn qualifies_finalizers(&self) -> bool {
        true
    }
    /// Labels may be changed through the `status` subresource.
    fn status_may_change_labels(&self) -> bool {
        true
    }

    // Hooks of the kind; the composed methods below call them.

    /// Upstream's `SetDefaults_*`.
    fn default(&self, _object: &mut Value) {}
    /// Changes on creation beyond the generic ones.
    fn on_create(&self, _object: &mut Value, _ctx: &Context) {}
    /// Changes on update of the object itself beyond the generic ones.
    fn on_update(&self, _new: &mut Value, _old: &Value, _ctx: &Context) {}
    /// Changes on update through the `status` subresource beyond the generic ones.
    fn on_status_update(&self, _new: &mut Value, _old: &Value, _ctx: &Context) {}
    /// What must hold for every object of the kind, metadata aside. Runs on creation, and on update of the object.
    fn rules(&self, _object: &Place, _ctx: &Context, _errors: &mut Errors) {}
    /// What a change of the object must keep.
    fn change_rules(&self, _new: &Place, _old: &Place, _ctx: &Context, _errors: &mut Errors) {}
    /// What must hold when the status is written.
    fn status_rules(&self, _new: &Place, _old: &Place, _ctx: &Context, _errors: &mut Errors) {}
    /// `Warning` headers for the writer.
    fn warnings(&self, _object: &Value, _old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        Vec::new()
    }
    /// Selectable fields beyond `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// The grace period with which `object` is deleted; `None` deletes at once. Only pods are deleted gracefully.
    fn deletion_grace_seconds(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    // What callers use.

    /// Clears what a creator may not set.
    fn prepare_create(&self, object: &mut Value, ctx: &Context) {
        if ctx.has_status {
            metadata::clear_status(object);
        }
        if self.counts_generation() {
            meta::metadata_mut(object).insert("generation".into(), 1.into());
        } else {
            meta::metadata_mut(object).remove("generation");
        }
        self.on_create(object, ctx);
    }

    /// Puts back what this write may not touch: the status on a write of the object, all but the status on a write
    /// of `/status`. Counts the generation.
    fn prepare_update(&self, new: &mut Value, old: &Value, ctx: &Context) {
        metadata::carry_over(new, old);
        if ctx.subresource == "status" {
            metadata::only_status(new, old, self.status_may_change_labels());
            self.on_status_update(new, old, ctx);
            return;
        }
        if ctx.has_status {
            metadata::keep_field(new, old, "status");
        }
        self.on_update(new, old, ctx);
        if self.counts_generation() && metadata::differs(new, old, self.generation_fields()) {
            metadata::count_generation(new, old);
        }
    }

    fn validate_create(&self, object: &Value, ctx: &Context) -> Vec<field::Error> {
        let mut errors = Errors::new();
        let root = Place::root(object);
        metadata::validate_create(&root, self.name_rule(), ctx.namespaced, &mut errors);
        if self.qualifies_finalizers() {
            metadata::qualified_finalizers(&root, &mut errors);
        }
        self.rules(&root, ctx, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value, ctx: &Context) -> Vec<field::Error> {
        let mut errors = Errors::new();
        let (new, old) = (Place::root(new), Place::root(old));
        metadata::validate_update(&new, &old, &mut errors);
        let found = errors.clone();
        (1..self.metadata_checks_on_update()).for_each(|_| errors.extend_from_slice(&found));
        if self.qualifies_finalizers() {
            metadata::qualified_finalizers(&new, &mut errors);
        }
        if self.revalidates_metadata() && ctx.subresource.is_empty() {
            metadata::validate(&new.field("metadata"), self.name_rule(), ctx.namespaced, &mut errors);
        }
        if ctx.subresource == "status" {
            self.status_rules(&new, &old, ctx, &mut errors);
        } else {
            self.rules(&new, ctx, &mut errors);
            self.change_rules(&new, &old, ctx, &mut errors);
        }
        errors
    }
}

#[cfg(test)]
mod tests;
