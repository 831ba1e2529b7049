//! What evaluations may cost. Every step pays; who runs out fails with [`Error::CostExceeded`].

use crate::error::Error;

/// Of one expression (upstream's `PerCallLimit`).
pub const RULE_COST_MAX: u64 = 1_000_000;
/// Of all expressions on one object together (upstream's `RuntimeCELCostBudget`).
pub const OBJECT_COST_MAX: u64 = 10_000_000;

#[derive(Clone, Debug)]
pub struct Budget {
    spent: u64,
    limit: u64,
}

impl Budget {
    pub fn new(limit: u64) -> Self {
        Self { spent: 0, limit }
    }

    pub fn spent(&self) -> u64 {
        self.spent
    }

    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.spent)
    }

    pub fn pay(&mut self, cost: u64) -> Result<(), Error> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(Error::CostExceeded) } else { Ok(()) }
    }
}
