//! The same questions to every row of the catalogue: no kind may answer them in its own way.

use api::catalogue::Catalogue;

use super::rig::Rig;

#[tokio::test]
async fn every_stored_resource_is_read_in_the_same_way() {
    let rig = Rig::start().await;
    for row in Catalogue::builtin().iter().filter(|row| row.stored) {
        let root = if row.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", row.group) };
        let scope = if row.namespaced() { "/namespaces/ns" } else { "" };
        let path = format!("{root}/{}{scope}/{}", row.version, row.plural);
        let list = rig.get(&path).await.expect(200);
        assert_eq!((&list["kind"], &list["apiVersion"]), (&row.list_kind.clone().into(), &row.api_version().into()));
        let status = rig.get(&format!("{path}/none")).await.refused(404, "NotFound");
        assert_eq!(
            (&status["details"]["kind"], &status["details"]["name"]),
            (&row.plural.clone().into(), &"none".into())
        );
        rig.delete(&format!("{path}/none")).await.refused(404, "NotFound");
        rig.merge(&format!("{path}/none"), serde_json::json!({})).await.refused(404, "NotFound");
        rig.call("POST", &format!("{path}/none"), "application/json", "{}").await.refused(405, "MethodNotAllowed");
        rig.call("POST", &path, "application/json", "[").await.refused(400, "BadRequest");
        let table = rig.get_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        let rows = table["rows"].as_array().unwrap();
        assert!(columns > 0 && rows.iter().all(|r| r["cells"].as_array().unwrap().len() == columns), "{path}");
    }
}
