//! One module per controller; each has a pure `plan.rs` and a thin `mod.rs` that reads caches and acts.

pub mod certificates;
pub mod claim;
pub mod clusterdns;
pub mod clusterrole;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod garbage;
pub mod history;
pub mod int_or_percent;
pub mod job;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod podgc;
pub mod pods;
pub mod replicaset;
pub mod scale;
pub mod serviceaccount;
pub mod statefulset;
pub mod tainteviction;
pub mod template;
pub mod ttlafterfinished;
