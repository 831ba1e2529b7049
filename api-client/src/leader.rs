//! Leader election by Lease.
