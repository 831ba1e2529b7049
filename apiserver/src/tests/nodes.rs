//! What the holder of a node's certificate can do, and what a stolen one cannot: everything of other nodes.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use super::rig::{Answer, Rig};
use crate::User;

/// Two nodes with a pod each, and things that only one of them refers to.
struct World {
    rig: Rig,
    thief: User,
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "serviceAccountName": name,
            "containers": [{"name": "c", "image": "i", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": name, "key": "k"}}},
            ]}],
            "volumes": [{"name": "v", "secret": {"secretName": name}}],
        },
    })
}

impl World {
    async fn start() -> Self {
        let rig = Rig::start().await;
        rig.server.bootstrapped().await;
        for node in ["mine", "other"] {
            let key = json!({"metadata": {"name": node, "labels": {"disk": "ssd"}}});
            rig.post("/api/v1/nodes", key).await.expect(201);
            for kind in ["secrets", "configmaps", "serviceaccounts"] {
                let object = json!({"metadata": {"name": node}});
                rig.post(&format!("/api/v1/namespaces/ns/{kind}"), object).await.expect(201);
            }
            rig.post("/api/v1/namespaces/ns/pods", pod(node, node)).await.expect(201);
            let lease = json!({"metadata": {"name": node}, "spec": {"holderIdentity": node}});
            rig.post("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await.expect(201);
            let claim = json!({"metadata": {"name": node}, "spec": {"drivers": []}});
            rig.post("/apis/storage.k8s.io/v1/csinodes", claim).await.expect(201);
        }
        Self { rig, thief: User::new("system:node:mine", &["system:nodes"]) }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.rig.call_as(&self.thief, method, path, body).await
    }

    /// Allowed for the node's own, refused for the other's. `OWN` in path and body stands for the name.
    async fn only_own(&self, method: &str, path: &str, body: Value) {
        for (name, allowed) in [("other", false), ("mine", true)] {
            let body: Value = serde_json::from_str(&body.to_string().replace("OWN", name)).unwrap();
            let answer = self.call(method, &path.replace("OWN", name), body).await;
            let (code, text) = (answer.code, answer.text());
            assert_eq!(code == 403, !allowed, "{method} {path} of {name}: {code} {text}");
            assert!(!allowed || (200..300).contains(&code), "{method} {path} of {name}: {code} {text}");
        }
    }

    async fn refused(&self, method: &str, path: &str, body: Value) {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.code, 403, "{method} {path}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_node_reads_what_its_own_pods_refer_to() {
    let world = World::start().await;
    for kind in ["secrets", "configmaps", "pods"] {
        world.only_own("GET", &format!("/api/v1/namespaces/ns/{kind}/OWN"), Value::Null).await;
        world.refused("GET", &format!("/api/v1/namespaces/ns/{kind}"), Value::Null).await;
    }
    world.only_own("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3DOWN", Value::Null).await;
    world.refused("GET", "/api/v1/secrets", Value::Null).await;
    world.refused("GET", "/api/v1/namespaces/kube-system/secrets", Value::Null).await;
    // A secret is out of reach again when the last pod that needs it is gone.
    world.rig.delete("/api/v1/namespaces/ns/pods/mine?gracePeriodSeconds=0").await.expect(200);
    world.refused("GET", "/api/v1/namespaces/ns/secrets/mine", Value::Null).await;
}

#[tokio::test]
async fn a_node_gets_tokens_for_accounts_of_its_own_pods_bound_to_them() {
    let world = World::start().await;
    let mine = world.rig.get("/api/v1/namespaces/ns/pods/mine").await.expect(200);
    let other = world.rig.get("/api/v1/namespaces/ns/pods/other").await.expect(200);
    let request = |pod: &Value| {
        json!({"spec": {"boundObjectRef": {
            "kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
        }}})
    };
    let path = |name: &str| format!("/api/v1/namespaces/ns/serviceaccounts/{name}/token");
    world.call("POST", &path("mine"), request(&mine)).await.expect(201);
    world.refused("POST", &path("other"), request(&other)).await;
    world.refused("POST", &path("mine"), request(&other)).await;
    world.refused("POST", &path("mine"), json!({"spec": {}})).await;
}

#[tokio::test]
async fn a_node_writes_its_own_objects() {
    let world = World::start().await;
    let status = json!({"status": {"phase": "Running"}});
    world.only_own("PATCH", "/api/v1/namespaces/ns/pods/OWN/status", status).await;
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    world.only_own("PATCH", "/api/v1/nodes/OWN/status", ready).await;
    let note = json!({"metadata": {"annotations": {"a": "b"}}});
    world.only_own("PATCH", "/api/v1/nodes/OWN", note.clone()).await;
    world.only_own("PATCH", "/apis/storage.k8s.io/v1/csinodes/OWN", note.clone()).await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/OWN";
    world.only_own("GET", lease, Value::Null).await;
    world.only_own("PATCH", lease, note).await;
    world.only_own("DELETE", "/api/v1/namespaces/ns/pods/OWN?gracePeriodSeconds=0", Value::Null).await;
}

#[tokio::test]
async fn a_node_draws_no_workloads_to_itself() {
    let world = World::start().await;
    for label in ["node-restriction.kubernetes.io/x", "node-role.kubernetes.io/control-plane", "kubernetes.io/x"] {
        world.refused("PATCH", "/api/v1/nodes/mine", json!({"metadata": {"labels": {label: "y"}}})).await;
    }
    let taints = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    world.refused("PATCH", "/api/v1/nodes/mine", taints).await;
    world.refused("POST", "/api/v1/nodes", json!({"metadata": {"name": "third"}})).await;
    world.refused("DELETE", "/api/v1/nodes/mine", Value::Null).await;
    world.refused("POST", "/api/v1/namespaces/ns/pods", pod("mine", "mine")).await;
    world.refused("POST", "/api/v1/namespaces/ns/pods", pod("mine", "other")).await;
    let binding = json!({"metadata": {"name": "other"}, "target": {"kind": "Node", "name": "mine"}});
    world.refused("POST", "/api/v1/namespaces/ns/pods/other/binding", binding).await;
    let eviction = json!({"metadata": {"name": "other", "namespace": "ns"}});
    world.refused("POST", "/api/v1/namespaces/ns/pods/other/eviction", eviction).await;
}

fn certificate_request(signer: &str, group: &str, usage: &str) -> Value {
    use base64::Engine;
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, "system:node:other");
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({
        "metadata": {"name": format!("csr-{}", group.replace(':', "-"))},
        "spec": {"request": request, "signerName": signer, "usages": ["digital signature", usage]},
    })
}

#[tokio::test]
async fn a_node_approves_and_signs_nothing() {
    let world = World::start().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let asked = certificate_request("kubernetes.io/kube-apiserver-client-kubelet", "system:nodes", "client auth");
    let mut object = world.call("POST", requests, asked).await.expect(201);
    assert_eq!(object["spec"]["username"], "system:node:mine", "who asks is not what was sent");
    let path = format!("{requests}/csr-system-nodes");
    object["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "x", "message": "y"}]});
    world.refused("PUT", &format!("{path}/approval"), object.clone()).await;
    object["status"] = json!({"certificate": "eA=="});
    world.refused("PUT", &format!("{path}/status"), object).await;
    // Nobody gets a certificate of the administrators' group from this signer.
    let masters = certificate_request("kubernetes.io/kube-apiserver-client", "system:masters", "client auth");
    world.refused("POST", requests, masters.clone()).await;
    world.rig.post(requests, masters).await.expect(403);
}

#[tokio::test]
async fn approving_and_signing_take_the_right_for_the_signer() {
    let world = World::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let approve = json!({"metadata": {"name": "approve"}, "rules": [
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["update"]},
    ]});
    world.rig.post(&format!("{rbac}/clusterroles"), approve).await.expect(201);
    let bind = |role: &str| {
        json!({
            "metadata": {"name": format!("jane-{}", role.replace(':', "-"))},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}],
        })
    };
    world.rig.post(&format!("{rbac}/clusterrolebindings"), bind("approve")).await.expect(201);
    let asked = certificate_request("kubernetes.io/kube-apiserver-client-kubelet", "system:nodes", "client auth");
    let mut object = world.rig.post(requests, asked).await.expect(201);
    object["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "x", "message": "y"}]});
    let (path, jane) = (format!("{requests}/csr-system-nodes/approval"), User::new("jane", &[]));
    let refused = world.rig.call_as(&jane, "PUT", &path, object.clone()).await.refused(403, "Forbidden");
    assert!(refused["message"].as_str().unwrap().contains("user not permitted to approve requests"), "{refused}");
    let approver = "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver";
    world.rig.post(&format!("{rbac}/clusterrolebindings"), bind(approver)).await.expect(201);
    world.rig.call_as(&jane, "PUT", &path, object).await.expect(200);
}

#[tokio::test]
async fn a_bootstrap_token_asks_for_a_certificate_and_nothing_else() {
    let world = World::start().await;
    let newcomer =
        User::new("system:bootstrap:abcdef", &["system:bootstrappers", "system:bootstrappers:keelson:nodes"]);
    let asked = certificate_request("kubernetes.io/kube-apiserver-client-kubelet", "system:nodes", "client auth");
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    world.rig.call_as(&newcomer, "POST", requests, asked.clone()).await.expect(201);
    for path in ["/api/v1/nodes", "/api/v1/secrets", "/api/v1/pods", "/api/v1/namespaces/kube-system/secrets"] {
        world.rig.call_as(&newcomer, "GET", path, Value::Null).await.refused(403, "Forbidden");
    }
    let other = User::new("system:bootstrap:abcdef", &["system:bootstrappers"]);
    world.rig.call_as(&other, "POST", requests, asked).await.refused(403, "Forbidden");
}
