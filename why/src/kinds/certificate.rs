//! Why a CertificateSigningRequest has no certificate.

use serde_json::Value;

use crate::chain::Cause;
use crate::look::{Look, condition_is, text};

pub fn state(request: &Value) -> &'static str {
    if !text(&request["status"]["certificate"]).is_empty() {
        return "Issued";
    }
    let has = |kind: &str| condition_is(request, kind, "True").is_some();
    match () {
        () if has("Denied") => "Denied",
        () if has("Failed") => "Failed",
        () if has("Approved") => "Approved, without a certificate",
        () => "Pending",
    }
}

pub fn causes(_: &Look, request: &Value) -> Vec<Cause> {
    let name = api::meta::name(request);
    let signer = text(&request["spec"]["signerName"]);
    let who = text(&request["spec"]["username"]);
    let cause = |reason: &str, message: String| Cause::new(reason, message).about(request);
    let said =
        |kind: &str| condition_is(request, kind, "True").map(|c| text(&c["message"]).to_owned()).unwrap_or_default();
    match state(request) {
        "Issued" => Vec::new(),
        "Denied" => vec![cause("Denied", format!("it was denied: {}", said("Denied")))],
        "Failed" => vec![cause("SigningFailed", format!("{signer} cannot sign it: {}", said("Failed")))],
        "Pending" => {
            let what = match signer {
                "kubernetes.io/kubelet-serving" => {
                    "; a node's names and addresses must be its own to be approved by themselves"
                }
                _ => "",
            };
            let message = format!("nobody has approved what {who} asks of {signer}{what}");
            vec![
                cause("PendingApproval", message)
                    .fix("look first", format!("kubectl describe csr {name}"))
                    .fix("", format!("kubectl certificate approve {name}")),
            ]
        }
        _ => vec![cause("NobodySigns", format!("it is approved, and nobody signs for {signer}"))],
    }
}
