//! Device claims and what answers them (`resource.k8s.io/v1`), as far as scheduling reads them.

use std::collections::{BTreeMap, BTreeSet};

use api_client::Meta;
use k8s_openapi::api::core::v1::NodeSelector;
use serde::Deserialize;
use serde_json::Value;

use super::device_selector::{Seen, Selector};

/// A claim for devices. One with an allocation has its devices.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "wire::Claim")]
pub struct ResourceClaim {
    pub metadata: Meta,
    pub requests: Vec<DeviceRequest>,
    pub constraints: Vec<DeviceConstraint>,
    /// What drivers are told, as the claim has it.
    pub config: Vec<Value>,
    pub allocation: Option<Allocation>,
    /// Uids of the pods that use it.
    pub reserved_for: BTreeSet<String>,
}

api_client::projection!(ResourceClaim as k8s_openapi::api::resource::v1::ResourceClaim);

/// Devices of one kind. The first alternative that can be had is taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceRequest {
    pub name: String,
    pub alternatives: Vec<Alternative>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alternative {
    /// `REQUEST/SUBREQUEST` among several, else the request's name.
    pub name: String,
    pub class: String,
    /// All of them must hold.
    pub selectors: Vec<Selector>,
    /// Absent: all there are on the node.
    pub count: Option<usize>,
    /// Devices are shared with their users, for monitoring.
    pub is_admin: bool,
}

/// Devices of these requests (all if none is named) have the same value of an attribute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceConstraint {
    pub requests: Vec<String>,
    /// `DOMAIN/NAME`.
    pub match_attribute: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// Those given exclusively.
    pub devices: BTreeSet<DeviceId>,
    /// Where the devices can be used; absent: everywhere.
    pub nodes: Option<NodeSelector>,
}

/// Driver, pool and name.
pub type DeviceId = (String, String, String);

/// Devices that a driver offers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "wire::Slice")]
pub struct ResourceSlice {
    pub metadata: Meta,
    pub driver: String,
    pub pool: String,
    pub generation: i64,
    /// How many slices of this generation make up the pool.
    pub pool_slices: usize,
    pub place: Place,
    pub devices: Vec<Device>,
}

api_client::projection!(ResourceSlice as k8s_openapi::api::resource::v1::ResourceSlice);

/// Where devices can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Place {
    /// Said in a way that is not known here: nowhere.
    #[default]
    Nowhere,
    Node(String),
    Nodes(NodeSelector),
    Everywhere,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    pub name: String,
    /// By `DOMAIN/NAME`; the value as it stands in the slice.
    pub attributes: BTreeMap<String, Value>,
    /// As selectors see it.
    pub seen: Seen,
    /// It is tainted against being taken, or made up from shared counters: neither is understood here.
    pub is_special: bool,
}

/// A kind of devices.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "wire::Class")]
pub struct DeviceClass {
    pub metadata: Meta,
    pub selectors: Vec<Selector>,
    pub config: Vec<Value>,
}

api_client::projection!(DeviceClass as k8s_openapi::api::resource::v1::DeviceClass);

