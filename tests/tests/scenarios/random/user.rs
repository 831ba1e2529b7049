//! What users do in a randomized run. The user remembers every write that was acknowledged.

use std::collections::BTreeMap;

use api_client::Client;
use http::Method;
use rand::RngExt;
use serde_json::{Value, json};

use super::Log;
use crate::cluster::Cluster;
use crate::requests::{self, JSON, MERGE};

/// Names per kind: few, so that things are changed and deleted while they are busy.
const NAMES: usize = 3;
const REPLICAS_MAX: i64 = 4;
const RECORDS: usize = 4;

/// The kinds that are created, with where they are served.
const KINDS: [(&str, &str); 6] = [
    ("Deployment", "/apis/apps/v1/namespaces/default/deployments"),
    ("StatefulSet", "/apis/apps/v1/namespaces/default/statefulsets"),
    ("DaemonSet", "/apis/apps/v1/namespaces/default/daemonsets"),
    ("ReplicaSet", "/apis/apps/v1/namespaces/default/replicasets"),
    ("Job", "/apis/batch/v1/namespaces/default/jobs"),
    ("Service", "/api/v1/namespaces/default/services"),
];

/// What may be left of a deletion that orphans.
const ORPHANS: [(&str, &str); 2] = [
    ("pods", "/api/v1/namespaces/default/pods"),
    ("controllerrevisions", "/apis/apps/v1/namespaces/default/controllerrevisions"),
];

pub struct User {
    client: Client,
    /// By the name of a ConfigMap: the number that was acknowledged last, and those that were not answered since.
    records: BTreeMap<String, (u64, Vec<u64>)>,
    next: u64,
}

impl User {
    pub fn new(cluster: &Cluster) -> Self {
        Self { client: cluster.user.clone(), records: BTreeMap::new(), next: 0 }
    }

    pub async fn act(&mut self, cluster: &Cluster, log: &mut Log) -> Result<(), String> {
        let (kind, path) = KINDS[rand::rng().random_range(0..KINDS.len())];
        let name = format!("{}{}", kind.to_lowercase(), rand::rng().random_range(0..NAMES));
        let one = format!("{path}/{name}");
        let choice = rand::rng().random_range(0..10);
        match choice {
            0..=3 => {
                let object = object(kind, &name);
                self.send(Method::POST, path, JSON, &object, log).await;
            }
            4 if kind != "Service" && kind != "Job" && kind != "DaemonSet" => {
                let patch = json!({ "spec": { "replicas": rand::rng().random_range(0..=REPLICAS_MAX) } });
                self.send(Method::PATCH, &one, MERGE, &patch, log).await;
            }
            4 | 5 if !["Service", "Job", "ReplicaSet"].contains(&kind) => {
                let image = format!("app:{}", rand::rng().random_range(1..4));
                let containers = json!([{ "name": "c", "image": image }]);
                let patch = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
                self.send(Method::PATCH, &one, MERGE, &patch, log).await;
            }
            6 => {
                let policies = ["Background", "Foreground", "Orphan"];
                let policy = policies[rand::rng().random_range(0..policies.len())];
                let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy });
                self.send(Method::DELETE, &one, JSON, &options, log).await;
            }
            7 => self.touch_pod(cluster, log).await,
            _ => self.record(log).await,
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: &Value, log: &mut Log) -> bool {
        let result = requests::send(&self.client, method.clone(), path, kind, body).await;
        let told = match &result {
            Ok(_) => "ok".to_owned(),
            Err(api_client::Error::Status(status)) => format!("{} {}", status.code, status.reason),
            Err(other) => other.to_string(),
        };
        let spec = if method == Method::DELETE { &body["propagationPolicy"] } else { &body["spec"]["replicas"] };
        log.add(format!("{method} {path} {} {spec}: {told}", body["metadata"]["name"].as_str().unwrap_or_default()));
        result.is_ok()
    }

    /// Deletes some pod, or lets it exit.
    async fn touch_pod(&self, cluster: &Cluster, log: &mut Log) {
        let pods: Vec<(String, String, String)> = cluster.truth.read(|objects| {
            let text = |pod: &Value, pointer: &str| {
                pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let of =
                |pod: &Value| (text(pod, "/metadata/name"), text(pod, "/metadata/uid"), text(pod, "/spec/nodeName"));
            objects.of("pods").into_iter().map(of).collect()
        });
        if pods.is_empty() {
            return;
        }
        let (name, uid, node) = &pods[rand::rng().random_range(0..pods.len())];
        match cluster.nodes.get(node).filter(|_| rand::rng().random()) {
            Some(machine) => {
                log.add(format!("exit pod {name}"));
                machine.runtime.exit(uid, 1);
            }
            None => {
                let path = format!("/api/v1/namespaces/default/pods/{name}");
                self.send(Method::DELETE, &path, JSON, &Value::Null, log).await;
            }
        }
    }

    /// Writes the next number into a record.
    async fn record(&mut self, log: &mut Log) {
        self.next += 1;
        let number = self.next;
        let name = format!("record{}", rand::rng().random_range(0..RECORDS));
        let path = "/api/v1/namespaces/default/configmaps".to_owned();
        let data = json!({ "number": number.to_string() });
        let acknowledged = if self.records.contains_key(&name) {
            self.send(Method::PATCH, &format!("{path}/{name}"), MERGE, &json!({ "data": data }), log).await
        } else {
            let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
            self.send(Method::POST, &path, JSON, &object, log).await
        };
        if acknowledged {
            self.records.insert(name, (number, Vec::new()));
        } else if let Some((_, unanswered)) = self.records.get_mut(&name) {
            unanswered.push(number);
        }
    }

    /// Every record has what was acknowledged last, or what was written after without an answer.
    pub fn check(&self, cluster: &Cluster) -> Result<(), String> {
        let maps: BTreeMap<String, u64> = cluster.truth.read(|objects| {
            let number = |map: &Value| map["data"]["number"].as_str().and_then(|t| t.parse().ok());
            let of = |map: &Value| Some((map["metadata"]["name"].as_str()?.to_owned(), number(map)?));
            objects.of("configmaps").into_iter().filter_map(of).collect()
        });
        for (name, (acknowledged, unanswered)) in &self.records {
            let found = maps.get(name);
            if found != Some(acknowledged) && !found.is_some_and(|n| unanswered.contains(n)) {
                return Err(format!("{name} has {found:?}, but {acknowledged} was acknowledged"));
            }
        }
        Ok(())
    }

    /// Deletes everything that was created but the records; what orphaned pods there are, too.
    pub async fn delete_all(&self, cluster: &Cluster, log: &mut Log) -> Result<(), String> {
        log.add("delete all");
        let background = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
        for (kind, path) in KINDS {
            let names: Vec<String> = cluster.truth.read(|objects| {
                let named = objects.of(kind).into_iter().filter_map(|o| o["metadata"]["name"].as_str());
                named.filter(|name| *name != "kubernetes").map(str::to_owned).collect()
            });
            for name in names {
                self.send(Method::DELETE, &format!("{path}/{name}"), JSON, &background, log).await;
            }
        }
        for (kind, path) in ORPHANS {
            let orphans: Vec<String> = cluster.truth.read(|objects| {
                let orphan = |o: &&Value| o["metadata"]["ownerReferences"].get(0).is_none();
                let orphans = objects.of(kind).into_iter().filter(orphan);
                orphans.filter_map(|o| o["metadata"]["name"].as_str()).map(str::to_owned).collect()
            });
            for name in orphans {
                self.send(Method::DELETE, &format!("{path}/{name}"), JSON, &background, log).await;
            }
        }
        Ok(())
    }
}

