//! Event recording: core/v1 events with aggregation and counts.
