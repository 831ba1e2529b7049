//! NamespaceLifecycle: no writes into namespaces that are not there, no new objects in those on their way out, and the
//! three namespaces the cluster needs stay.

use api::meta;
use api::status::{Cause, Status};

use super::{AdmissionRequest, Operation, find};
use crate::server::Server;

const IMMORTAL: [&str; 3] = ["default", "kube-public", "kube-system"];

pub async fn admit(server: &Server, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let about_namespaces = request.info.group.is_empty() && request.info.resource == "namespaces";
    if about_namespaces {
        let deletes = request.operation == Operation::Delete && request.info.subresource.is_empty();
        if deletes && IMMORTAL.contains(&request.name) {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        return Ok(());
    }
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if request.namespace.is_empty() || !writes {
        return Ok(());
    }
    let mut namespace = find(server, "", "namespaces", "", request.namespace);
    if namespace.is_none() {
        // It may have been made this very moment.
        server.cache.fresh().await?;
        namespace = find(server, "", "namespaces", "", request.namespace);
    }
    let Some(namespace) = namespace else { return Err(Status::not_found("", "namespaces", request.namespace)) };
    let terminating = namespace["status"]["phase"] == "Terminating" || meta::deletion_timestamp(&namespace).is_some();
    if request.operation == Operation::Create && terminating {
        let name = request.namespace;
        let mut status = request
            .forbidden(format!("unable to create new content in namespace {name} because it is being terminated"));
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        return Err(status);
    }
    Ok(())
}