/// The shapes on the wire.
mod wire {
    use super::*;

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Claim {
        metadata: Meta,
        spec: ClaimSpec,
        status: ClaimStatus,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ClaimSpec {
        devices: Devices,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Devices {
        requests: Vec<Request>,
        constraints: Vec<DeviceConstraint>,
        config: Vec<Value>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Request {
        name: String,
        exactly: Option<Exact>,
        first_available: Vec<Exact>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Exact {
        name: String,
        device_class_name: String,
        selectors: Vec<RawSelector>,
        allocation_mode: String,
        count: Option<usize>,
        admin_access: bool,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct RawSelector {
        cel: Cel,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Cel {
        expression: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct ClaimStatus {
        allocation: Option<RawAllocation>,
        reserved_for: Vec<Consumer>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Consumer {
        uid: String,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct RawAllocation {
        devices: Results,
        node_selector: Option<NodeSelector>,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Results {
        results: Vec<DeviceResult>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct DeviceResult {
        driver: String,
        pool: String,
        device: String,
        admin_access: bool,
    }

    fn expressions(selectors: Vec<RawSelector>) -> Vec<Selector> {
        selectors.into_iter().map(|s| Selector::new(&s.cel.expression)).collect()
    }

    impl Exact {
        fn alternative(self, name: String) -> Alternative {
            let is_all = self.allocation_mode == "All";
            Alternative {
                name,
                class: self.device_class_name,
                selectors: expressions(self.selectors),
                count: (!is_all).then(|| self.count.unwrap_or(1)),
                is_admin: self.admin_access,
            }
        }
    }

    impl From<Request> for DeviceRequest {
        fn from(request: Request) -> Self {
            let Request { name, exactly, first_available } = request;
            let several = first_available.into_iter().map(|sub| {
                let full = format!("{name}/{}", sub.name);
                sub.alternative(full)
            });
            let mut alternatives: Vec<Alternative> = several.collect();
            alternatives.extend(exactly.map(|one| one.alternative(name.clone())));
            Self { name, alternatives }
        }
    }

    impl From<Claim> for ResourceClaim {
        fn from(claim: Claim) -> Self {
            let Devices { requests, constraints, config } = claim.spec.devices;
            let exclusive = |r: Vec<DeviceResult>| {
                r.into_iter().filter(|d| !d.admin_access).map(|d| (d.driver, d.pool, d.device)).collect()
            };
            Self {
                metadata: claim.metadata,
                requests: requests.into_iter().map(DeviceRequest::from).collect(),
                constraints,
                config,
                allocation: claim
                    .status
                    .allocation
                    .map(|a| Allocation { devices: exclusive(a.devices.results), nodes: a.node_selector }),
                reserved_for: claim.status.reserved_for.into_iter().map(|c| c.uid).collect(),
            }
        }
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Slice {
        metadata: Meta,
        spec: SliceSpec,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct SliceSpec {
        driver: String,
        pool: Pool,
        node_name: Option<String>,
        all_nodes: bool,
        node_selector: Option<NodeSelector>,
        devices: Vec<RawDevice>,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Pool {
        name: String,
        generation: i64,
        resource_slice_count: usize,
    }

    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct RawDevice {
        name: String,
        attributes: BTreeMap<String, Value>,
        capacity: BTreeMap<String, Value>,
        allow_multiple_allocations: bool,
        taints: Vec<Value>,
        consumes_counters: Vec<Value>,
    }

    impl From<Slice> for ResourceSlice {
        fn from(slice: Slice) -> Self {
            let spec = slice.spec;
            let place = match (spec.node_name, spec.all_nodes, spec.node_selector) {
                (Some(node), ..) => Place::Node(node),
                (None, true, _) => Place::Everywhere,
                (None, false, Some(selector)) => Place::Nodes(selector),
                (None, false, None) => Place::Nowhere,
            };
            let driver = spec.driver;
            let qualified = |name: String| if name.contains('/') { name } else { format!("{driver}/{name}") };
            let device = |d: RawDevice| Device {
                seen: Seen::new(&driver, d.allow_multiple_allocations, &d.attributes, &d.capacity),
                name: d.name,
                attributes: d.attributes.into_iter().map(|(name, value)| (qualified(name), value)).collect(),
                is_special: !d.taints.is_empty() || !d.consumes_counters.is_empty(),
            };
            Self {
                metadata: slice.metadata,
                pool: spec.pool.name,
                generation: spec.pool.generation,
                pool_slices: spec.pool.resource_slice_count,
                place,
                devices: spec.devices.into_iter().map(device).collect(),
                driver,
            }
        }
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    pub struct Class {
        metadata: Meta,
        spec: ClassSpec,
    }

    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct ClassSpec {
        selectors: Vec<RawSelector>,
        config: Vec<Value>,
    }

    impl From<Class> for DeviceClass {
        fn from(class: Class) -> Self {
            let ClassSpec { selectors, config } = class.spec;
            Self { metadata: class.metadata, selectors: expressions(selectors), config }
        }
    }
}
