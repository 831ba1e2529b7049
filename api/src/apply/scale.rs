//! Ownership through the `scale` subresource: a Scale shows only who owns the replica count, as `.spec.replicas` in
//! `autoscaling/v1`, and what a write to it changes goes back to the scaled object (upstream's `ScaleHandler`).

use serde_json::Value;

use super::entry::{Entry, Operation};
use super::managed::Managed;
use super::set::Set;

const SCALE_VERSION: &str = "autoscaling/v1";
const REPLICAS_IN_SCALE: &str = "spec.replicas";

/// Where the scaled resource keeps its replica count.
pub struct Scale<'a> {
    /// The version of the scaled object in the request.
    pub api_version: &'a str,
    /// Per version of the resource, the dotted path of the replica count.
    pub replicas: &'a [(&'a str, &'a str)],
}

impl Scale<'_> {
    fn replicas_in(&self, api_version: &str) -> Option<Set> {
        let (_, path) = self.replicas.iter().find(|(version, _)| *version == api_version)?;
        Some(Set::from_dotted(&[path.trim_start_matches('.')]))
    }

    /// The managedFields a Scale of `parent` shows.
    pub fn fields_of_scale(&self, parent: &Value) -> Option<Value> {
        let managed = Managed::parse(super::managed::of(parent)).ok()?;
        let mut scale = Managed::default();
        for entry in managed.entries {
            let Some(path) = self.replicas_in(&entry.api_version) else { continue };
            if path.difference(&entry.set()).is_empty() {
                let mut identity = entry.identity;
                if identity.operation == Operation::Update {
                    identity.api_version = SCALE_VERSION.to_owned();
                }
                scale.add(Entry::new(identity, SCALE_VERSION, entry.time, Set::from_dotted(&[REPLICAS_IN_SCALE])));
            }
        }
        scale.into_value()
    }

    /// The managedFields of `parent` after a Scale with managedFields `scale` was written. Unlike upstream's, entries of
    /// updates that the write does not concern stay whole, and new entries keep the time of the write.
    pub fn fields_of_parent(&self, parent: &Value, scale: &Value) -> Option<Value> {
        let managed = Managed::parse(super::managed::of(parent)).ok()?;
        let mut writers = Managed::parse(super::managed::of(scale)).ok()?;
        let mut out = Managed::default();
        for entry in managed.entries {
            let Some(path) = self.replicas_in(&entry.api_version) else { continue };
            let set = entry.set();
            let mut as_writer = entry.identity.clone();
            if as_writer.operation == Operation::Update {
                as_writer.api_version = SCALE_VERSION.to_owned();
            }
            let owns_replicas = path.difference(&set).is_empty();
            if owns_replicas && writers.remove(&as_writer).is_none() {
                // Somebody else has the replica count now.
                let (identity, version) = (entry.identity, entry.api_version);
                out.add(Entry::new(identity, &version, entry.time, set.difference(&path)));
            } else {
                out.add(entry);
            }
        }
        let replicas = self.replicas_in(self.api_version)?;
        let replicas_in_scale = Set::from_dotted(&[REPLICAS_IN_SCALE]);
        for writer in writers.entries {
            if !replicas_in_scale.difference(&writer.set()).is_empty() {
                continue;
            }
            let mut identity = writer.identity;
            if identity.operation == Operation::Update {
                identity.api_version = self.api_version.to_owned();
            }
            out.add(Entry::new(identity, self.api_version, writer.time, replicas.clone()));
        }
        out.into_value()
    }
}
