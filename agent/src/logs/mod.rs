//! Container logs in CRI format.
