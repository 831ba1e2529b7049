//! Deployment.

use serde_json::Value;

use super::fill::Lit::{Int, Object, Str};
use super::fill::{Rows, fill, text, with};
use super::place::{Errors, Place};
use super::pod::defaults;
use super::{Context, Strategy, metadata, warnings, workload};
use crate::meta;

const SPEC: Rows = &[
    ("replicas", Int(1)),
    ("strategy", Object),
    ("revisionHistoryLimit", Int(10)),
    ("progressDeadlineSeconds", Int(600)),
];
const ROLLING: Rows = &[("maxUnavailable", Str("25%")), ("maxSurge", Str("25%"))];
const COUNTS: &[&str] = &[
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "collisionCount",
];

pub struct Deployment;

impl Strategy for Deployment {
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, SPEC);
        with(spec, "strategy", |strategy| {
            fill(strategy, &[("type", Str("RollingUpdate"))]);
            if text(strategy, "type") == "RollingUpdate" {
                fill(strategy, &[("rollingUpdate", Object)]);
                with(strategy, "rollingUpdate", |rolling| fill(rolling, ROLLING));
            }
        });
        defaults::template(meta::child_mut(spec, "template"));
    }

    /// Annotations count too: the controller copies them to replica sets.
    fn on_update(&self, new: &mut Value, old: &Value, _ctx: &Context) {
        let annotations = |object: &Value| meta::annotations(object).filter(|a| !a.is_empty()).cloned();
        if annotations(new) != annotations(old) && !metadata::differs(new, old, &["spec"]) {
            metadata::count_generation(new, old);
        }
    }

    fn status_may_change_labels(&self) -> bool {
        false
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        spec.field("replicas").nonnegative(errors);
        workload::selector(&spec, "empty selector is invalid for deployment", errors);
        if workload::selects_template(&spec, errors) {
            workload::lasting_template(&spec.field("template"), "ReplicaSet", errors);
        }
        strategy(&spec.field("strategy"), errors);
        spec.field("minReadySeconds").nonnegative(errors);
        spec.field("revisionHistoryLimit").nonnegative(errors);
        let deadline = spec.field("progressDeadlineSeconds");
        deadline.nonnegative(errors);
        if deadline.int().is_some_and(|d| d <= spec.field("minReadySeconds").int().unwrap_or(0)) {
            errors.push(deadline.invalid("must be greater than minReadySeconds"));
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("spec").field("selector").immutable(&old.field("spec").field("selector"), errors);
    }

    fn status_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        workload::status_counts(new, COUNTS, errors);
        workload::within_replicas(new, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
        workload::available_within_ready(new, errors);
        workload::collisions(new, old, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::workload(object, old, "spec.template")
    }
}

fn strategy(strategy: &Place, errors: &mut Errors) {
    let (kind, rolling) = (strategy.field("type"), strategy.field("rollingUpdate"));
    match kind.str() {
        "Recreate" if rolling.is_set() => {
            errors.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => {
            errors.push(rolling.required("this should be defaulted and never be nil"));
        }
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.push(strategy.not_supported(&["Recreate", "RollingUpdate"])),
    }
}

fn rolling_update(rolling: &Place, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    workload::count_or_percent(&unavailable, errors);
    workload::count_or_percent(&surge, errors);
    if workload::is_zero(&unavailable) && workload::is_zero(&surge) {
        errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
    }
    workload::at_most_all(&unavailable, errors);
}
