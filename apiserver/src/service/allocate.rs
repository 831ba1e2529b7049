//! Gives Services their cluster IPs and node ports, as the last step of mutating admission. One API server is the only
//! one to give out numbers of its range; its ledger follows the cache.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rand::RngExt;
use serde_json::{Value, json};

use api::field;
use api::status::Status;
use api::strategy::service::allocation;

use super::Range;
use super::ledger::{Ledger, Seconds};
use crate::admission::{AdmissionRequest, Operation};
use crate::cache::item::EventKind;
use crate::cache::resource::Slice;
use crate::server::Server;

/// Upstream's default range of node ports.
const PORT_FIRST: u16 = 30_000;
const PORT_LAST: u16 = 32_767;
/// Ports at the beginning of the range that are given out last, so that chosen ones rarely meet a given one.
const PORTS_FOR_CHOICE: u16 = 86;

pub struct Allocator {
    state: Mutex<State>,
    began: Instant,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    /// Up to where the ledger has followed the cache; `None` before the first time.
    revision: Option<u64>,
}

impl Default for Allocator {
    fn default() -> Self {
        Self { state: Mutex::default(), began: Instant::now() }
    }
}

impl std::fmt::Debug for Allocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allocator").finish_non_exhaustive()
    }
}

impl Allocator {
    /// Completes the spec of a Service that is created or updated. In a dry run nothing is promised.
    pub fn admit(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let creates_or_updates = matches!(request.operation, Operation::Create | Operation::Update);
        if !request.is("", "services", "") || !creates_or_updates {
            return Ok(());
        }
        let range = Range::parse(&server.options.service_cidr).map_err(Status::internal)?;
        let name = request.object_name().to_owned();
        let refuse = |errors: &[field::Error]| Err(Status::invalid("", "Service", &name, errors));
        let old = request.old_object.get("spec");
        let spec = api::meta::child_mut(&mut request.object, "spec");
        allocation::normalize(spec, old);
        if let Some(old) = old {
            allocation::carry_allocated(spec, old);
        }
        let family = if range.is_ipv4() { "IPv4" } else { "IPv6" };
        let errors = allocation::init_families(spec, old, &[family]);
        if !errors.is_empty() {
            return refuse(&errors);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.follow(server);
        let mut grant = Grant {
            ledger: &mut state.ledger,
            service: format!("{}/{name}", request.namespace),
            now: self.began.elapsed().as_secs(),
            promises: !request.dry_run,
        };
        grant.addresses(spec, old, &range).and_then(|()| grant.ports(spec)).or_else(|failure| match failure {
            Failure::Field(error) => refuse(&[error]),
            Failure::Full(what) => Err(Status::internal(format!("failed to allocate a {what}: range is full"))),
        })
    }
}

impl State {
    fn follow(&mut self, server: &Server) {
        let Some((_, cache)) = server.resource("", "services") else { return };
        let snapshot = cache.snapshot();
        let events = self.revision.and_then(|seen| cache.channel(&Slice::All).since(seen));
        let Some(events) = events else {
            self.ledger = Ledger::default();
            for (key, item) in snapshot.iter() {
                self.ledger.observe(key, Some(&item.value()));
            }
            self.revision = Some(snapshot.revision());
            return;
        };
        for event in events.iter().rev() {
            let object = (event.kind != EventKind::Deleted).then(|| event.item.value());
            self.ledger.observe(&event.key, object.as_ref());
            self.revision = Some(event.revision());
        }
    }
}

enum Failure {
    Field(field::Error),
    Full(&'static str),
}

struct Grant<'l> {
    ledger: &'l mut Ledger,
    /// `namespace/name`.
    service: String,
    now: Seconds,
    promises: bool,
}

impl Grant<'_> {
    /// What an existing Service already has stays as the writer put it; whether it may change, validation says.
    fn addresses(&mut self, spec: &mut Value, old: Option<&Value>, range: &Range) -> Result<(), Failure> {
        if !allocation::needs_cluster_ip(spec) || allocation::is_headless(spec) {
            return Ok(());
        }
        let families = spec.get("ipFamilies").and_then(Value::as_array).map_or(0, Vec::len);
        let mut addresses: Vec<String> = allocation::cluster_ips(spec).into_iter().map(str::to_owned).collect();
        addresses.resize(addresses.len().max(families), String::new());
        let settled =
            old.filter(|old| allocation::needs_cluster_ip(old)).map_or(0, |old| allocation::cluster_ips(old).len());
        for index in settled..addresses.len() {
            let address = match addresses[index].as_str() {
                "" => self.any_address(range).ok_or(Failure::Full("serviceIP"))?,
                text => {
                    let refuse = |why: String| {
                        let detail = format!("failed to allocate IP {text}: {why}");
                        Failure::Field(field::Error::invalid("spec.clusterIPs", json!(addresses), detail))
                    };
                    // Not an address at all: validation says so, in its own words.
                    let Ok(address) = text.parse::<IpAddr>() else { continue };
                    if range.offset(address).is_none() {
                        return Err(refuse(format!(
                            "the provided network does not match the current range; the range of valid IPs is {range}"
                        )));
                    }
                    if !self.ledger.address_is_free(address, &self.service, self.now) {
                        return Err(refuse("provided IP is already allocated".to_owned()));
                    }
                    address
                }
            };
            if self.promises {
                self.ledger.promise_address(address, &self.service, self.now);
            }
            addresses[index] = address.to_string();
        }
        if let Some(first) = addresses.first() {
            spec["clusterIP"] = first.as_str().into();
            spec["clusterIPs"] = json!(addresses);
        }
        Ok(())
    }

