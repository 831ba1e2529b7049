//! Which certificate requests are approved, signed and removed. Pure.

use std::net::IpAddr;

use api::cidr::Cidr;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use tls::{Pin, RequestFacts};

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";

/// On a Node: the hash of the key that its client certificates are for. A request with a bootstrap token for the name
/// of a Node that exists must come from the same key.
pub const NODE_KEY: &str = "keelson.io/node-key";

/// Upstream's `csrcleaner` times.
const DECIDED_KEPT: SignedDuration = SignedDuration::from_hours(1);
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A request that a node makes for itself, or a machine for the node it wants to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The client certificate of a node, asked for by whoever may (`nodeclient`).
    NodeClient { node: String },
    /// The client certificate of the node that asks (`selfnodeclient`).
    OwnClient { node: String },
    /// A serving certificate for the node that asks.
    OwnServing { node: String },
}

pub fn has_condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).any(|condition| condition.type_ == kind)
}

fn conditions(request: &CertificateSigningRequest) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    request.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

pub fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    Some(certificate.0.as_slice()).filter(|certificate| !certificate.is_empty())
}

/// Nobody has decided on it.
pub fn is_pending(request: &CertificateSigningRequest) -> bool {
    !["Approved", "Denied", "Failed"].iter().any(|kind| has_condition(request, kind))
}

/// Ready for the signer.
pub fn awaits_signature(request: &CertificateSigningRequest) -> bool {
    let refused = has_condition(request, "Denied") || has_condition(request, "Failed");
    has_condition(request, "Approved") && !refused && certificate(request).is_none()
}

fn usages(spec: &CertificateSigningRequestSpec) -> Vec<&str> {
    spec.usages.iter().flatten().map(String::as_str).collect()
}

/// Whether all usages are among `allowed`, with `needed` among them.
fn are(usages: &[&str], needed: &str, allowed: &[&str]) -> bool {
    let optional = |usage: &&str| *usage == needed || allowed.contains(usage);
    usages.contains(&needed) && usages.iter().all(|usage| optional(usage))
}

/// Why a signer must not sign this (upstream's `ValidateKubeletClientCSR` and its siblings).
pub fn objection(spec: &CertificateSigningRequestSpec, facts: &RequestFacts) -> Option<String> {
    let usages = usages(spec);
    let node_subject = || {
        if facts.organizations != [NODES] {
            return Some(format!("subject organization is not {NODES}"));
        }
        let named = facts.common_name.strip_prefix(NODE_PREFIX).is_some_and(|name| !name.is_empty());
        (!named).then(|| format!("subject common name does not begin with {NODE_PREFIX}"))
    };
    match spec.signer_name.as_str() {
        CLIENT => {
            let allowed = ["digital signature", "key encipherment"];
            (!are(&usages, "client auth", &allowed)).then(|| format!("usages {usages:?} are not those of a client"))
        }
        NODE_CLIENT => node_subject().or_else(|| {
            if facts.has_names() {
                return Some("subject alternative names are not allowed".to_owned());
            }
            let allowed = ["digital signature", "key encipherment"];
            let good = are(&usages, "client auth", &allowed) && usages.contains(&"digital signature");
            (!good).then(|| format!("usages {usages:?} are not those of a node's client certificate"))
        }),
        NODE_SERVING => node_subject().or_else(|| {
            if facts.dns_names.is_empty() && facts.addresses.is_empty() {
                return Some("DNS or IP subjectAltName is required".to_owned());
            }
            if facts.other_names > 0 {
                return Some("only DNS and IP subjectAltNames are allowed".to_owned());
            }
            let allowed = ["digital signature", "key encipherment"];
            let good = are(&usages, "server auth", &allowed) && usages.contains(&"digital signature");
            (!good).then(|| format!("usages {usages:?} are not those of a node's serving certificate"))
        }),
        // Other signers are other people's; legacy-unknown is signed by nobody here.
        other => Some(format!("signer {other} is not one of this cluster's")),
    }
}

