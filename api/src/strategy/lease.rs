//! Lease.

use super::place::{Errors, Place};
use super::{Context, Strategy};

const STRATEGIES: &[&str] = &["OldestEmulationVersion"];

pub struct Lease;

impl Strategy for Lease {
    fn allows_create_on_update(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        spec.field("leaseDurationSeconds").positive(errors);
        spec.field("leaseTransitions").nonnegative(errors);
        let (strategy, preferred) = (spec.field("strategy"), spec.field("preferredHolder"));
        if strategy.is_set() && !strategy.str().contains('/') {
            strategy.one_of(STRATEGIES, errors);
        }
        if !preferred.is_empty() && strategy.is_empty() {
            errors.push(preferred.forbidden("may only be specified if `strategy` is defined"));
        }
    }
}