    /// A free address, from the upper part of the range while it has any: people choose from the lower.
    fn any_address(&self, range: &Range) -> Option<IpAddr> {
        let size = range.size();
        let for_choice = (size / 16).clamp(16, 256).min(size);
        let free = |offset: &u32| {
            range.address(*offset).is_some_and(|a| self.ledger.address_is_free(a, &self.service, self.now))
        };
        let offset = from_random(for_choice + 1, size).find(free).or_else(|| from_random(1, for_choice).find(free))?;
        range.address(offset)
    }

    fn ports(&mut self, spec: &mut Value) -> Result<(), Failure> {
        if allocation::needs_node_ports(spec) {
            self.node_ports(spec)?;
        }
        if allocation::needs_health_check_port(spec) {
            let asked = spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0);
            let port = self.port(asked, "spec.healthCheckNodePort")?;
            spec["healthCheckNodePort"] = port.into();
        }
        Ok(())
    }

    fn node_ports(&mut self, spec: &mut Value) -> Result<(), Failure> {
        let asked_by_others = allocation::node_ports(spec);
        // The same number may serve several protocols of one service.
        let mut given: Vec<(String, i64, u16)> = Vec::new();
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        for (index, port) in ports.enumerate() {
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
            let number = port.get("port").and_then(Value::as_i64).unwrap_or(0);
            let asked = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
            let shared = given.iter().find(|(other, n, _)| *n == number && *other != protocol).map(|(.., p)| *p);
            let node_port = match shared.filter(|p| asked == 0 && !asked_by_others.contains(&i64::from(*p))) {
                Some(shared) => shared,
                None => self.port(asked, &format!("spec.ports[{index}].nodePort"))?,
            };
            given.push((protocol, number, node_port));
            port["nodePort"] = node_port.into();
        }
        Ok(())
    }

    /// The port asked for, or any when none is.
    fn port(&mut self, asked: i64, path: &str) -> Result<u16, Failure> {
        let refuse = |why: String| Failure::Field(field::Error::invalid(path, asked, why));
        let port = if asked == 0 {
            let free = |port: &u32| {
                u16::try_from(*port).is_ok_and(|port| self.ledger.port_is_free(port, &self.service, self.now))
            };
            let (first, last) = (u32::from(PORT_FIRST), u32::from(PORT_LAST));
            let chosen = first + u32::from(PORTS_FOR_CHOICE);
            let port = from_random(chosen, last).find(free).or_else(|| from_random(first, chosen - 1).find(free));
            port.and_then(|p| u16::try_from(p).ok()).ok_or(Failure::Full("nodePort"))?
        } else {
            let port = u16::try_from(asked).ok().filter(|p| (PORT_FIRST..=PORT_LAST).contains(p)).ok_or_else(|| {
                refuse(format!(
                    "provided port is not in the valid range. The range of valid ports is {PORT_FIRST}-{PORT_LAST}"
                ))
            })?;
            if !self.ledger.port_is_free(port, &self.service, self.now) {
                return Err(refuse("provided port is already allocated".to_owned()));
            }
            port
        };
        if self.promises {
            self.ledger.promise_port(port, &self.service, self.now);
        }
        Ok(port)
    }
}

/// Every number from `first` to `last`, beginning somewhere.
fn from_random(first: u32, last: u32) -> impl Iterator<Item = u32> {
    let count = (last + 1).saturating_sub(first);
    let start = if count == 0 { 0 } else { rand::rng().random_range(0..count) };
    (0..count).map(move |index| first + (start + index) % count)
}
