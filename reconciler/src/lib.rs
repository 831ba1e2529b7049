//! The controller engine and every controller: what upstream calls the controller-manager.
//!
//! Contract: [`run`] drives all controllers against an API server until its token is cancelled; it keeps no state of
//! its own, so it may be stopped and started anywhere. Decisions are pure functions (`plan.rs` of each controller)
//! over immutable snapshots; actions are creates, patches and deletes through the API server. Not here: scheduling,
//! anything on a node, the store.

pub mod controllers;
pub mod engine;
pub mod objects;

use std::sync::Arc;

use api_client::events::Recorder;
use api_client::leader::Elector;
use api_client::transport::InProcess;
use api_client::{Client, ObjectKey};
use controllers::replicaset::Replicas;
use engine::{Caches, Controller, Engine, Metrics};
use futures_util::FutureExt;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub use engine::{Error, graph};

/// The election of upstream's controller-manager, so that the two never act at once.
const LEASE: (&str, &str) = ("kube-system", "kube-controller-manager");

/// How a process runs its controllers.
#[derive(Clone, Default)]
pub struct Options {
    /// This process's identity in the leader election. `None` runs without election, which is right for a cluster
    /// with one server: it then writes no lease.
    pub leader_identity: Option<String>,
    /// Address ranges that pods get their addresses from; each node is given a part of each. Empty: nodes get none.
    pub cluster_cidrs: Vec<String>,
    /// Certificate authority (PEM) published to every namespace as `kube-root-ca.crt`.
    pub root_ca: Option<String>,
    /// Address of the Service `kube-system/kube-dns`, kept by a controller. `None`: the cluster brings its own DNS.
    pub cluster_dns: Option<String>,
    /// Where Services of type LoadBalancer get their addresses from.
    pub load_balancer_addresses: controllers::loadbalancer::Pool,
    /// Signs approved certificate requests; `None` leaves that to somebody else.
    pub signer: Option<Arc<dyn controllers::certificates::Signer>>,
    /// Where queue metrics are kept; register it with the process's registry.
    pub metrics: Metrics,
    /// Keys are run again before the caches have seen what they wrote. This is a fault: tests switch it on to show that
    /// they would find it.
    pub forgetful: bool,
}

/// Drives all controllers until `shutdown`; returns when their tasks have ended.
pub async fn run(client: Client, options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let Some(identity) = options.leader_identity.clone() else {
        drive(client, options, shutdown).await;
        return Ok(());
    };
    let lease = ObjectKey::new(LEASE.0, LEASE.1);
    let work = |leading| drive(client.clone(), options, leading);
    Ok(Elector::new(&client, lease, identity).run(shutdown, work).await?)
}

async fn drive(client: Client, options: Options, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let caches = Caches::new(client.clone(), tasks.clone(), shutdown.clone());
    let recorder = Recorder::start(&client, "controllermanager", "", &tasks, shutdown.clone());
    let metrics = options.metrics.clone();
    let forgetful = options.forgetful;
    let (tasks_of, stop) = (tasks.clone(), shutdown.clone());
    let engine = Engine { client, caches, recorder, metrics, forgetful, tasks: tasks_of, shutdown: stop };
    let controllers = controllers(&engine.client, &engine.caches, &options);
    info!(controllers = controllers.len(), "controllers started");
    controllers.into_iter().for_each(|controller| engine.start(controller));
    shutdown.cancelled().await;
    tasks.close();
    tasks.wait().await;
}

