//! UDP flows that lead nowhere any more. A connection's translation lasts as long as packets come, and UDP has no end
//! that could be seen: a client that goes on sending would go on sending to an endpoint that is gone, or, if it was
//! refused before, to no endpoint at all.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use nftables::Socket;
use nftables::conntrack::Flow;
use tracing::debug;

use crate::apply::Plans;
use crate::endpoints::Backend;
use crate::metrics::Metrics;
use crate::objects::Protocol;
use crate::plan::{Frontend, Plan};

/// Which endpoints each UDP frontend has, as far as that was planned.
#[derive(Debug, Default)]
pub struct Flows {
    served: HashMap<Frontend, HashSet<Backend>>,
    by_service: HashMap<api::meta::ObjectKey, Vec<Frontend>>,
    /// Frontends whose flows have to be looked at: they lost an endpoint, went away, or got their first one.
    stale: HashMap<Frontend, HashSet<Backend>>,
}

impl Flows {
    /// Takes note of new plans, before they are applied.
    pub fn plan(&mut self, plans: &Plans) {
        for (name, families) in plans {
            let now = frontends(families);
            let before = self.by_service.remove(name).unwrap_or_default();
            for frontend in before.iter().filter(|frontend| !now.contains_key(frontend)) {
                self.served.remove(frontend);
                self.stale.insert(*frontend, HashSet::new());
            }
            for (frontend, backends) in &now {
                let had = self.served.get(frontend);
                // What never had an endpoint may have flows that were not translated at all.
                let is_first = had.is_none_or(HashSet::is_empty);
                let has_lost = had.is_some_and(|had| !had.is_subset(backends));
                // Without any endpoint there is nothing better, and the next one will come.
                if (is_first || has_lost) && !backends.is_empty() {
                    self.stale.insert(*frontend, backends.clone());
                }
            }
            if !now.is_empty() {
                self.by_service.insert(name.clone(), now.keys().copied().collect());
            }
            self.served.extend(now);
        }
    }

    /// Ends flows to what is no longer an endpoint. Called when the plans were applied, so that the next packet finds
    /// its way anew.
    pub fn clean(&mut self, socket: &mut Socket, metrics: &Metrics) -> Result<(), nftables::Error> {
        let stale = std::mem::take(&mut self.stale);
        for ipv6 in [false, true] {
            if !stale.keys().any(|frontend| frontend.address.is_ipv6() == ipv6) {
                continue;
            }
            let start = Instant::now();
            let flows = socket.flows(ipv6, |flow| leads_nowhere(flow, &stale))?;
            debug!(flows = flows.len(), "ending stale UDP flows");
            for flow in &flows {
                socket.delete_flow(flow)?;
            }
            metrics.flows_cleaned(ipv6, flows.len(), start.elapsed());
        }
        Ok(())
    }
}

fn frontends(families: &[Option<Plan>; 2]) -> HashMap<Frontend, HashSet<Backend>> {
    let ports = families.iter().flatten().flat_map(|plan| &plan.ports).filter(|port| port.protocol == Protocol::UDP.0);
    ports
        .flat_map(|port| {
            let serving: HashSet<Backend> = port.endpoints.serving.iter().copied().collect();
            port.entries.iter().map(move |entry| (entry.frontend, serving.clone()))
        })
        .collect()
}

fn leads_nowhere(flow: &Flow, stale: &HashMap<Frontend, HashSet<Backend>>) -> bool {
    let to = flow.original;
    if to.protocol != Protocol::UDP.0 {
        return false;
    }
    let any: IpAddr = if to.destination.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() };
    let at = |address| Frontend { address, protocol: Protocol::UDP.0, port: to.destination_port };
    let Some(backends) = stale.get(&at(to.destination)).or_else(|| stale.get(&at(any))) else { return false };
    !backends.contains(&Backend { address: flow.reply.source, port: flow.reply.source_port })
}
