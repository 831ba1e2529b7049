//! Device claims, slices and classes, with what pods on their way to a node have been given.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api_client::ObjectKey;

use crate::objects::{Device, DeviceClass, DeviceId, ResourceClaim, ResourceSlice};

/// Devices given to one claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub claim: Arc<ResourceClaim>,
    /// Name of the request (or sub-request) and the device; `true`: shared.
    pub devices: Vec<(String, DeviceId, bool)>,
    /// The node all of them are on; absent: they can be used everywhere.
    pub node: Option<String>,
    /// Settings for drivers, `source` included.
    pub config: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Default)]
pub struct Devices {
    claims: HashMap<ObjectKey, Arc<ResourceClaim>>,
    classes: BTreeMap<String, Arc<DeviceClass>>,
    slices: BTreeMap<String, Arc<ResourceSlice>>,
    /// Devices of allocated claims.
    taken: BTreeSet<DeviceId>,
    /// By pod uid.
    granted: HashMap<String, Vec<Grant>>,
}

impl Devices {
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(&ObjectKey::new(namespace, name))
    }

    pub fn class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(name)
    }

    /// Whether the claim is being allocated for a pod on its way.
    pub fn is_pending(&self, claim: &ResourceClaim) -> bool {
        self.granted.values().flatten().any(|g| g.claim.metadata.uid == claim.metadata.uid)
    }

    /// Whether a claim has the device, or is about to.
    pub fn is_taken(&self, device: &DeviceId) -> bool {
        let pending = || self.granted.values().flatten().flat_map(|g| &g.devices);
        self.taken.contains(device) || pending().any(|(_, taken, shared)| taken == device && !shared)
    }

    /// Devices of pools that are completely known in their newest generation, with their slices.
    pub fn all(&self) -> impl Iterator<Item = (&Arc<ResourceSlice>, &Device)> {
        let mut pools: BTreeMap<(&str, &str), (i64, usize)> = BTreeMap::new();
        for slice in self.slices.values() {
            let pool = pools.entry((&slice.driver, &slice.pool)).or_default();
            if slice.generation > pool.0 {
                *pool = (slice.generation, 0);
            }
            pool.1 += usize::from(slice.generation == pool.0);
        }
        let is_complete = move |slice: &&Arc<ResourceSlice>| {
            pools.get(&(slice.driver.as_str(), slice.pool.as_str())) == Some(&(slice.generation, slice.pool_slices))
        };
        self.slices.values().filter(is_complete).flat_map(|s| s.devices.iter().map(move |d| (s, d)))
    }

    pub fn grant(&mut self, pod: &str, grants: Vec<Grant>) {
        if !grants.is_empty() {
            self.granted.insert(pod.to_owned(), grants);
        }
    }

    pub fn release(&mut self, pod: &str) {
        self.granted.remove(pod);
    }

    pub fn set_claim(&mut self, key: &ObjectKey, claim: Option<Arc<ResourceClaim>>) {
        let old = match claim {
            Some(claim) => {
                let old = self.claims.insert(key.clone(), Arc::clone(&claim));
                self.count(old, Some(&claim));
                return;
            }
            None => self.claims.remove(key),
        };
        self.count(old, None);
    }

    fn count(&mut self, old: Option<Arc<ResourceClaim>>, new: Option<&ResourceClaim>) {
        for device in old.iter().flat_map(|c| &c.allocation).flat_map(|a| &a.devices) {
            self.taken.remove(device);
        }
        self.taken.extend(new.iter().flat_map(|c| &c.allocation).flat_map(|a| &a.devices).cloned());
    }

    pub fn set_class(&mut self, name: &str, class: Option<Arc<DeviceClass>>) {
        match class {
            Some(class) => drop(self.classes.insert(name.to_owned(), class)),
            None => drop(self.classes.remove(name)),
        }
    }

    pub fn set_slice(&mut self, name: &str, slice: Option<Arc<ResourceSlice>>) {
        match slice {
            Some(slice) => drop(self.slices.insert(name.to_owned(), slice)),
            None => drop(self.slices.remove(name)),
        }
    }
}
