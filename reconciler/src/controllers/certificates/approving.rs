//! Approves the requests of nodes for their own certificates (upstream's `csrapproving`, and serving certificates,
//! which upstream leaves to others).

use std::sync::Arc;

use api_client::{Cache, Change, ObjectKey};
use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node as FullNode, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tls::RequestFacts;

use super::plan::{self, Addresses, Asked, Registered};
use super::{GROUP, RESOURCE};
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{BY_SERVICE, Node};

pub struct Approver {
    requests: Cache<CertificateSigningRequest>,
    nodes: Cache<Node>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    pod_ranges: Vec<String>,
}

impl Approver {
    pub fn new(caches: &Caches, pod_ranges: &[String]) -> Self {
        Self {
            requests: caches.get(),
            nodes: caches.get(),
            services: caches.get(),
            slices: caches.get(),
            pod_ranges: pod_ranges.to_vec(),
        }
    }

    async fn decide(&self, request: &CertificateSigningRequest, work: &Work) -> Result<Option<Decision>, Error> {
        let Ok(facts) = RequestFacts::of_pem(&request.spec.request.0) else { return Ok(None) };
        match plan::recognize(&request.spec, &facts) {
            None => Ok(None),
            Some(Asked::OwnClient { .. }) => {
                let allowed = may(request, "selfnodeclient", work).await?;
                Ok(allowed.then(|| Decision::approved("self kubelet client certificate after SubjectAccessReview")))
            }
            Some(Asked::NodeClient { node }) => {
                if !may(request, "nodeclient", work).await? {
                    return Ok(None);
                }
                // Read past the cache: a Node that registered a moment ago must be seen.
                let found = work.live::<FullNode>().find(&ObjectKey::new("", node.as_str())).await?;
                let registered = found.as_ref().map(registered);
                Ok(Some(match plan::taken(&node, registered.as_ref(), &facts.pin) {
                    Some(why) => Decision { kind: "Denied", reason: "NodeNameTaken", message: why },
                    None => Decision::approved("kubelet client certificate after SubjectAccessReview"),
                }))
            }
            Some(Asked::OwnServing { node }) => match plan::foreign_name(&node, &facts, &self.addresses(&node)) {
                None => Ok(Some(Decision::approved("kubelet serving certificate: all names are the node's own"))),
                Some(why) => {
                    tracing::warn!(request = request.metadata.name, why, "serving certificate waits for approval");
                    Ok(None)
                }
            },
        }
    }

    fn addresses(&self, node: &str) -> Addresses {
        let (mut own, mut of_others) = (Vec::new(), Vec::new());
        for other in self.nodes.snapshot().iter() {
            let list = if other.metadata.name == node { &mut own } else { &mut of_others };
            list.extend(other.status.addresses.iter().map(|address| address.address.clone()));
        }
        let mut of_services = Vec::new();
        for service in self.services.snapshot().iter() {
            let Some(spec) = &service.spec else { continue };
            of_services.extend(spec.cluster_ips.iter().flatten().cloned());
            of_services.extend(spec.external_ips.iter().flatten().cloned());
        }
        let slices = self.slices.snapshot();
        let api_servers = slices.indexed(BY_SERVICE, "kubernetes");
        let api_servers = api_servers.filter(|slice| slice.metadata.namespace.as_deref() == Some("default"));
        let endpoints = api_servers.flat_map(|slice| slice.endpoints.iter().flatten());
        of_services.extend(endpoints.flat_map(|endpoint| endpoint.addresses.iter().cloned()));
        Addresses { own, of_others, of_services, pod_ranges: self.pod_ranges.clone() }
    }
}

fn registered(node: &FullNode) -> Registered {
    let annotations = node.metadata.annotations.as_ref();
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    Registered {
        key: annotations.and_then(|annotations| annotations.get(plan::NODE_KEY).cloned()),
        machine_id: info.map(|info| info.machine_id.clone()).unwrap_or_default(),
    }
}

struct Decision {
    kind: &'static str,
    reason: &'static str,
    message: String,
}

impl Decision {
    fn approved(what: &str) -> Self {
        Self { kind: "Approved", reason: "AutoApproved", message: format!("Auto approving {what}.") }
    }
}

/// Whether the requester has the right that RBAC keeps for this kind of request.
async fn may(request: &CertificateSigningRequest, subresource: &str, work: &Work) -> Result<bool, Error> {
    let spec = &request.spec;
    let attributes =
        json!({"group": GROUP, "version": "*", "resource": RESOURCE, "subresource": subresource, "verb": "create"});
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": attributes,
        },
    });
    let answer: SubjectAccessReview = work.create("", &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// A request with a condition added, to be put to a subresource.
pub(super) fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> Result<Value, Error> {
    let unwritable = |error: serde_json::Error| Error::Object {
        object: request.metadata.name.clone().unwrap_or_default(),
        why: error.to_string(),
    };
    let mut object = serde_json::to_value(request).map_err(unwritable)?;
    let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message});
    match object.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        Some(conditions) => conditions.push(condition),
        None => object["status"]["conditions"] = json!([condition]),
    }
    Ok(object)
}

#[async_trait]
impl Controller for Approver {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-approving-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.primary(&self.requests);
        let requests = self.requests.clone();
        // A node whose addresses have just become known may have asked before.
        inputs.watch(&self.nodes, move |change, wake| {
            if addresses_changed(change) {
                let pending = requests.snapshot();
                let pending = pending.iter().filter(|request| plan::is_pending(request));
                pending.for_each(|request| wake(api_client::Object::key(&**request)));
            }
        });
        inputs.read(&self.services);
        inputs.read(&self.slices);
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[
            Output::exclusive(GROUP, "certificatesigningrequests/approval"),
            Output::shared("authorization.k8s.io", "subjectaccessreviews"),
        ];
        OUTPUTS
    }

    async fn reconcile(&self, key: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let Some(request) = self.requests.get(key).filter(|request| plan::is_pending(request)) else {
            return Ok(Done::Settled);
        };
        if let Some(decision) = self.decide(&request, work).await? {
            let object = with_condition(&request, decision.kind, decision.reason, &decision.message)?;
            work.replace_subresource::<CertificateSigningRequest>(key, "approval", &object).await?;
        }
        Ok(Done::Settled)
    }
}

fn addresses_changed(change: &Change<Node>) -> bool {
    let of = |node: &Option<Arc<Node>>| node.as_ref().map(|node| node.status.addresses.clone());
    of(&change.old) != of(&change.new)
}
