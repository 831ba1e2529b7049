//! Controllers against the real API server, in one process: what a user declares comes about, and goes away again.

mod world;

use api_client::{DeleteParams, ObjectKey, Propagation, Snapshot};
use futures_util::FutureExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use world::World;

fn deployment(name: &str, replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
                }]},
            },
        },
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

/// Rolled out, as `kubectl rollout status` sees it.
fn rolled_out(deployments: &Snapshot<Deployment>, name: &str) -> bool {
    let Some(deployment) = deployments.get(&key(name)) else { return false };
    let replicas = deployment.spec.as_ref().and_then(|s| s.replicas);
    let Some(status) = &deployment.status else { return false };
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == replicas
        && status.available_replicas == replicas
        && status.replicas == replicas
}

/// Images of the replica sets with their wanted sizes, sorted.
fn sizes(sets: &Snapshot<ReplicaSet>) -> Vec<String> {
    let size = |set: &ReplicaSet| {
        let spec = set.spec.as_ref()?;
        let image = spec.template.as_ref()?.spec.as_ref()?.containers.first()?.image.clone()?;
        Some(format!("{image}={}", spec.replicas?))
    };
    let mut sizes: Vec<String> = sets.iter().filter_map(|set| size(set)).collect();
    sizes.sort();
    sizes
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_back_and_away() {
    let world = World::start().await;
    world.node("n1").await;
    world.create(deployment("web", 3, "web:1")).await;
    world.until::<Deployment>("first rollout", |d| rolled_out(d, "web")).await;

    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    world.patch::<Deployment>(&key("web"), image("web:2")).await;
    world.until::<ReplicaSet>("second rollout", |sets| sizes(sets) == ["web:1=0", "web:2=3"]).await;
    world.until::<Deployment>("second rollout", |d| rolled_out(d, "web")).await;
    // kubectl rollout undo.
    world.patch::<Deployment>(&key("web"), image("web:1")).await;
    world.until::<ReplicaSet>("rollback", |sets| sizes(sets) == ["web:1=3", "web:2=0"]).await;
    world.until::<Deployment>("rollback", |d| rolled_out(d, "web")).await;
    let revision = |d: &Deployment| d.metadata.annotations.as_ref()?.get("deployment.kubernetes.io/revision").cloned();
    world.until::<Deployment>("revision 3", |d| d.get(&key("web")).and_then(|d| revision(d)) == Some("3".into())).await;

    world.patch::<Deployment>(&key("web"), json!({"spec": {"replicas": 5}})).await;
    world.until::<ReplicaSet>("scaled up", |sets| sizes(sets) == ["web:1=5", "web:2=0"]).await;
    world.until::<Deployment>("scaled up", |d| rolled_out(d, "web")).await;
    world.patch::<Deployment>(&key("web"), json!({"spec": {"replicas": 1}})).await;
    world.until::<Pod>("scaled down", |pods| pods.len() == 1).await;

    world.delete::<Deployment>(&key("web"), DeleteParams::default().propagation(Propagation::Background)).await;
    world.until::<ReplicaSet>("replica sets collected", Snapshot::is_empty).await;
    world.until::<Pod>("pods collected", Snapshot::is_empty).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn exactly_as_many_pods_are_made_as_asked_for() {
    let world = World::start().await;
    let made = world.cache::<Pod>();
    made.synced().await;
    let mut changes = made.subscribe();
    world.create(deployment("burst", 200, "web:1")).await;
    world.until::<Pod>("200 pods", |pods| pods.len() == 200).await;
    world
        .until::<ReplicaSet>("counted", |sets| {
            sets.iter().all(|s| s.status.as_ref().is_some_and(|s| s.replicas == 200))
        })
        .await;
    made.wait_until(|pods| pods.len() == 200).await;
    let mut added = 0;
    // Unconstrained: all that is there must be taken, however much tokio would have us yield in between.
    while let Some(Some(received)) = tokio::task::unconstrained(changes.recv()).now_or_never() {
        let api_client::Received::Change(change) = received else { panic!("the subscription lags") };
        assert!(change.new.is_some(), "a pod was deleted again: {}", change.key);
        added += usize::from(change.old.is_none());
    }
    assert_eq!(added, 200);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_has_the_addresses_of_its_ready_pods() {
    let world = World::start().await;
    world.node("n1").await;
    world
        .create(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
        }))
        .await;
    let ready = |slices: &Snapshot<EndpointSlice>| {
        let of_web = slices.iter().filter(|s| s.metadata.generate_name.as_deref() == Some("web-"));
        let endpoints = of_web.flat_map(|s| s.endpoints.iter().flatten());
        let ready = endpoints.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        ready.flat_map(|e| &e.addresses).count()
    };
    let has_slice = |s: &EndpointSlice| s.metadata.generate_name.as_deref() == Some("web-");
    world.until::<EndpointSlice>("an empty slice", |slices| slices.iter().any(|s| has_slice(s))).await;
    world.create(deployment("web", 3, "web:1")).await;
    world.until::<EndpointSlice>("three endpoints", |slices| ready(slices) == 3).await;
    let addresses = |endpoints: &Snapshot<Endpoints>| {
        let of_web = endpoints.get(&key("web")).into_iter().flat_map(|e| e.subsets.iter().flatten());
        of_web.flat_map(|subset| subset.addresses.iter().flatten()).count()
    };
    world.until::<Endpoints>("the older form", |endpoints| addresses(endpoints) == 3).await;
    world.patch::<Deployment>(&key("web"), json!({"spec": {"replicas": 1}})).await;
    world.until::<EndpointSlice>("one endpoint", |slices| ready(slices) == 1).await;
    world.delete::<k8s_openapi::api::core::v1::Service>(&key("web"), DeleteParams::default()).await;
    world.until::<EndpointSlice>("slices collected", |slices| !slices.iter().any(|s| has_slice(s))).await;
    world.until::<Endpoints>("endpoints gone", |endpoints| endpoints.get(&key("web")).is_none()).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_comes_furnished_and_goes_with_all_in_it() {
    let world = World::start().await;
    world.node("n1").await;
    world.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})).await;
    let in_team = |name: &str| ObjectKey::new("team", name);
    world.until::<ServiceAccount>("default account", |a| a.get(&in_team("default")).is_some()).await;
    world.until::<ConfigMap>("root CA", |c| c.get(&in_team("kube-root-ca.crt")).is_some()).await;
    let mut object = deployment("web", 2, "web:1");
    object["metadata"]["namespace"] = "team".into();
    world.create(object).await;
    world.until::<Pod>("pods run", |pods| pods.namespace("team").count() == 2).await;
    let finalizers = json!(["example.com/keep"]);
    let kept = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kept", "namespace": "team", "finalizers": finalizers},
    });
    world.create(kept).await;

    world.delete::<Namespace>(&ObjectKey::new("", "team"), DeleteParams::default()).await;
    let waits = |namespace: &Namespace| {
        let conditions = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| {
            let message = c.message.as_deref().unwrap_or_default();
            c.type_ == "NamespaceFinalizersRemaining" && message.contains("example.com/keep in 1 resource instances")
        })
    };
    world
        .until::<Namespace>("says what it waits for", |all| {
            all.get(&ObjectKey::new("", "team")).is_some_and(|n| waits(n))
        })
        .await;
    let only = |maps: &Snapshot<ConfigMap>| maps.namespace("team").count() == 1;
    world.until::<ConfigMap>("all but one gone", only).await;
    let free = json!({"metadata": {"finalizers": null}});
    let api = world.client.api::<ConfigMap>();
    api.patch(&in_team("kept"), &api_client::Patch::Merge(free)).await.expect("the finalizer goes");
    world.until::<Namespace>("gone", |all| all.get(&ObjectKey::new("", "team")).is_none()).await;
    world.until::<Pod>("pods gone", Snapshot::is_empty).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_and_are_adopted_again() {
    let world = World::start().await;
    world.node("n1").await;
    world.create(deployment("web", 2, "web:1")).await;
    world.until::<Deployment>("rolled out", |d| rolled_out(d, "web")).await;
    world.delete::<Deployment>(&key("web"), DeleteParams::default().propagation(Propagation::Orphan)).await;
    let owners = |s: &ReplicaSet| s.metadata.owner_references.as_ref().map_or(0, Vec::len);
    world.until::<Deployment>("gone", Snapshot::is_empty).await;
    world.until::<ReplicaSet>("orphaned", |sets| sets.len() == 1 && sets.iter().all(|s| owners(s) == 0)).await;
    world.create(deployment("web", 2, "web:1")).await;
    world.until::<ReplicaSet>("adopted", |sets| sets.len() == 1 && sets.iter().all(|s| owners(s) == 1)).await;
    world.until::<Deployment>("rolled out again", |d| rolled_out(d, "web")).await;

    // Foreground: the deployment is there until all that it owns is gone.
    world.delete::<Deployment>(&key("web"), DeleteParams::default().propagation(Propagation::Foreground)).await;
    world.until::<Deployment>("gone", Snapshot::is_empty).await;
    world.until::<ReplicaSet>("collected", Snapshot::is_empty).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_loses_its_pods_while_another_lives() {
    let world = World::start().await;
    world.node("n1").await;
    world.create(deployment("web", 1, "web:1")).await;
    world.until::<Deployment>("rolled out", |d| rolled_out(d, "web")).await;
    let ranges = |n: &Node| n.spec.as_ref().and_then(|s| s.pod_cidr.clone()).unwrap_or_default();
    world.until::<Node>("has addresses", |nodes| nodes.iter().all(|n| ranges(n) == "10.244.0.0/24")).await;
    // n1 never renews its lease. n2 does, so that the fault is n1's.
    world.node("n2").await;
    let renewed = world.renew_lease("n2");
    let tainted = |n: &Node| {
        let taints = n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        taints.iter().any(|t| t.key == "node.kubernetes.io/unreachable" && t.effect == "NoExecute")
    };
    let named = |name: &'static str| ObjectKey::new("", name);
    world.until::<Node>("unreachable", |nodes| nodes.get(&named("n1")).is_some_and(|n| tainted(n))).await;
    assert!(!world.cache_synced::<Node>().await.get(&named("n2")).is_some_and(|n| tainted(n)));
    let unready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "False")
    };
    world.until::<Pod>("pods count as unready", |pods| pods.iter().any(|p| unready(p))).await;
    renewed.cancel();
    world.stop().await;
}
