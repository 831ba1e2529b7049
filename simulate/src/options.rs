//! What nodes are simulated, and how long things take on them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use rand::RngExt;

/// A duration between two bounds, drawn anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub min: Duration,
    pub max: Duration,
}

impl Span {
    pub const fn exactly(duration: Duration) -> Self {
        Self { min: duration, max: duration }
    }

    pub fn draw(&self) -> Duration {
        if self.max <= self.min { self.min } else { rand::rng().random_range(self.min..=self.max) }
    }
}

/// How long things take. Annotations of a pod override all but the heartbeat.
#[derive(Clone, Debug)]
pub struct Timing {
    /// From seeing a pod to its containers running: sandbox, address, image.
    pub start: Span,
    /// From running to ready.
    pub ready: Span,
    /// From running to exiting with success, for pods that are not restarted always.
    pub run: Span,
    /// From the wish to stop to the end of the containers; never longer than the pod's grace period.
    pub stop: Span,
    /// Between two renewals of a node's lease.
    pub heartbeat: Duration,
    /// `spec.leaseDurationSeconds` of the leases.
    pub lease_duration: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start: Span::exactly(Duration::from_millis(100)),
            ready: Span::exactly(Duration::ZERO),
            run: Span::exactly(Duration::from_secs(1)),
            stop: Span::exactly(Duration::from_millis(100)),
            heartbeat: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct Shape {
    pub labels: BTreeMap<String, String>,
    /// Quantities by resource name; both capacity and allocatable.
    pub resources: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
}

impl Default for Shape {
    fn default() -> Self {
        let resources = [("cpu", "8"), ("memory", "32Gi"), ("pods", "110"), ("ephemeral-storage", "100Gi")];
        Self {
            labels: BTreeMap::new(),
            resources: resources.map(|(name, quantity)| (name.to_owned(), quantity.to_owned())).into(),
            taints: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub names: Vec<String>,
    pub shape: Shape,
    pub timing: Timing,
    /// Pod addresses are counted up from here; two runs on one cluster should not overlap.
    pub first_address: Ipv4Addr,
}

impl Options {
    pub fn new(names: Vec<String>) -> Self {
        Self { names, shape: Shape::default(), timing: Timing::default(), first_address: Ipv4Addr::new(100, 64, 0, 1) }
    }

    /// The address that stands for a node.
    pub fn node_address(&self, index: usize) -> Ipv4Addr {
        let base = u32::from(Ipv4Addr::new(172, 16, 0, 1)) + (u32::from(self.first_address) >> 8) % 4096;
        Ipv4Addr::from(base.wrapping_add(index as u32))
    }
}