fn object(kind: &str, name: &str) -> Value {
    let mut dice = rand::rng();
    let labels = json!({ "app": name });
    let pod = json!({ "containers": [{ "name": "c", "image": "app:1" }] });
    let template = json!({ "metadata": { "labels": labels }, "spec": pod });
    let replicas = dice.random_range(0..=REPLICAS_MAX);
    let selector = json!({ "matchLabels": labels });
    let (version, spec) = match kind {
        "Service" => {
            // Of a deployment, so that it has pods.
            let of = name.replace("service", "deployment");
            ("v1", json!({ "selector": { "app": of }, "ports": [{ "port": 80 }] }))
        }
        "Job" => {
            let mut template = template;
            template["spec"]["restartPolicy"] = "Never".into();
            template["metadata"]["annotations"] =
                json!({ "simulate.keelson.dev/exit": dice.random_range(0..2).to_string() });
            let (completions, parallelism) = (dice.random_range(1..4), dice.random_range(1..3));
            let spec = json!({
                "completions": completions, "parallelism": parallelism, "backoffLimit": 1, "template": template,
            });
            ("batch/v1", spec)
        }
        "StatefulSet" => (
            "apps/v1",
            json!({ "replicas": replicas, "serviceName": name, "selector": selector, "template": template }),
        ),
        "DaemonSet" => ("apps/v1", json!({ "selector": selector, "template": template })),
        "Deployment" => {
            let kinds = ["RollingUpdate", "Recreate"];
            let strategy = json!({ "type": kinds[dice.random_range(0..kinds.len())] });
            (
                "apps/v1",
                json!({ "replicas": replicas, "selector": selector, "strategy": strategy, "template": template }),
            )
        }
        _ => ("apps/v1", json!({ "replicas": replicas, "selector": selector, "template": template })),
    };
    json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec })
}
