//! Input nobody should send: each gets its Status, and costs bounded memory.

use serde_json::json;

use super::rig::Rig;

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

#[tokio::test]
async fn malformed_bodies_are_bad_requests() {
    let rig = Rig::start().await;
    for body in ["hello", "{\"a\":", "[]", "", "{\"metadata\": 7}", "\u{0}", "{\"kind\": 5}"] {
        let answer = rig.call("POST", MAPS, "application/json", body).await;
        assert_eq!(answer.code, 400, "{body:?}: {}", answer.text());
    }
    for body in ["a: [", "- a", "a: b: c", "&a [*a]"] {
        let answer = rig.call("POST", MAPS, "application/yaml", body).await;
        assert_eq!(answer.code, 400, "{body:?}: {}", answer.text());
    }
    rig.call("POST", MAPS, "application/xml", "<a/>").await.refused(415, "UnsupportedMediaType");
    rig.call("POST", MAPS, "application/vnd.kubernetes.protobuf", "hello").await.refused(400, "BadRequest");
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let rig = Rig::start().await;
    let filling = "x".repeat(10 * 1024 * 1024);
    let body = json!({"metadata": {"name": "a"}, "data": {"k": filling}});
    rig.post(MAPS, body).await.refused(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let rig = Rig::start().await;
    let deep = format!("{{\"metadata\":{}{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    rig.call("POST", MAPS, "application/json", deep.clone()).await.refused(400, "BadRequest");
    rig.call("POST", MAPS, "application/yaml", deep.clone()).await.refused(400, "BadRequest");
    let lists = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    rig.call("POST", MAPS, "application/json", lists.clone()).await.refused(400, "BadRequest");
    rig.config_map("a").await;
    for kind in ["merge-patch+json", "json-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"] {
        let path = format!("{MAPS}/a?fieldManager=m");
        let answer = rig.call("PATCH", &path, &format!("application/{kind}"), deep.clone()).await;
        assert_eq!(answer.code, 400, "{kind}: {}", answer.text());
    }
}

#[tokio::test]
async fn yaml_bombs_are_refused() {
    let rig = Rig::start().await;
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let references = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{references}]\n"));
    }
    rig.call("POST", MAPS, "application/yaml", bomb).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn hostile_names_and_paths_find_nothing() {
    let rig = Rig::start().await;
    for name in ["..", "a/../b", "%2e%2e", "%00", "a%2Fb", "%ff%fe", "a%20b", "%F0%9F%92%A9"] {
        let answer = rig.get(&format!("{MAPS}/{name}")).await;
        assert!(matches!(answer.code, 404 | 405), "{name}: {} {}", answer.code, answer.text());
    }
    for name in ["../x", "a/b", "", "%", "A", "-a", "a\u{0}", &"a".repeat(254)] {
        let answer = rig.post(MAPS, json!({"metadata": {"name": name}})).await;
        answer.refused(422, "Invalid");
    }
    let long = "a".repeat(63_000);
    assert_eq!(rig.get(&format!("{MAPS}?labelSelector={long}")).await.code, 414);
    for path in ["/", "//", "/api/v1//", "/apis/x", "/api/v1/namespaces/ns/nothing", "/api/v1/watch"] {
        let answer = rig.get(path).await;
        assert!(answer.code == 404 || answer.code == 500 || answer.code == 200, "{path}: {}", answer.code);
    }
}

#[tokio::test]
async fn wrong_kinds_and_versions_are_refused() {
    let rig = Rig::start().await;
    for (kind, version) in [("Secret", "v1"), ("ConfigMap", "v2"), ("ConfigMap", "apps/v1")] {
        let body = json!({"kind": kind, "apiVersion": version, "metadata": {"name": "a"}});
        rig.post(MAPS, body).await.refused(400, "BadRequest");
    }
    rig.call("POST", &format!("{MAPS}/a"), "application/json", "{}").await.refused(405, "MethodNotAllowed");
    rig.call("PUT", MAPS, "application/json", "{}").await.refused(405, "MethodNotAllowed");
}
