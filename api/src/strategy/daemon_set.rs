//! DaemonSet.

use serde_json::Value;

use super::fill::Lit::{Int, Object, Str};
use super::fill::{fill, text, with};
use super::place::{Errors, Place};
use super::pod::{defaults, template};
use super::{Context, Strategy, format, warnings, workload};
use crate::meta;

const COUNTS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

pub struct DaemonSet;

impl Strategy for DaemonSet {
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, &[("updateStrategy", Object), ("revisionHistoryLimit", Int(10))]);
        with(spec, "updateStrategy", |strategy| {
            fill(strategy, &[("type", Str("RollingUpdate"))]);
            if text(strategy, "type") == "RollingUpdate" {
                fill(strategy, &[("rollingUpdate", Object)]);
                let rolling = meta::child_mut(strategy, "rollingUpdate");
                fill(rolling, &[("maxUnavailable", Int(1)), ("maxSurge", Int(0))]);
            }
        });
        defaults::template(meta::child_mut(spec, "template"));
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let selector = spec.field("selector");
        format::label_selector(&selector, errors);
        let template_place = spec.field("template");
        let metadata = template_place.field("metadata");
        let labels = metadata.field("labels");
        if workload::matches(&selector, &labels) == Ok(false) {
            errors.push(labels.invalid("`selector` does not match template `labels`"));
        }
        if selector.is_set() && workload::is_empty(&selector) {
            errors.push(selector.invalid("empty selector is invalid for daemonset"));
        }
        template::rules(&template_place, errors);
        workload::lasting(&template_place, "DaemonSet", errors);
        spec.field("minReadySeconds").nonnegative(errors);
        spec.field("revisionHistoryLimit").nonnegative(errors);
        update_strategy(&spec.field("updateStrategy"), errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("spec").field("selector").immutable(&old.field("spec").field("selector"), errors);
    }

    fn status_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        workload::status_counts(new, COUNTS, errors);
        workload::collisions(new, old, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::workload(object, old, "spec.template")
    }
}

fn update_strategy(strategy: &Place, errors: &mut Errors) {
    match strategy.field("type").str() {
        "OnDelete" => return,
        "RollingUpdate" => {}
        _ => {
            errors.push(strategy.not_supported(&["RollingUpdate", "OnDelete"]));
            return;
        }
    }
    let rolling = strategy.field("rollingUpdate");
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for place in [&unavailable, &surge] {
        workload::count_or_percent(place, errors);
        workload::at_most_all(place, errors);
    }
    match (workload::is_zero(&unavailable), workload::is_zero(&surge)) {
        (false, false) => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
        (true, true) => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}
