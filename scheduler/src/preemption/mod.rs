//! Making room for a pod that fits nowhere: which less important pods would have to go, and on which node that costs
//! least. `plan.rs` decides; the scheduler's writers act.

mod plan;
mod victims;

pub use plan::{Outcome, best, candidates, is_leaving_for, plan};
pub use victims::Candidate;

#[cfg(test)]
mod tests;
