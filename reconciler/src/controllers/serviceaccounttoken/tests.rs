//! What a Secret for a token needs.

use api_client::Object;
use serde_json::{Value, json};

use super::{Step, TokenSecret, fill, plan};
use crate::objects::ServiceAccount;

fn secret(uid: Option<&str>, data: Value) -> TokenSecret {
    let annotations = json!({"kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": uid.unwrap_or_default()});
    let metadata =
        json!({"name": "t", "namespace": "a", "uid": "s", "resourceVersion": "7", "annotations": annotations});
    let mut secret: TokenSecret = serde_json::from_value(json!({"metadata": metadata, "data": data})).unwrap();
    secret.trim();
    secret
}

fn account() -> ServiceAccount {
    serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "a", "uid": "u"}})).unwrap()
}

#[test]
fn a_secret_is_filled_once_and_goes_with_its_account() {
    let empty = secret(None, json!({}));
    assert_eq!(plan(&empty, Some(&account()), Some("ca")), Step::Fill { token: true });
    assert_eq!(plan(&empty, None, Some("ca")), Step::Delete);
    // "ca", "a", "x" in base64.
    let full = json!({"ca.crt": "Y2E=", "namespace": "YQ==", "token": "eHl6"});
    let complete = secret(Some("u"), full.clone());
    assert_eq!(complete.data["token"].0, b"x", "no more of it than that it is there");
    assert_eq!(plan(&complete, Some(&account()), Some("ca")), Step::Nothing);
    assert_eq!(plan(&complete, Some(&account()), Some("new")), Step::Fill { token: false });
    assert_eq!(plan(&secret(Some("other"), full), Some(&account()), Some("ca")), Step::Delete);
}

#[test]
fn the_patch_is_for_one_version_of_the_secret() {
    let patch = fill(&secret(None, json!({})), &account(), Some("t"), None);
    let expected = json!({
        "metadata": {"resourceVersion": "7", "annotations": {"kubernetes.io/service-account.uid": "u"}},
        "data": {"namespace": "YQ==", "token": "dA=="},
    });
    assert_eq!(patch, expected);
}
