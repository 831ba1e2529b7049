//! Load balancers without a cloud: gives Services of type LoadBalancer the addresses of the nodes, or addresses of a
//! pool that the network brings to the nodes. The proxy on each node serves them, so nothing else has to be set up, and
//! node ports are not needed (`allocateLoadBalancerNodePorts`). Services with a class belong to another controller.
//! A Service whose traffic stays on the node it comes to has the addresses of nodes with a ready endpoint.
//! All Services share one key, because two decisions at a time could give one address twice.

pub mod plan;

use api_client::events::ObjectReference;
use api_client::{Cache, Object, ObjectKey, Patch};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

pub use plan::{BadRange, Pool};

use crate::controllers::endpointslice::plan::SERVICE_NAME_LABEL;
use crate::engine::{Caches, Controller, Done, Error, Inputs, Output, Work};
use crate::objects::{Node, label_of};

pub struct LoadBalancers {
    services: Cache<Service>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
    pool: Pool,
}

impl LoadBalancers {
    pub fn new(caches: &Caches, pool: Pool) -> Self {
        Self { services: caches.get(), nodes: caches.get(), slices: caches.get(), pool }
    }

    async fn set(&self, service: &Service, addresses: &[std::net::IpAddr], work: &Work) -> Result<(), Error> {
        let mut has = plan::has(service);
        let mut wanted = addresses.to_vec();
        has.sort_unstable();
        wanted.sort_unstable();
        if has == wanted {
            return Ok(());
        }
        let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
        let ingress = if ingress.is_empty() { serde_json::Value::Null } else { ingress.into() };
        let patch = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": ingress } } }));
        match work.patch_status::<Service>(&service.key(), &patch).await {
            Ok(_) => Ok(()),
            Err(Error::Api(error)) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Controller for LoadBalancers {
    fn name(&self) -> &'static str {
        "load-balancer-controller"
    }

    fn inputs(&self, inputs: &mut Inputs) {
        inputs.watch(&self.services, |change, wake| {
            let balanced = |service: &Service| plan::is_ours(service) || !plan::has(service).is_empty();
            if change.old.iter().chain(&change.new).any(|service| balanced(service)) {
                wake(ObjectKey::default());
            }
        });
        inputs.watch(&self.nodes, |change, wake| {
            // Heartbeats are no news.
            let seen = |node: &Node| {
                let ready = node.condition("Ready").map(|condition| condition.status.clone());
                (ready, node.status.addresses.clone(), node.metadata.labels.clone())
            };
            if change.old.as_deref().map(seen) != change.new.as_deref().map(seen) {
                wake(ObjectKey::default());
            }
        });
        let services = self.services.clone();
        inputs.watch(&self.slices, move |change, wake| {
            let nodes = |slice: &EndpointSlice| plan::nodes_of(slice);
            let Some(slice) = change.new.as_ref().or(change.old.as_ref()) else { return };
            let Some(name) = label_of(&slice.metadata, SERVICE_NAME_LABEL) else { return };
            let service = services.get(&ObjectKey::new(change.key.namespace.as_str(), name));
            let stays = service.is_some_and(|service| plan::is_ours(&service) && plan::stays_on_node(&service));
            if stays && change.old.as_deref().map(nodes) != change.new.as_deref().map(nodes) {
                wake(ObjectKey::default());
            }
        });
    }

    fn outputs(&self) -> &'static [Output] {
        const OUTPUTS: &[Output] = &[Output::shared("", "services/status")];
        OUTPUTS
    }

    async fn reconcile(&self, _: &ObjectKey, work: &Work) -> Result<Done, Error> {
        let (services, nodes) = (self.services.snapshot(), self.nodes.snapshot());
        let nodes: Vec<&Node> = nodes.iter().map(AsRef::as_ref).collect();
        let slices = self.slices.snapshot();
        let mut local = services.iter().filter(|service| plan::is_ours(service) && plan::stays_on_node(service));
        // Whoever has no such Service does not pay for it.
        let serving = match local.next() {
            Some(_) => plan::Serving::of(slices.iter().map(AsRef::as_ref)),
            None => plan::Serving::default(),
        };
        for given in plan::plan(services.iter().map(AsRef::as_ref), &nodes, &serving, &self.pool) {
            self.set(given.service, &given.addresses, work).await?;
            if let Some(reason) = given.refused {
                let message = format!("No load balancer address: {reason}");
                work.recorder().warning(ObjectReference::to(given.service), "LoadBalancerPending", message);
            }
        }
        // What was a load balancer once keeps no address.
        for service in services.iter() {
            let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
            if kind != Some("LoadBalancer") && !plan::has(service).is_empty() {
                self.set(service, &[], work).await?;
            }
        }
        Ok(Done::Settled)
    }
}
