//! The 403 an authorizer's refusal becomes, in upstream's words (`responsewriters.ForbiddenStatusError`).

use api::status::{Details, Status};

use super::Attributes;

/// `User "x" cannot list resource "pods" in API group "" in the namespace "y"`, with what upstream escapes escaped so
/// that a browser never sees markup in it.
pub fn cannot(asked: &Attributes<'_>) -> String {
    let Attributes { verb, group, namespace, path, .. } = asked;
    let user = &asked.user.name;
    let text = if !asked.resource_request {
        format!("User {user:?} cannot {verb} path {path:?}")
    } else {
        let mut resource = asked.resource.to_owned();
        if !asked.subresource.is_empty() {
            resource = format!("{resource}/{}", asked.subresource);
        }
        let scope = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
    };
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub fn forbidden(asked: &Attributes<'_>, reason: &str) -> Status {
    let mut why = cannot(asked);
    if !reason.is_empty() {
        why = format!("{why}: {reason}");
    }
    if asked.resource_request && !asked.resource.is_empty() {
        return Status::forbidden(asked.group, asked.resource, asked.name, why);
    }
    let mut status = Status::new(403, "Forbidden", format!("forbidden: {why}"));
    status.details = Some(Box::new(Details::default()));
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::User;

    #[test]
    fn messages_are_upstreams() {
        let user = User::new("jane", &[]);
        let mut asked = Attributes::resource(&user, "list", "apps", "deployments");
        assert_eq!(
            forbidden(&asked, "").message,
            r#"deployments.apps is forbidden: User "jane" cannot list resource "deployments" in API group "apps" at the cluster scope"#
        );
        (asked.namespace, asked.name, asked.subresource, asked.verb) = ("ns", "a", "status", "get");
        assert_eq!(
            forbidden(&asked, "RBAC: x").message,
            r#"deployments.apps "a" is forbidden: User "jane" cannot get resource "deployments/status" in API group "apps" in the namespace "ns": RBAC: x"#
        );
        let path = Attributes { resource_request: false, path: "/<b>", verb: "get", ..asked };
        let status = forbidden(&path, "");
        assert_eq!(status.message, r#"forbidden: User "jane" cannot get path "/&lt;b&gt;""#);
        assert_eq!(status.details, Some(Box::default()));
    }
}