/// Every controller, over the given caches.
pub fn controllers(client: &Client, caches: &Caches, options: &Options) -> Vec<Arc<dyn Controller>> {
    let garbage = controllers::garbage::GarbageCollector::new(client, caches);
    let mut all: Vec<Arc<dyn Controller>> = vec![
        Arc::new(controllers::deployment::Deployments::new(caches)),
        Arc::new(Replicas::<ReplicaSet>::new(caches)),
        Arc::new(Replicas::<ReplicationController>::new(caches)),
        Arc::new(controllers::daemonset::DaemonSets::new(caches)),
        Arc::new(controllers::statefulset::StatefulSets::new(caches)),
        Arc::new(controllers::cronjob::CronJobs::new(caches)),
        Arc::new(controllers::job::Jobs::new(caches)),
        Arc::new(controllers::job::OrphanPods::new(caches)),
        Arc::new(controllers::ttlafterfinished::TtlAfterFinished::new(caches)),
        Arc::new(controllers::disruption::Disruptions::new(client, caches)),
        Arc::new(controllers::disruption::StaleDisruptions::new(caches)),
        Arc::new(controllers::volume::binder::Binder::new(caches)),
        Arc::new(controllers::volume::protection::ClaimProtection::new(caches)),
        Arc::new(controllers::volume::protection::VolumeProtection::new(caches)),
        Arc::new(controllers::volume::ephemeral::EphemeralVolumes::new(caches)),
        Arc::new(controllers::volume::expand::Expansion::new(caches)),
        Arc::new(controllers::volume::attach::Attachments::new(caches)),
        Arc::new(controllers::volume::attach::NodeVolumes::new(caches)),
        Arc::new(controllers::resourceclaim::PodClaims::new(caches)),
        Arc::new(controllers::resourceclaim::Claims::new(caches)),
        Arc::new(controllers::podautoscaler::HorizontalPodAutoscalers::new(client, caches)),
        Arc::new(controllers::endpointslice::EndpointSlices::new(caches)),
        Arc::new(controllers::endpointslicemirroring::EndpointSliceMirroring::new(caches)),
        Arc::new(controllers::endpoints::EndpointsController::new(caches)),
        Arc::new(controllers::serviceaccount::DefaultServiceAccounts::new(caches)),
        Arc::new(controllers::serviceaccounttoken::Tokens::new(caches, options.root_ca.clone())),
        Arc::new(controllers::namespace::Namespaces::new(client, caches)),
        Arc::new(controllers::resourcequota::ResourceQuotas::new(client, caches, garbage.removals())),
        Arc::new(garbage),
        Arc::new(controllers::nodelifecycle::NodeLifecycle::new(caches)),
        Arc::new(controllers::tainteviction::TaintEviction::new(caches)),
        Arc::new(controllers::podgc::PodGarbage::new(caches)),
        Arc::new(controllers::clusterrole::ClusterRoles::new(caches)),
        Arc::new(controllers::nodenetwork::NodeNetwork::new(caches)),
    ];
    all.push(Arc::new(controllers::certificates::Approver::new(caches, &options.cluster_cidrs)));
    all.push(Arc::new(controllers::certificates::Cleaner::new(caches)));
    all.push(Arc::new(controllers::bootstraptoken::TokenCleaner::new(caches)));
    if let Some(signer) = options.signer.clone() {
        all.push(Arc::new(controllers::certificates::Signing::new(caches, signer)));
    }
    if !options.cluster_cidrs.is_empty() {
        all.push(Arc::new(controllers::nodeipam::NodeIpam::new(caches, &options.cluster_cidrs)));
    }
    if options.load_balancer_addresses != controllers::loadbalancer::Pool::None {
        let pool = options.load_balancer_addresses.clone();
        all.push(Arc::new(controllers::loadbalancer::LoadBalancers::new(caches, pool)));
    }
    if let Some(root_ca) = options.root_ca.clone() {
        all.push(Arc::new(controllers::serviceaccount::RootCaPublisher::new(caches, root_ca)));
    }
    if let Some(address) = options.cluster_dns.clone() {
        all.push(Arc::new(controllers::clusterdns::ClusterDns::new(caches, address)));
    }
    all
}

/// Every controller there is, over a server that never answers: for what they declare (see [`graph`]). Needs a runtime,
/// whose tasks end with it.
pub fn declared() -> Vec<Arc<dyn Controller>> {
    let client = Client::new(Arc::new(InProcess::new(Arc::new(|_| std::future::pending().boxed()))), "declared");
    let caches = Caches::new(client.clone(), TaskTracker::new(), CancellationToken::new());
    let options = Options {
        root_ca: Some(String::new()),
        cluster_cidrs: vec!["10.0.0.0/16".into()],
        cluster_dns: Some("10.96.0.10".into()),
        ..Options::default()
    };
    controllers(&client, &caches, &options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[tokio::test]
    async fn every_resource_has_one_exclusive_writer_at_most() {
        let mut writers: HashMap<(&str, &str), Vec<(&str, bool)>> = HashMap::new();
        for controller in declared() {
            for output in controller.outputs().iter().filter(|o| o.resource != "*") {
                writers.entry((output.group, output.resource)).or_default().push((controller.name(), output.shared));
            }
        }
        for (resource, writers) in writers {
            let exclusive = writers.iter().any(|(_, shared)| !shared);
            assert!(!exclusive || writers.len() == 1, "{resource:?} is written by {writers:?}");
        }
    }

    #[tokio::test]
    async fn the_graph_names_every_controller() {
        let controllers = declared();
        let graph = graph::text(&controllers);
        let deployment = "deployment-controller\n  reads  deployments.apps*, replicasets.apps, pods\n  \
                          writes replicasets.apps, deployments/status.apps, deployments.apps\n";
        assert!(graph.contains(deployment), "{graph}");
        assert_eq!(graph.matches("writes").count(), controllers.len());
        let dot = graph::dot(&controllers);
        assert!(dot.contains("  \"deployments.apps\" -> \"deployment-controller\" [penwidth=2];\n"), "{dot}");
        assert!(dot.contains("  \"replicaset-controller\" -> \"pods\" [style=dashed];\n"), "{dot}");
    }
}
