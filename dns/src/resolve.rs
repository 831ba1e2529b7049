//! One question, one answer: from the cluster's zone, from the rest of the client's search path, or from outside.
//!
//! A pod's resolver appends its search domains one after the other, a round trip each. The first of them tells which
//! namespace the pod is in; when nothing has that name, the rest of the path is tried here and the answer comes as an
//! alias, so that any name takes a pod one round trip.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api_client::{Cache, Snapshot};
use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::seq::SliceRandom;
use tracing::debug;

use crate::forward::{Forwarder, UDP_PAYLOAD_BYTES};
use crate::objects::{BY_POD_IP, EndpointSlice, Pod, Service};
use crate::resolv_conf::ResolvConf;
use crate::zone::{Found, TTL_SECONDS, Zone};

/// Longest chain of aliases that is followed.
const ALIASES_MAX: usize = 8;
/// How long clients may keep an answer that has expired and is all there is (RFC 8767).
const STALE_TTL_SECONDS: u32 = 30;

/// Where answers come from.
pub struct Sources {
    pub domain: Name,
    pub services: Cache<Service>,
    pub slices: Cache<EndpointSlice>,
    /// The pods of this node.
    pub pods: Cache<Pod>,
    pub host: ArcSwap<ResolvConf>,
    /// Asked instead of the host's servers, where it is not empty.
    pub servers: Vec<SocketAddr>,
    pub forwarder: Forwarder,
}

/// An answer before it is a message.
#[derive(Debug)]
struct Outcome {
    code: ResponseCode,
    authoritative: bool,
    authentic: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
}

impl Outcome {
    fn failed() -> Self {
        Self {
            code: ResponseCode::ServFail,
            authoritative: false,
            authentic: false,
            answers: Vec::new(),
            authorities: Vec::new(),
        }
    }
}

impl Sources {
    /// The answer to `request`, sent by `client`. Always a message: what cannot be answered gets its code.
    pub async fn reply(&self, request: &Message, client: IpAddr) -> Message {
        let mut reply = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
        reply.metadata = Metadata::response_from_request(&request.metadata);
        reply.metadata.recursion_available = true;
        reply.queries = request.queries.clone();
        if let Some(asked) = &request.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD_BYTES).set_version(0).set_dnssec_ok(asked.flags().dnssec_ok);
            reply.set_edns(edns);
        }
        let question = match acceptable(request) {
            Ok(question) => question,
            Err(code) => {
                reply.metadata.response_code = code;
                return reply;
            }
        };
        let dnssec_ok = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let (name, kind) = (question.name(), question.query_type());
        let mut outcome = self.find(name, kind, dnssec_ok).await;
        if outcome.code == ResponseCode::NXDomain
            && outcome.answers.is_empty()
            && let Some(completed) = self.complete(name, kind, dnssec_ok, client).await
        {
            outcome = completed;
        }
        reply.metadata.response_code = outcome.code;
        reply.metadata.authoritative = outcome.authoritative;
        reply.metadata.authentic_data = outcome.authentic;
        reply.answers = outcome.answers;
        reply.authorities = outcome.authorities;
        reply
    }

    /// `None` until the caches have been filled: an empty zone would deny names that exist.
    fn zone(&self) -> Option<Zone> {
        let filled = self.services.is_synced() && self.slices.is_synced();
        filled.then(|| Zone::new(self.domain.clone(), self.services.snapshot(), self.slices.snapshot()))
    }

    async fn find(&self, name: &Name, kind: RecordType, dnssec_ok: bool) -> Outcome {
        let mut name = name.clone();
        let mut answers = Vec::new();
        for _ in 0..ALIASES_MAX {
            if !self.domain.zone_of(&name) {
                return self.outside(&name, kind, dnssec_ok, answers).await;
            }
            let Some(zone) = self.zone() else { return Outcome::failed() };
            let labels = zone.labels(&name).unwrap_or_default();
            let (code, found) = match zone.lookup(&labels, kind) {
                Found::Alias(target) => {
                    answers.push(Record::from_rdata(name, TTL_SECONDS, RData::CNAME(CNAME(target.clone()))));
                    if kind == RecordType::CNAME {
                        return ours(&zone, ResponseCode::NoError, answers);
                    }
                    name = target;
                    continue;
                }
                Found::Records(mut records) => {
                    // Clients take the first: spread them.
                    records.shuffle(&mut rand::rng());
                    (ResponseCode::NoError, records)
                }
                Found::NoData => (ResponseCode::NoError, Vec::new()),
                Found::NoName => (ResponseCode::NXDomain, Vec::new()),
            };
            answers.extend(found.into_iter().map(|data| Record::from_rdata(name.clone(), TTL_SECONDS, data)));
            return ours(&zone, code, answers);
        }
        Outcome::failed()
    }

    async fn outside(&self, name: &Name, kind: RecordType, dnssec_ok: bool, mut answers: Vec<Record>) -> Outcome {
        if let Some(records) = self.reverse(name, kind) {
            let Some(zone) = self.zone() else { return Outcome::failed() };
            return ours(&zone, ResponseCode::NoError, records);
        }
        let host = self.host.load_full();
        let servers = if self.servers.is_empty() { &host.servers } else { &self.servers };
        match self.forwarder.ask(name, kind, dnssec_ok, servers).await {
            Ok(held) => {
                let aged = |record: &Record| {
                    let mut record = record.clone();
                    record.ttl =
                        if held.expired { STALE_TTL_SECONDS } else { record.ttl.saturating_sub(held.age_seconds) };
                    record
                };
                answers.extend(held.answer.answers.iter().map(aged));
                Outcome {
                    code: held.answer.code,
                    authoritative: false,
                    authentic: held.answer.authentic,
                    answers,
                    authorities: held.answer.authorities.iter().map(aged).collect(),
                }
            }
            Err(error) => {
                debug!(%name, ?kind, %error, "a name outside the cluster could not be resolved");
                Outcome { answers, ..Outcome::failed() }
            }
        }
    }

    /// The names of an address of the cluster; `None` leaves the question to others.
    fn reverse(&self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        if kind != RecordType::PTR {
            return None;
        }
        let network = name.parse_arpa_name().ok()?;
        if network.prefix_len() != network.max_prefix_len() {
            return None;
        }
        let names = self.zone()?.reverse(network.addr());
        let record = |target| Record::from_rdata(name.clone(), TTL_SECONDS, RData::PTR(PTR(target)));
        (!names.is_empty()).then(|| names.into_iter().map(record).collect())
    }

    /// Tries the rest of the client's search path for a name that its first search domain has made.
    async fn complete(&self, name: &Name, kind: RecordType, dnssec_ok: bool, client: IpAddr) -> Option<Outcome> {
        if !matches!(kind, RecordType::A | RecordType::AAAA) {
            return None;
        }
        let pods = self.pods.snapshot();
        let namespace = namespace_of(&pods, client)?;
        let short = shortened(name, &self.domain, &namespace)?;
        for candidate in candidates(&short, &self.domain, &self.host.load().searches) {
            let found = self.find(&candidate, kind, dnssec_ok).await;
            match found.code {
                ResponseCode::NXDomain => {}
                ResponseCode::NoError => return Some(aliased(name, candidate, found)),
                // The client's own next question will tell it what fails.
                _ => return None,
            }
        }
        None
    }
}

