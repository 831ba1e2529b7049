//! AdmissionReviews: what a webhook is asked, and what its answer means (`VerifyAdmissionResponse`). Pure but for the
//! uid.

use api::status::{Details, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use uuid::Uuid;

/// The first version of the webhook's that is spoken here.
pub fn version(spec: &Value) -> &'static str {
    let versions = spec["admissionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut known = versions.filter_map(|version| ["v1", "v1beta1"].into_iter().find(|known| *known == version));
    known.next().unwrap_or("v1")
}

/// The review with its uid.
pub fn make(version: &str, described: Value, object: &Value, old: &Value) -> (String, Value) {
    let uid = Uuid::new_v4().to_string();
    let mut request = described;
    request["uid"] = uid.as_str().into();
    request["object"] = object.clone();
    request["oldObject"] = old.clone();
    let api_version = format!("admission.k8s.io/{version}");
    (uid, json!({"kind": "AdmissionReview", "apiVersion": api_version, "request": request}))
}

#[derive(Debug)]
pub struct Verdict {
    allowed: bool,
    /// A JSON patch.
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    status: Value,
}

pub fn judge(version: &str, uid: &str, review: &Value, mutating: bool) -> Result<Verdict, String> {
    let response = &review["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let (patch, kind) = (response["patch"].as_str().unwrap_or_default(), response["patchType"].as_str());
    if version == "v1" {
        let found = response["uid"].as_str().unwrap_or_default();
        if found != uid {
            return Err(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let (group, of) =
            (review["apiVersion"].as_str().unwrap_or_default(), review["kind"].as_str().unwrap_or_default());
        if (group, of) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}, Kind={of}"
            ));
        }
        match (mutating, patch.is_empty(), kind) {
            (true, false, None) => return Err("webhook returned response.patch but not response.patchType".to_owned()),
            (true, true, Some(_)) => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            (false, false, _) => return Err("validating webhook may not return response.patch".to_owned()),
            (false, _, Some(_)) => return Err("validating webhook may not return response.patchType".to_owned()),
            (true, false, Some(kind)) if kind != "JSONPatch" => return Err(format!("unsupported patch type {kind:?}")),
            _ => {}
        }
    }
    let patch = match patch {
        "" => None,
        text => {
            let bytes = STANDARD.decode(text).map_err(|error| format!("received undecodable patch: {error}"))?;
            let patch =
                serde_json::from_slice(&bytes).map_err(|error| format!("received undecodable patch: {error}"))?;
            Some(patch).filter(|_| mutating)
        }
    };
    let warnings = response["warnings"].as_array().into_iter().flatten();
    Ok(Verdict {
        allowed: response["allowed"].as_bool().unwrap_or(false),
        patch,
        warnings: warnings.filter_map(|text| text.as_str().map(str::to_owned)).collect(),
        status: response["status"].clone(),
    })
}

impl Verdict {
    /// The answer to the request if it is denied (`ToStatusErr`).
    pub fn refusal(&self, webhook: &str) -> Option<Status> {
        if self.allowed {
            return None;
        }
        let text = |field: &str| self.status[field].as_str().unwrap_or_default();
        let denied = format!("admission webhook {webhook:?} denied the request");
        let message = match (text("message"), text("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let code = self.status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
        let mut status = Status::new(code.unwrap_or(400), text("reason"), message);
        let details = serde_json::from_value::<Details>(self.status["details"].clone()).ok();
        status.details = details.map(Box::new);
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(response: Value) -> Value {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
    }

    #[test]
    fn answers_must_belong_to_their_question() {
        let judged = |response: Value, mutating| judge("v1", "u", &review(response), mutating).map(|_| ());
        assert_eq!(judged(json!({"uid": "u", "allowed": true}), false), Ok(()));
        assert_eq!(judged(json!({"uid": "v"}), false), Err("expected response.uid=\"u\", got \"v\"".to_owned()));
        let patch = STANDARD.encode("[]");
        let with_patch = json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch"});
        assert_eq!(judged(with_patch.clone(), true), Ok(()));
        assert!(judged(with_patch, false).is_err());
        assert!(judged(json!({"uid": "u", "patch": patch}), true).is_err());
        assert!(judge("v1", "u", &json!({}), true).is_err());
    }

    #[test]
    fn a_denial_is_an_error_whatever_it_says() {
        let refused = |status: Value| {
            let verdict = judge("v1", "u", &review(json!({"uid": "u", "allowed": false, "status": status})), false);
            let status = verdict.unwrap().refusal("w").unwrap();
            (status.code, status.message)
        };
        let denied = "admission webhook \"w\" denied the request";
        assert_eq!(refused(Value::Null), (400, format!("{denied} without explanation")));
        assert_eq!(refused(json!({"code": 200, "reason": "Why"})), (400, format!("{denied}: Why")));
        assert_eq!(refused(json!({"code": 403, "message": "no"})), (403, format!("{denied}: no")));
    }
}
