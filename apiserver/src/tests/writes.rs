//! Writes through every verb.

use serde_json::json;

use super::rig::Rig;

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

#[tokio::test]
async fn created_objects_are_completed_and_read_back() {
    let rig = Rig::start().await;
    let created = rig.config_map("a").await;
    assert_eq!(created["kind"], "ConfigMap");
    assert_eq!(created["metadata"]["namespace"], "ns");
    assert!(created["metadata"]["uid"].as_str().is_some_and(|uid| uid.len() == 36));
    let read = rig.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(read, created);
    rig.post(MAPS, json!({"metadata": {"name": "a"}})).await.refused(409, "AlreadyExists");
    rig.get(&format!("{MAPS}/b")).await.refused(404, "NotFound");
    rig.post(MAPS, json!({"metadata": {"name": "Bad_Name"}})).await.refused(422, "Invalid");
    rig.post(MAPS, json!({"metadata": {"name": "b", "namespace": "other"}})).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn names_are_generated() {
    let rig = Rig::start().await;
    let created = rig.post(MAPS, json!({"metadata": {"generateName": "x-"}})).await.expect(201);
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn updates_compare_versions() {
    let rig = Rig::start().await;
    let path = format!("{MAPS}/a");
    let created = rig.config_map("a").await;
    let mut changed = created.clone();
    changed["data"]["k"] = "w".into();
    let updated = rig.put(&path, changed.clone()).await.expect(200);
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    rig.put(&path, changed.clone()).await.refused(409, "Conflict");
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let same = rig.put(&path, changed).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"], "nothing changed");
    rig.put(&format!("{MAPS}/none"), json!({"metadata": {"name": "none"}})).await.refused(404, "NotFound");
    rig.put(&path, json!({"metadata": {"name": "other"}})).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn patches_of_each_format_change_the_object() {
    let rig = Rig::start().await;
    rig.config_map("a").await;
    let path = format!("{MAPS}/a");
    let merged = rig.merge(&path, json!({"data": {"m": "1"}})).await.expect(200);
    assert_eq!(merged["data"], json!({"k": "v", "m": "1"}));
    let operations = json!([{"op": "remove", "path": "/data/k"}]).to_string();
    let patched = rig.call("PATCH", &path, "application/json-patch+json", operations).await.expect(200);
    assert_eq!(patched["data"], json!({"m": "1"}));
    let strategic = json!({"data": {"s": "2", "m": null}}).to_string();
    let patched = rig.call("PATCH", &path, "application/strategic-merge-patch+json", strategic).await.expect(200);
    assert_eq!(patched["data"], json!({"s": "2"}));
    rig.call("PATCH", &path, "application/json", "{}").await.refused(415, "UnsupportedMediaType");
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let rig = Rig::start().await;
    let config =
        |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value}});
    let path = |manager: &str| format!("{MAPS}/a?fieldManager={manager}");
    let created = rig.apply(&path("one"), config("1")).await.expect(201);
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Apply");
    rig.apply(&path("one"), config("2")).await.expect(200);
    let refused = rig.apply(&path("two"), config("3")).await.refused(409, "Conflict");
    assert_eq!(refused["details"]["causes"][0]["field"], ".data.k");
    let forced = rig.apply(&format!("{}&force=true", path("two")), config("3")).await.expect(200);
    assert_eq!(forced["data"]["k"], "3");
    rig.apply(&format!("{MAPS}/a"), config("3")).await.refused(422, "Invalid");
}

#[tokio::test]
async fn concurrent_patches_are_all_kept() {
    let rig = std::sync::Arc::new(Rig::start().await);
    rig.config_map("a").await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..20 {
        let rig = rig.clone();
        tasks.spawn(async move {
            let patch = json!({"data": {(format!("k{index}")): "v"}});
            rig.merge(&format!("{MAPS}/a"), patch).await.expect(200);
        });
    }
    tasks.join_all().await;
    let read = rig.get(&format!("{MAPS}/a")).await.expect(200);
    assert_eq!(read["data"].as_object().unwrap().len(), 21);
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let rig = Rig::start().await;
    rig.config_map("a").await;
    let path = format!("{MAPS}/a?dryRun=All");
    rig.post(&format!("{MAPS}?dryRun=All"), json!({"metadata": {"name": "b"}})).await.expect(201);
    let patched = rig.merge(&path, json!({"data": {"k": "w"}})).await.expect(200);
    assert_eq!(patched["data"]["k"], "w");
    rig.delete(&path).await.expect(200);
    rig.get(&format!("{MAPS}/b")).await.refused(404, "NotFound");
    assert_eq!(rig.get(&format!("{MAPS}/a")).await.expect(200)["data"]["k"], "v");
    rig.post(&format!("{MAPS}?dryRun=some"), json!({"metadata": {"name": "b"}})).await.refused(422, "Invalid");
}

