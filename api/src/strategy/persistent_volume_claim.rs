//! PersistentVolumeClaim.

use serde_json::Value;

use super::Strategy;
use super::fill::Lit::{Object, Str};
use super::fill::{fill, fill_at, with};
use super::place::{Errors, Place};

pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        fill(object, &[("spec", Object), ("status", Object)]);
        fill_at(object, "status", &[("phase", Str("Pending"))]);
        with(object, "spec", default_spec);
    }
}

/// The defaults of a claim's spec, in a claim or in a template of claims.
pub fn default_spec(spec: &mut Value) {
    fill(spec, &[("volumeMode", Str("Filesystem")), ("resources", Object)]);
}

pub fn spec_rules(_spec: &Place, _errors: &mut Errors) {}