fn namespace_of(pods: &Arc<Snapshot<Pod>>, client: IpAddr) -> Option<String> {
    let address = client.to_string();
    // A finished pod may have left its address to another.
    pods.indexed(BY_POD_IP.name, &address).last().map(|pod| pod.namespace().to_owned())
}

/// What the client's program asked for, if `name` is that and the first search domain of `namespace`.
fn shortened(name: &Name, domain: &Name, namespace: &str) -> Option<Name> {
    let first = Name::from_labels([namespace.as_bytes(), b"svc"]).ok()?.append_domain(domain).ok()?;
    let count = usize::from(name.num_labels().checked_sub(first.num_labels())?);
    if count == 0 || !first.zone_of(name) {
        return None;
    }
    Name::from_labels(name.iter().take(count)).ok()
}

/// The rest of the search path. A single label is not asked for alone: that would tell the world our names.
fn candidates(short: &Name, domain: &Name, searches: &[Name]) -> Vec<Name> {
    let services = Name::from_labels([b"svc".as_slice()]).and_then(|n| n.append_domain(domain)).ok();
    let domains = services.into_iter().chain([domain.clone()]).chain(searches.iter().cloned());
    let mut found: Vec<Name> = domains.filter_map(|d| relative(short).append_domain(&d).ok()).collect();
    if short.num_labels() > 1 {
        let mut absolute = short.clone();
        absolute.set_fqdn(true);
        found.push(absolute);
    }
    found
}

fn relative(name: &Name) -> Name {
    let mut name = name.clone();
    name.set_fqdn(false);
    name
}

fn aliased(name: &Name, target: Name, found: Outcome) -> Outcome {
    let alias = Record::from_rdata(name.clone(), TTL_SECONDS, RData::CNAME(CNAME(target)));
    let answers = std::iter::once(alias).chain(found.answers).collect();
    Outcome { answers, authoritative: false, authentic: false, ..found }
}

fn ours(zone: &Zone, code: ResponseCode, answers: Vec<Record>) -> Outcome {
    let mut authorities = Vec::new();
    if answers.is_empty() {
        let authority = RData::SOA(zone.authority());
        authorities.push(Record::from_rdata(zone.domain().clone(), TTL_SECONDS, authority));
    }
    Outcome { code, authoritative: true, authentic: false, answers, authorities }
}

fn acceptable(request: &Message) -> Result<&hickory_proto::op::Query, ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    let [question] = request.queries.as_slice() else { return Err(ResponseCode::FormErr) };
    match question.query_class() {
        DNSClass::IN => Ok(question),
        _ => Err(ResponseCode::Refused),
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