#[tokio::test]
async fn deletion_honours_finalizers_and_preconditions() {
    let rig = Rig::start().await;
    let path = format!("{MAPS}/a");
    rig.post(MAPS, json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}})).await.expect(201);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}});
    rig.call("DELETE", &path, "application/json", options.to_string()).await.refused(409, "Conflict");
    let marked = rig.delete(&path).await.expect(200);
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    rig.post(MAPS, json!({"metadata": {"name": "a"}})).await.refused(409, "AlreadyExists");
    rig.merge(&path, json!({"metadata": {"finalizers": null}})).await.expect(200);
    rig.get(&path).await.refused(404, "NotFound");
    rig.config_map("b").await;
    let status = rig.delete(&format!("{MAPS}/b")).await.expect(200);
    assert_eq!((&status["status"], &status["details"]["kind"]), (&json!("Success"), &json!("configmaps")));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let rig = Rig::start().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        rig.post(MAPS, json!({"metadata": {"name": name, "labels": {"app": app}}})).await.expect(201);
    }
    let deleted = rig.delete(&format!("{MAPS}?labelSelector=app%3Dx")).await.expect(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = rig.get(MAPS).await.expect(200);
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
}

#[tokio::test]
async fn events_are_one_object_in_two_groups() {
    let rig = Rig::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "ns"},
        "reason": "Tested", "message": "m", "type": "Normal", "source": {"component": "rig"}, "count": 1,
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    });
    rig.post("/api/v1/namespaces/ns/events", event).await.expect(201);
    let other = rig.get("/apis/events.k8s.io/v1/namespaces/ns/events/e").await.expect(200);
    assert_eq!((&other["note"], &other["regarding"]["name"]), (&json!("m"), &json!("p")));
    assert_eq!(other["apiVersion"], "events.k8s.io/v1");
    let list = rig.get("/apis/events.k8s.io/v1/namespaces/ns/events").await.expect(200);
    assert_eq!(list["items"][0]["note"], "m");
}

#[tokio::test]
async fn events_are_selected_by_the_names_of_either_group() {
    let rig = Rig::start().await;
    let event = json!({
        "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "ns"},
        "reason": "Tested", "note": "m", "type": "Normal", "action": "Test",
        "reportingController": "example.com/rig", "reportingInstance": "rig-1", "eventTime": "2026-01-01T00:00:00.000000Z",
    });
    rig.post("/apis/events.k8s.io/v1/namespaces/ns/events", event).await.expect(201);
    let check = async |group: &str, selector: &str, count: usize| {
        let list = rig.get(&format!("/{group}/namespaces/ns/events?fieldSelector={selector}")).await.expect(200);
        assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{group} {selector}");
    };
    check("apis/events.k8s.io/v1", "reportingController=example.com/rig", 1).await;
    check("apis/events.k8s.io/v1", "reportingController=other", 0).await;
    check("apis/events.k8s.io/v1", "regarding.name=p", 1).await;
    check("api/v1", "reportingComponent=example.com/rig", 1).await;
    check("api/v1", "involvedObject.name=p", 1).await;
    rig.get("/api/v1/namespaces/ns/events?fieldSelector=regarding.name=p").await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_review_is_no_table() {
    let rig = Rig::start().await;
    let ask = async |accept: &str| {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let spec = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
        rig.post_as(path, accept, spec).await
    };
    ask("application/json;as=Table;v=v1;g=meta.k8s.io").await.refused(406, "NotAcceptable");
    ask("application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.expect(201);
}
