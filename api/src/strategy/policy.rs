//! PodDisruptionBudget.

use super::place::{Errors, Place};
use super::{Context, Strategy, format, metadata, workload};

pub struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn counts_generation(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let (min, max) = (spec.field("minAvailable"), spec.field("maxUnavailable"));
        if min.is_set() && max.is_set() {
            errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
        }
        for place in [&min, &max] {
            workload::count_or_percent(place, errors);
            workload::at_most_all(place, errors);
        }
        format::label_selector(&spec.field("selector"), errors);
        spec.field("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"], errors);
    }

    fn status_rules(&self, new: &Place, _old: &Place, _ctx: &Context, errors: &mut Errors) {
        metadata::conditions(&new.field("status").field("conditions"), errors);
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        workload::status_counts(new, &counts, errors);
    }
}