/// What a node's request is for; `None` for all others, which wait for a human.
pub fn recognize(spec: &CertificateSigningRequestSpec, facts: &RequestFacts) -> Option<Asked> {
    if objection(spec, facts).is_some() {
        return None;
    }
    let node = facts.common_name.strip_prefix(NODE_PREFIX)?.to_owned();
    let requester = spec.username.as_deref().unwrap_or_default();
    let own = requester == facts.common_name && spec.groups.iter().flatten().any(|group| group == NODES);
    match (spec.signer_name.as_str(), own) {
        (NODE_CLIENT, true) => Some(Asked::OwnClient { node }),
        (NODE_CLIENT, false) => Some(Asked::NodeClient { node }),
        (NODE_SERVING, true) => Some(Asked::OwnServing { node }),
        _ => None,
    }
}

/// A Node that has the name a bootstrap request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its [`NODE_KEY`] annotation.
    pub key: Option<String>,
    pub machine_id: String,
}

/// Why a machine may not become this node: a Node of the name exists and belongs to another key.
pub fn taken(node: &str, registered: Option<&Registered>, pin: &Pin) -> Option<String> {
    let registered = registered?;
    if registered.key.as_ref() == Some(&pin.to_string()) {
        return None;
    }
    let machine = match registered.machine_id.as_str() {
        "" => String::new(),
        id => format!(" by the machine with id {id}"),
    };
    Some(format!(
        "node name {node:?} is taken: a Node of this name is registered{machine} with another key. Give this machine \
         another name (--node-name), or, if that machine is gone or was set up anew, delete its Node \
         (kubectl delete node {node}) and join again"
    ))
}

/// What the cluster knows of addresses, to judge serving certificates.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Of the node that asks, as its Node tells.
    pub own: Vec<String>,
    /// Of all other nodes.
    pub of_others: Vec<String>,
    /// Of Services and of API servers.
    pub of_services: Vec<String>,
    /// Ranges that pods get addresses from.
    pub pod_ranges: Vec<String>,
}

/// Why a serving certificate for these names is not approved by itself; a human may still approve it. Every name must
/// be the node's own, and nobody else's: whoever holds a certificate for an address can stand in for what is there.
pub fn foreign_name(node: &str, facts: &RequestFacts, known: &Addresses) -> Option<String> {
    for name in &facts.dns_names {
        let listed = known.own.iter().any(|own| own == name);
        if name != node && !(listed && name.split('.').next() == node.split('.').next()) {
            return Some(format!("DNS name {name} is not the node's"));
        }
    }
    for address in &facts.addresses {
        let is = |text: &String| text.parse::<IpAddr>().is_ok_and(|other| other == *address);
        if !known.own.iter().any(is) {
            return Some(format!("address {address} is not among the addresses of node {node}"));
        }
        if known.of_others.iter().any(is) {
            return Some(format!("address {address} is also another node's"));
        }
        if known.of_services.iter().any(is) {
            return Some(format!("address {address} is that of a Service or of an API server"));
        }
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Some(format!("address {address} is nobody's alone"));
        }
        if let Some(range) =
            known.pod_ranges.iter().find(|range| Cidr::parse(range).is_some_and(|range| range.contains(*address)))
        {
            return Some(format!("address {address} is in the range {range} of pods"));
        }
    }
    None
}

/// When a request can be removed; `None` while its certificate is good and it is not old.
pub fn remove_at(request: &CertificateSigningRequest, certificate_ends: Option<i64>) -> Option<Timestamp> {
    let after = |time: Timestamp, kept: SignedDuration| time.checked_add(kept).ok();
    let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let ends = certificate_ends.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let decided = conditions(request).filter_map(|condition| {
        let at = condition.last_update_time.as_ref().map(|time| time.0).or(created)?;
        after(at, DECIDED_KEPT)
    });
    let pending = created.filter(|_| is_pending(request)).and_then(|at| after(at, PENDING_KEPT));
    decided.chain(pending).chain(ends).min()
}
