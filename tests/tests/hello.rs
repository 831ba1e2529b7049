//! The demo path on real containerd, as a user walks it: up, a Deployment and its Service, scale, rolling update,
//! rollback, logs, exec, delete, and nothing left behind.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::cluster::{self, Cluster, Options};
use tests::kubectl::Kubectl;
use tests::registry::{self, Registry};
use tests::{http, image, leftovers, wait};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_deployment_lives_its_life() -> Result<()> {
    let before = leftovers::inventory()?;
    let dir = tempfile::tempdir()?;
    let cluster = Cluster::start(Options::single("hello-test", dir.path())?)?;
    let result = walk(&cluster);
    let log = cluster.diagnosis();
    let stopped = cluster.stop().context("stop the cluster");
    result.with_context(|| log)?;
    stopped?;
    let log = std::fs::read_to_string(cluster.log())?;
    ensure!(
        log.contains("every part has stopped"),
        "the server left parts behind:\n{}",
        cluster::tail(&cluster.log(), 20)
    );
    wait::until("nothing to be left behind", LIMIT, || {
        let after = leftovers::inventory()?;
        let left: Vec<_> = after.difference(&before).collect();
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(Some(()))
    })
}

fn walk(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl()?;
    let archive = cluster.options.dir.join("hello.tar");
    image::hello("1").write(&archive)?;
    cluster.import_image(&archive)?;
    let registry = Registry::start(&cluster.options.dir.join("registry"))?;
    image::hello("2").with(|image| registry.put(image, "team/hello", "2"))?;
    let manifest = cluster.options.dir.join("hello.yaml");
    let example = include_str!("../../examples/hello.yaml");
    std::fs::write(&manifest, example.replace("nodePort: 30080", "nodePort: 31095"))?;
    let manifest = manifest.to_string_lossy().into_owned();

    kubectl.run(&["apply", "-f", &manifest])?;
    roll_out(&kubectl)?;
    every_replica_answers(&kubectl, 3, "version 1")?;
    node_port_answers(&kubectl)?;

    for replicas in [5, 1] {
        kubectl.run(&["scale", "deployment/hello", &format!("--replicas={replicas}")])?;
        every_replica_answers(&kubectl, replicas, "version 1")?;
    }

    log_in(&kubectl, &registry)?;
    let private = format!("hello={}/team/hello:2", registry.address);
    kubectl.run(&["set", "image", "deployment/hello", &private])?;
    roll_out(&kubectl)?;
    every_replica_answers(&kubectl, 1, "version 2")?;
    let history = kubectl.run(&["rollout", "history", "deployment/hello"])?;
    ensure!(history.contains("\n1 ") && history.contains("\n2 "), "history shows both revisions: {history}");

    kubectl.run(&["rollout", "undo", "deployment/hello"])?;
    roll_out(&kubectl)?;
    every_replica_answers(&kubectl, 1, "version 1")?;

    let pod = ready_pods(&kubectl)?.into_iter().next().context("one pod")?;
    let logs = kubectl.run(&["logs", "deployment/hello"])?;
    ensure!(logs.contains(&format!("serving on port 8080 as {pod}")), "logs of {pod}: {logs}");
    let name = kubectl.run(&["exec", &pod, "--", "hostname"])?;
    ensure!(name.trim() == pod, "hostname in {pod} is {name}");
    names_resolve(&kubectl, &pod)?;

    kubectl.run(&["delete", "-f", &manifest, "--timeout=60s"])?;
    wait::until("the pods to be gone", LIMIT, || {
        let pods = kubectl.get(&["pods"])?;
        Ok(pods["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
}

/// From now on, pods without a say in it pull from the registry: its password comes with their service account.
fn log_in(kubectl: &Kubectl, registry: &Registry) -> Result<()> {
    let [server, user, password] = [
        format!("--docker-server={}", registry.address),
        format!("--docker-username={}", registry::USER),
        format!("--docker-password={}", registry::PASSWORD),
    ];
    kubectl.run(&["create", "secret", "docker-registry", "pull", &server, &user, &password])?;
    let secrets = r#"{"imagePullSecrets": [{"name": "pull"}]}"#;
    kubectl.run(&["patch", "serviceaccount", "default", "-p", secrets]).map(drop)
}

fn roll_out(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["rollout", "status", "deployment/hello", "--timeout=60s"]).map(drop)
}

/// Names of the pods that are Ready and not on their way out.
fn ready_pods(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    let pods = kubectl.get(&["pods", "-l", "app=hello"])?;
    let ready = |pod: &&serde_json::Value| {
        let conditions = pod["status"]["conditions"].as_array();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let items = pods["items"].as_array().into_iter().flatten();
    Ok(items.filter(ready).filter_map(|p| p["metadata"]["name"].as_str()).map(str::to_owned).collect())
}

/// Waits until exactly `count` pods are Ready and the Service's cluster IP is answered by each of them and no other.
fn every_replica_answers(kubectl: &Kubectl, count: usize, version: &str) -> Result<()> {
    let service = kubectl.get(&["service", "hello"])?;
    let address = service["spec"]["clusterIP"].as_str().context("a cluster IP")?;
    let address: SocketAddr = format!("{address}:80").parse()?;
    wait::until(&format!("{count} replicas to answer with {version}"), LIMIT, || {
        let pods = ready_pods(kubectl)?;
        ensure!(pods.len() == count, "ready pods: {pods:?}");
        let mut answered = BTreeSet::new();
        for _ in 0..count * 20 {
            let body = http::get(address)?;
            ensure!(body.contains(version), "{body}");
            let from = pods.iter().find(|p| body.contains(p.as_str())).with_context(|| format!("stranger: {body}"))?;
            answered.insert(from.clone());
            if answered == pods {
                return Ok(Some(()));
            }
        }
        anyhow::bail!("only {answered:?} of {pods:?} answered")
    })
}

/// From inside a pod: the Service by its name and by what a resolver's first search domain makes of a shorter one, an
/// address by its name, and no name that does not exist. (The image's libc cannot resolve by itself: it is static.)
fn names_resolve(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let service = kubectl.get(&["service", "hello"])?;
    let address = service["spec"]["clusterIP"].as_str().context("a cluster IP")?;
    for name in ["hello.default.svc.cluster.local", "hello.default.default.svc.cluster.local"] {
        let found = kubectl.run(&["exec", pod, "--", "nslookup", name])?;
        ensure!(found.contains(&format!("Address: {address}")), "{name}: {found}");
    }
    let reverse = kubectl.run(&["exec", pod, "--", "nslookup", address])?;
    ensure!(reverse.contains("hello.default.svc.cluster.local"), "{address}: {reverse}");
    let missing = kubectl.run(&["exec", pod, "--", "nslookup", "gone.default.svc.cluster.local"]);
    let problem = missing.err().context("a name that does not exist resolves")?;
    ensure!(format!("{problem:#}").contains("NXDOMAIN"), "{problem:#}");
    Ok(())
}

fn node_port_answers(kubectl: &Kubectl) -> Result<()> {
    let node = kubectl.get(&["nodes"])?;
    let addresses = node["items"][0]["status"]["addresses"].as_array().context("node addresses")?;
    let internal = addresses.iter().find(|a| a["type"] == "InternalIP").context("an internal address")?;
    let address: SocketAddr = format!("{}:31095", internal["address"].as_str().unwrap_or_default()).parse()?;
    wait::until("the node port to answer", LIMIT, || http::get(address).map(Some)).map(drop)
}
