//! Devices for claims on one node: requests in order, each takes the first devices that suit, and what came before is
//! taken back where a later one gets none (`structured.Allocator`). Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::{Devices, Grant};
use crate::objects::{Alternative, Device, DeviceId, Node, Place, ResourceClaim, ResourceSlice};
use crate::plugins::node_affinity;

/// Devices of one claim at most (`AllocationResultsMaxSize`).
const DEVICES_MAX: usize = 32;
/// Steps of the search per node; a claim whose constraints need more is refused there.
const STEPS_MAX: usize = 10_000;

type Candidate<'a> = (&'a Arc<ResourceSlice>, &'a Device);

struct Search<'a> {
    devices: &'a Devices,
    here: Vec<Candidate<'a>>,
    taken: BTreeSet<DeviceId>,
    steps: usize,
    /// A selector that could not be evaluated: nothing is allocated then.
    failure: Option<String>,
}

fn id((slice, device): Candidate<'_>) -> DeviceId {
    (slice.driver.clone(), slice.pool.clone(), device.name.clone())
}

/// Grants for all claims, or why there are none on this node.
pub fn all(claims: &[Arc<ResourceClaim>], devices: &Devices, node: &Node) -> Result<Vec<Grant>, Cow<'static, str>> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let reaches = |place: &Place| match place {
        Place::Nowhere => false,
        Place::Node(name) => *name == node.metadata.name,
        Place::Nodes(selector) => node_affinity::selector_matches(selector, node),
        Place::Everywhere => true,
    };
    let here = devices.all().filter(|(slice, device)| reaches(&slice.place) && !device.is_special).collect();
    let mut search = Search { devices, here, taken: BTreeSet::new(), steps: 0, failure: None };
    let mut grants = Vec::new();
    for claim in claims {
        let chosen = search.claim(claim);
        if let Some(failure) = search.failure {
            return Err(format!("claim {}: {failure}", claim.metadata.key()).into());
        }
        let Some(chosen) = chosen else { return Err("cannot allocate all claims".into()) };
        grants.push(grant(claim, chosen, devices, node));
    }
    Ok(grants)
}

/// A device chosen for a request.
struct Chosen<'a> {
    request: &'a str,
    alternative: &'a Alternative,
    device: Candidate<'a>,
}

impl<'a> Search<'a> {
    fn claim(&mut self, claim: &'a Arc<ResourceClaim>) -> Option<Vec<Chosen<'a>>> {
        let mut chosen = Vec::new();
        if !self.request(claim, 0, &mut chosen) || chosen.len() > DEVICES_MAX {
            return None;
        }
        self.taken.extend(chosen.iter().filter(|c| !c.alternative.is_admin).map(|c| id(c.device)));
        Some(chosen)
    }

    /// Serves the requests from `index` on.
    fn request(&mut self, claim: &'a ResourceClaim, index: usize, chosen: &mut Vec<Chosen<'a>>) -> bool {
        let Some(request) = claim.requests.get(index) else { return true };
        for alternative in &request.alternatives {
            let mut suitable: Vec<Candidate<'a>> = Vec::new();
            for candidate in &self.here {
                match self.suits(*candidate, alternative) {
                    Ok(true) => suitable.push(*candidate),
                    Ok(false) => {}
                    Err(failure) => {
                        self.failure.get_or_insert(failure);
                        return false;
                    }
                }
            }
            let count = alternative.count.unwrap_or(suitable.len());
            if count > 0 && self.devices_for(claim, index, alternative, &suitable, 0, count, chosen) {
                return true;
            }
        }
        false
    }

    /// Takes `count` more of `suitable` from `from` on, then goes on with the next request.
    #[expect(clippy::too_many_arguments, reason = "one frame of the search")]
    fn devices_for(
        &mut self,
        claim: &'a ResourceClaim,
        index: usize,
        alternative: &'a Alternative,
        suitable: &[Candidate<'a>],
        from: usize,
        count: usize,
        chosen: &mut Vec<Chosen<'a>>,
    ) -> bool {
        if count == 0 {
            return self.request(claim, index + 1, chosen);
        }
        for (position, candidate) in suitable.iter().enumerate().skip(from) {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return false;
            }
            let is_free = alternative.is_admin || !chosen.iter().any(|c| id(c.device) == id(*candidate));
            if !is_free {
                continue;
            }
            let request = &claim.requests[index].name;
            chosen.push(Chosen { request, alternative, device: *candidate });
            if constraints_hold(claim, chosen)
                && self.devices_for(claim, index, alternative, suitable, position + 1, count - 1, chosen)
            {
                return true;
            }
            chosen.pop();
        }
        false
    }

    fn suits(&self, candidate: Candidate<'_>, alternative: &Alternative) -> Result<bool, String> {
        let device = id(candidate);
        if !(alternative.is_admin || !(self.devices.is_taken(&device) || self.taken.contains(&device))) {
            return Ok(false);
        }
        let class = self.devices.class(&alternative.class);
        let selectors = class.into_iter().flat_map(|c| &c.selectors).chain(&alternative.selectors);
        for selector in selectors {
            let matches = selector.matches(&candidate.1.seen);
            if !matches.map_err(|error| format!("request {}: CEL runtime error: {error}", alternative.name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Devices that must share an attribute all have it, with one value.
fn constraints_hold(claim: &ResourceClaim, chosen: &[Chosen<'_>]) -> bool {
    claim.constraints.iter().all(|constraint| {
        let Some(attribute) = &constraint.match_attribute else { return false };
        let concerns = |c: &&Chosen<'_>| {
            let names = &constraint.requests;
            names.is_empty() || names.iter().any(|n| n == c.request || *n == c.alternative.name)
        };
        let mut values = chosen.iter().filter(concerns).map(|c| c.device.1.attributes.get(attribute));
        let first = values.next();
        first.is_none_or(|first| first.is_some() && values.all(|value| value == first))
    })
}

fn grant(claim: &Arc<ResourceClaim>, chosen: Vec<Chosen<'_>>, devices: &Devices, node: &Node) -> Grant {
    let is_local = chosen.iter().any(|c| c.device.0.place != Place::Everywhere);
    let mut config: Vec<Value> = Vec::new();
    for one in &chosen {
        for entry in devices.class(&one.alternative.class).into_iter().flat_map(|c| &c.config) {
            let entry = with(entry, json!({ "source": "FromClass", "requests": [one.alternative.name] }));
            if !config.contains(&entry) {
                config.push(entry);
            }
        }
    }
    config.extend(claim.config.iter().map(|entry| with(entry, json!({ "source": "FromClaim" }))));
    Grant {
        claim: Arc::clone(claim),
        devices: chosen.iter().map(|c| (c.alternative.name.clone(), id(c.device), c.alternative.is_admin)).collect(),
        node: is_local.then(|| node.metadata.name.clone()),
        config,
    }
}

fn with(entry: &Value, more: Value) -> Value {
    let mut entry = entry.clone();
    if let (Value::Object(entry), Value::Object(more)) = (&mut entry, more) {
        entry.extend(more);
    }
    entry
}
