//! Custom resources from definition to removal.

use serde_json::{Value, json};

use super::rig::{Rig, things};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THINGS: &str = "/apis/example.com/v1/namespaces/ns/things";

fn definition() -> Value {
    let spec = json!({"type": "object", "properties": {
        "count": {"type": "integer", "minimum": 1}, "color": {"type": "string", "default": "red"},
    }});
    things(spec)
}

fn thing(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

/// Waits for the definition's events until `done` accepts its state.
async fn until(rig: &Rig, done: impl Fn(Option<&Value>) -> bool) {
    let path = format!("{DEFINITIONS}/things.example.com");
    let mut revisions = rig.server.server().cache.subscribe();
    loop {
        let answer = rig.get(&path).await;
        let found = (answer.code == 200).then(|| answer.json());
        if done(found.as_ref()) {
            return;
        }
        revisions.changed().await.unwrap();
    }
}

fn established(found: Option<&Value>) -> bool {
    let conditions = found.and_then(|found| found["status"]["conditions"].as_array());
    conditions.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

#[tokio::test]
async fn an_established_definition_is_served_and_takes_its_objects_along() {
    let rig = Rig::start().await;
    rig.get(THINGS).await.refused(404, "NotFound");
    rig.post(DEFINITIONS, definition()).await.expect(201);
    until(&rig, established).await;
    let created = rig.post(THINGS, thing("a", json!({"count": 2, "unknown": 1}))).await.expect(201);
    assert_eq!(created["spec"], json!({"count": 2, "color": "red"}));
    rig.post(THINGS, thing("b", json!({"count": 0}))).await.refused(422, "Invalid");
    let list = rig.get(THINGS).await.expect(200);
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("ThingList"), &json!("Thing")));
    let patched = rig.merge(&format!("{THINGS}/a"), json!({"spec": {"count": 3}})).await.expect(200);
    assert_eq!(patched["metadata"]["generation"], 2);
    rig.delete(&format!("{DEFINITIONS}/things.example.com")).await.expect(200);
    until(&rig, |found| found.is_none()).await;
    rig.get(THINGS).await.refused(404, "NotFound");
}

#[tokio::test]
async fn definitions_that_cannot_be_served_are_refused() {
    let rig = Rig::start().await;
    let check = async |pointer: &str, value: Value, field: &str| {
        let mut wrong = definition();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let status = rig.post(DEFINITIONS, wrong).await.refused(422, "Invalid");
        assert_eq!(status["details"]["causes"][0]["field"], field);
    };
    check("/metadata/name", json!("other.example.com"), "metadata.name").await;
    check("/spec/scope", json!("Galaxy"), "spec.scope").await;
    check("/spec/versions/0/storage", json!(false), "spec.versions").await;
    let root = "spec.validation.openAPIV3Schema";
    check("/spec/versions/0/schema/openAPIV3Schema/type", json!("string"), &format!("{root}.type")).await;
}
