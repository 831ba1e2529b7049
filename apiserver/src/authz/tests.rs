//! Nodes and users on a running server: what the authorizers and NodeRestriction together let through.

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::serve::tests::{Running, start};
use crate::{Peer, User, body};

async fn ask(running: &Running, user: &User, method: &str, path: &str, object: Value) -> (u16, String) {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let text = if object.is_null() { String::new() } else { object.to_string() };
    let response = running.server.call(request.body(body::full(text)).unwrap(), Peer::Component(user.clone())).await;
    let code = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&text).into_owned())
}

fn admin() -> User {
    User::new("admin", &["system:masters"])
}

fn node(name: &str) -> User {
    User::new(format!("system:node:{name}"), &["system:nodes"])
}

async fn write(running: &Running, path: &str, object: Value) {
    let (code, text) = ask(running, &admin(), "POST", path, object).await;
    assert_eq!(code, 201, "{path}: {text}");
}

/// Nodes `n1` and `n2`, and a pod on `n1` that uses the Secret `used`.
async fn cluster() -> Running {
    let running = start().await;
    write(&running, "/api/v1/namespaces", json!({"metadata": {"name": "ns"}})).await;
    write(&running, "/api/v1/namespaces/ns/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for name in ["used", "other"] {
        write(&running, "/api/v1/namespaces/ns/secrets", json!({"metadata": {"name": name}})).await;
    }
    for name in ["n1", "n2"] {
        write(&running, "/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1",
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "used"}}]}]}});
    write(&running, "/api/v1/namespaces/ns/pods", pod).await;
    running
}

#[tokio::test]
async fn a_node_reads_what_its_pods_use_and_nothing_else() {
    let running = cluster().await;
    let table = [
        ("n1", "/api/v1/namespaces/ns/secrets/used", 200),
        ("n1", "/api/v1/namespaces/ns/secrets/other", 403),
        ("n2", "/api/v1/namespaces/ns/secrets/used", 403),
        ("n1", "/api/v1/namespaces/ns/secrets", 403),
        ("n1", "/api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Dused", 200),
        ("n1", "/api/v1/namespaces/ns/pods/p", 200),
        ("n2", "/api/v1/namespaces/ns/pods/p", 403),
        ("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", 200),
        ("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2", 403),
        ("n1", "/api/v1/pods", 403),
        ("n1", "/api/v1/nodes/n1", 200),
        ("n1", "/api/v1/nodes/n2", 403),
        ("n1", "/api/v1/services", 200),
        ("n1", "/api/v1/namespaces/ns/serviceaccounts/default", 200),
        ("n2", "/api/v1/namespaces/ns/serviceaccounts/default", 403),
    ];
    for (name, path, wanted) in table {
        let (code, text) = ask(&running, &node(name), "GET", path, Value::Null).await;
        assert_eq!(code, wanted, "{name} {path}: {text}");
    }
}

#[tokio::test]
async fn a_node_writes_its_own_objects_only() {
    let running = cluster().await;
    let status = |name: &str| json!({"metadata": {"name": name}, "status": {"phase": "Running"}});
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    write(&running, "/api/v1/namespaces", json!({"metadata": {"name": "kube-node-lease"}})).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let labelled = json!({"metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/x": ""}}});
    let mirror = |annotations: Value| {
        json!({"metadata": {"name": "static-n1", "annotations": annotations},
               "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}})
    };
    let mark = json!({"kubernetes.io/config.mirror": "x"});
    let table = [
        ("n1", "PATCH", "/api/v1/nodes/n1/status".to_owned(), status("n1"), 200),
        ("n1", "PATCH", "/api/v1/nodes/n2/status".to_owned(), status("n2"), 403),
        ("n1", "PATCH", "/api/v1/nodes/n1".to_owned(), labelled, 403),
        ("n1", "POST", leases.to_owned(), lease("n1"), 201),
        ("n1", "POST", leases.to_owned(), lease("n2"), 403),
        ("n1", "POST", "/api/v1/namespaces/ns/pods".to_owned(), mirror(mark), 201),
        ("n1", "POST", "/api/v1/namespaces/ns/pods".to_owned(), mirror(json!({})), 403),
        ("n2", "DELETE", "/api/v1/namespaces/ns/pods/p".to_owned(), Value::Null, 403),
    ];
    for (name, method, path, object, wanted) in table {
        let (code, text) = ask(&running, &node(name), method, &path, object).await;
        assert_eq!(code, wanted, "{name} {method} {path}: {text}");
    }
}

#[tokio::test]
async fn a_token_is_only_for_the_pods_of_the_node() {
    let running = cluster().await;
    let (_, pod) = ask(&running, &admin(), "GET", "/api/v1/namespaces/ns/pods/p", Value::Null).await;
    let pod: Value = serde_json::from_str(&pod).unwrap();
    let request =
        |uid: &Value| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}});
    let path = "/api/v1/namespaces/ns/serviceaccounts/default/token";
    let (code, text) = ask(&running, &node("n1"), "POST", path, request(&pod["metadata"]["uid"])).await;
    assert_eq!(code, 201, "{text}");
    for (name, body) in
        [("n1", json!({"spec": {}})), ("n1", request(&"wrong".into())), ("n2", request(&pod["metadata"]["uid"]))]
    {
        let (code, text) = ask(&running, &node(name), "POST", path, body.clone()).await;
        assert!(matches!(code, 403 | 409), "{name} {body}: {code} {text}");
    }
}
