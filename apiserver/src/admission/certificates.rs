//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve and sign for a signer, and
//! no certificate for `system:masters` from the API server's own client signer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use api::status::Status;

use super::{AdmissionRequest, Operation};
use crate::authz::{Attributes, Decision};
use crate::server::Server;
use crate::user::GROUP_MASTERS;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if request.info.group != GROUP || request.info.resource != RESOURCE {
        return Ok(());
    }
    match (request.info.subresource.as_str(), request.operation) {
        ("", Operation::Create) => subject(request),
        ("approval", Operation::Update) => signer(server, request, "approve", "approve"),
        ("status", Operation::Update) => {
            let field = |object: &Value| object["status"]["certificate"].clone();
            let conditions = |object: &Value| object["status"]["conditions"].clone();
            if field(&request.object) == field(request.old_object)
                && conditions(&request.object) == conditions(request.old_object)
            {
                return Ok(());
            }
            signer(server, request, "sign", "sign")
        }
        _ => Ok(()),
    }
}

fn subject(request: &AdmissionRequest<'_>) -> Result<(), Status> {
    if request.object["spec"]["signerName"] != CLIENT_SIGNER {
        return Ok(());
    }
    let unreadable = |why: String| request.forbidden(format!("failed to parse CSR: {why}"));
    let text = request.object["spec"]["request"].as_str().unwrap_or_default();
    let pem = STANDARD.decode(text).map_err(|e| unreadable(e.to_string()))?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).map_err(|e| unreadable(e.to_string()))?;
    let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| unreadable(e.to_string()))?;
    let subject = &parsed.certification_request_info.subject;
    if subject.iter_organization().filter_map(|o| o.as_str().ok()).any(|o| o == GROUP_MASTERS) {
        return Err(
            request.forbidden(format!("use of {CLIENT_SIGNER} signer with {GROUP_MASTERS} group is not allowed"))
        );
    }
    Ok(())
}

/// The right on the signer itself, or on all signers of its domain.
fn signer(server: &Server, request: &AdmissionRequest<'_>, verb: &str, what: &str) -> Result<(), Status> {
    let name = request.old_object["spec"]["signerName"].as_str().unwrap_or_default();
    let wildcard = format!("{}/*", name.split('/').next().unwrap_or_default());
    for name in [name, &wildcard] {
        let asked = Attributes { name, ..Attributes::resource(request.user, verb, GROUP, "signers") };
        if matches!(server.authorizer.decide(server, &asked), Decision::Allow(_)) {
            return Ok(());
        }
    }
    Err(request.forbidden(format!("user not permitted to {what} requests with signerName {name:?}")))
}
