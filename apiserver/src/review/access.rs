//! SubjectAccessReview, LocalSubjectAccessReview and SelfSubjectAccessReview: the authorizer asked on somebody's behalf.

use std::sync::Arc;

use serde_json::{Value, json};

use api::field;
use api::meta;
use api::status::Status;

use super::{AUTHORIZATION, Review, user_of};
use crate::authz::{Attributes, Decision};
use crate::body::Body;
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;
use crate::user::User;

pub fn subject(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let review = Review::read(&call, body, AUTHORIZATION, "SubjectAccessReview").await?;
        let mut errors = check(&review.object["spec"], true);
        errors.extend(empty_metadata(&review, false));
        refuse(&errors)?;
        let user = user_of(&review.object["spec"]);
        let status = decide(&server, &user, &review.object["spec"]);
        Ok(review.answer(status))
    })
}

pub fn local(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let review = Review::read(&call, body, AUTHORIZATION, "LocalSubjectAccessReview").await?;
        let stated = meta::namespace(&review.object);
        if !stated.is_empty() && stated != call.info.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let mut review = review;
        let namespace = call.info.namespace.clone();
        meta::metadata_mut(&mut review.object).insert("namespace".to_owned(), namespace.as_str().into());
        let spec = &review.object["spec"];
        let mut errors = check(spec, true);
        errors.extend(empty_metadata(&review, true));
        let asked = spec.pointer("/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default();
        if spec.get("resourceAttributes").is_some_and(|a| !a.is_null()) && asked != namespace {
            let path = "spec.resourceAttributes.namespace";
            errors.push(field::Error::invalid(path, asked, "must match metadata.namespace"));
        }
        if let Some(attributes) = spec.get("nonResourceAttributes").filter(|a| !a.is_null()) {
            let path = "spec.nonResourceAttributes";
            errors.push(field::Error::invalid(path, shown(attributes), "disallowed on this kind of request"));
        }
        refuse(&errors)?;
        let user = user_of(&review.object["spec"]);
        let status = decide(&server, &user, &review.object["spec"]);
        Ok(review.answer(status))
    })
}

pub fn own(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let review = Review::read(&call, body, AUTHORIZATION, "SelfSubjectAccessReview").await?;
        let mut errors = check(&review.object["spec"], false);
        errors.extend(empty_metadata(&review, false));
        refuse(&errors)?;
        let status = decide(&server, &call.user, &review.object["spec"]);
        Ok(review.answer(status))
    })
}

/// Upstream's `ValidateSubjectAccessReviewSpec`, and its like without a subject.
fn check(spec: &Value, with_subject: bool) -> Vec<field::Error> {
    let part = |name: &str| spec.get(name).filter(|part| !part.is_null());
    let mut errors = Vec::new();
    match (part("resourceAttributes"), part("nonResourceAttributes")) {
        (Some(_), Some(other)) => errors.push(field::Error::invalid(
            "spec.nonResourceAttributes",
            shown(other),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(field::Error::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let user = spec.get("user").and_then(Value::as_str).unwrap_or_default();
    let groups = spec.get("groups").and_then(Value::as_array).map_or(0, Vec::len);
    if with_subject && user.is_empty() && groups == 0 {
        errors.push(field::Error::invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    errors
}

fn empty_metadata(review: &Review, namespaced: bool) -> Option<field::Error> {
    let mut metadata = review.stated_metadata();
    if namespaced {
        metadata.remove("namespace");
    }
    (!metadata.is_empty()).then(|| field::Error::invalid("metadata", Value::Object(metadata), "must be empty"))
}

/// Upstream prints its internal struct, whose fields have no JSON names.
fn shown(attributes: &Value) -> Value {
    let text = |field: &str| attributes.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    json!({ "Path": text("path"), "Verb": text("verb") })
}

fn refuse(errors: &[field::Error]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(AUTHORIZATION, "", "", errors)) }
}

/// The status of a review.
fn decide(server: &Server, user: &User, spec: &Value) -> Value {
    let resource = spec.get("resourceAttributes").filter(|a| !a.is_null());
    let attributes = resource.or_else(|| spec.get("nonResourceAttributes")).unwrap_or(&Value::Null);
    let text = |field: &str| attributes.get(field).and_then(Value::as_str).unwrap_or_default();
    let selector = field_selector(attributes);
    let asked = Attributes {
        user,
        resource_request: resource.is_some(),
        verb: text("verb"),
        group: text("group"),
        version: text("version"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: text("path"),
        field_selector: &selector,
    };
    let (allowed, reason) = match server.authorizer.decide(server, &asked) {
        Decision::Allow(reason) => (true, reason),
        Decision::NoOpinion(reason) => (false, reason),
    };
    let mut status = json!({ "allowed": allowed });
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

/// The field selector of a review in the form requests have it; requirements other than equality say nothing about a
/// single value and are left out.
fn field_selector(attributes: &Value) -> String {
    let selector = &attributes["fieldSelector"];
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let terms = requirements.filter_map(|r| match (r["operator"].as_str()?, r["values"].as_array()?.as_slice()) {
        ("In", [value]) => Some(format!("{}={}", r["key"].as_str()?, value.as_str()?)),
        _ => None,
    });
    terms.collect::<Vec<_>>().join(",")
}
