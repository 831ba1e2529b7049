//! Cluster IPs and node ports of Services: the ranges they come from, and who has which.

mod allocate;
mod ledger;
mod range;

pub use allocate::Allocator;
pub use range::{Range, RangeError};
