//! Lists: pages, revisions, selectors, forms.

use serde_json::{Value, json};

use super::rig::Rig;

const MAPS: &str = "/api/v1/namespaces/ns/configmaps";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_show_one_revision() {
    let rig = Rig::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        rig.config_map(name).await;
    }
    let first = rig.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    rig.delete(&format!("{MAPS}/c")).await.expect(200);
    rig.config_map("bb").await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = rig.get(&format!("{MAPS}?limit=10&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["c", "d", "e"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(rest["metadata"]["continue"], Value::Null);
    assert_eq!(names(&rig.get(MAPS).await.expect(200)), ["a", "b", "bb", "d", "e"]);
}

#[tokio::test]
async fn old_revisions_are_listed_exactly_until_they_are_gone() {
    let rig = Rig::start().await;
    rig.config_map("a").await;
    let before = rig.get(MAPS).await.expect(200);
    let revision = before["metadata"]["resourceVersion"].as_str().unwrap();
    rig.config_map("b").await;
    let exact = format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(names(&rig.get(&exact).await.expect(200)), ["a"]);
    assert_eq!(names(&rig.get(MAPS).await.expect(200)), ["a", "b"]);
    assert_eq!(names(&rig.get(&format!("{MAPS}?resourceVersion={revision}")).await.expect(200)), ["a", "b"]);
    rig.get(&format!("{MAPS}?resourceVersion=x")).await.refused(400, "BadRequest");
    rig.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.refused(422, "Invalid");
}

#[tokio::test(start_paused = true)]
async fn revisions_of_the_future_time_out() {
    let rig = Rig::start().await;
    let status = rig.get(&format!("{MAPS}?resourceVersion=999999999")).await.refused(504, "Timeout");
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn selectors_choose() {
    let rig = Rig::start().await;
    for (name, app) in [("a", "x"), ("b", "y")] {
        rig.post(MAPS, json!({"metadata": {"name": name, "labels": {"app": app}}})).await.expect(201);
    }
    let check = async |query: &str, want: &[&str]| {
        let list = rig.get(&format!("{MAPS}?{query}")).await.expect(200);
        assert_eq!(names(&list), want, "{query}");
    };
    check("labelSelector=app%3Dx", &["a"]).await;
    check("labelSelector=app+notin+(x)", &["b"]).await;
    check("fieldSelector=metadata.name%3Db", &["b"]).await;
    check("fieldSelector=metadata.name%21%3Db", &["a"]).await;
    check("fieldSelector=metadata.namespace%3Dother", &[]).await;
    rig.get(&format!("{MAPS}?fieldSelector=data.k%3Dv")).await.refused(400, "BadRequest");
    rig.get(&format!("{MAPS}?labelSelector=a+b")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn items_carry_no_type_and_other_forms_are_served() {
    let rig = Rig::start().await;
    rig.config_map("a").await;
    let list = rig.get(MAPS).await.expect(200);
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("ConfigMapList"), &Value::Null));
    let table = rig.get_as(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await.expect(200);
    assert_eq!((&table["kind"], &table["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    let partial =
        rig.get_as(MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert_eq!(partial["items"][0]["metadata"]["name"], "a");
    let yaml = rig.get_as(&format!("{MAPS}/a"), "application/yaml").await;
    assert!(yaml.text().contains("kind: ConfigMap"), "{}", yaml.text());
    rig.get_as(MAPS, "text/html").await.refused(406, "NotAcceptable");
    let all = rig.get("/api/v1/configmaps").await.expect(200);
    assert!(names(&all).contains(&"a"));
}

#[tokio::test]
async fn large_lists_are_streamed_and_compressed_on_request() {
    use std::io::Read;
    let rig = Rig::start().await;
    let filling = "x".repeat(10_000);
    for index in 0..40 {
        let body = json!({"metadata": {"name": format!("n{index:02}")}, "data": {"k": filling}});
        rig.post(MAPS, body).await.expect(201);
    }
    let plain = rig.get(MAPS).await;
    assert_eq!(names(&plain.json()).len(), 40);
    let request = http::Request::get(MAPS).header("accept-encoding", "gzip").body(crate::body::empty()).unwrap();
    let zipped = rig.answer(request).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&zipped.bytes[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.bytes);
    assert!(zipped.bytes.len() < plain.bytes.len() / 10);
}
