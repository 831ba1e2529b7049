//! Questions to the server that are asked by creating an object and answered in its status: who am I, whose token is
//! this, may they do that. Nothing is stored.

mod access;
mod rules;
mod token;

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use api::decode::FieldValidation;
use api::meta;
use api::schema::Schemas;
use api::status::Status;

use crate::body::{self, Body};
use crate::encode::takes_object;
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;
use crate::special::Special;
use crate::user::User;
use crate::verbs::{self, Expected};

pub const AUTHORIZATION: &str = "authorization.k8s.io";
pub const AUTHENTICATION: &str = "authentication.k8s.io";

pub static SPECIAL: &[Special] = &[
    row(AUTHORIZATION, "subjectaccessreviews", |server, call, body| access::subject(server, call, body)),
    row(AUTHORIZATION, "localsubjectaccessreviews", |server, call, body| access::local(server, call, body)),
    row(AUTHORIZATION, "selfsubjectaccessreviews", |server, call, body| access::own(server, call, body)),
    row(AUTHORIZATION, "selfsubjectrulesreviews", |server, call, body| rules::review(server, call, body)),
    row(AUTHENTICATION, "tokenreviews", |server, call, body| token::review(server, call, body)),
    row(AUTHENTICATION, "selfsubjectreviews", self_subject),
];

const fn row(group: &'static str, resource: &'static str, handler: crate::endpoint::Handler) -> Special {
    Special { group, resource, subresource: "", handler }
}

/// Who the caller is.
fn self_subject(_: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let mut review = Review::read(&call, body, AUTHENTICATION, "SelfSubjectReview").await?;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        meta::metadata_mut(&mut review.object).insert("creationTimestamp".to_owned(), now.into());
        Ok(review.answer(json!({ "userInfo": call.user.to_value() })))
    })
}

/// The body of such a request, decoded, and what to warn of.
pub(crate) struct Review {
    pub object: Value,
    warnings: Vec<String>,
}

impl Review {
    /// Reads a `kind` of `group/v1`. Only POST asks, and only without a name.
    pub async fn read(call: &Call, body: Body, group: &str, kind: &str) -> Result<Self, Status> {
        if call.info.verb != "create" || (call.info.subresource.is_empty() && !call.info.name.is_empty()) {
            return Err(Status::method_not_allowed());
        }
        if call.info.version != "v1" {
            return Err(Status::no_such_path());
        }
        takes_object(&call.parts.headers)?;
        let type_name = format!("io.k8s.api.{}.v1.{kind}", group.split('.').next().unwrap_or_default());
        let schema = Schemas::builtin().type_named(&type_name).ok_or_else(Status::no_such_path)?;
        let mode = FieldValidation::parse(call.query.get("fieldValidation").unwrap_or_default());
        let mode = mode.ok_or_else(|| Status::bad_request("fieldValidation: Ignore, Warn or Strict"))?;
        let expected = Expected { schema, group, version: "v1", kind, also_accepted: &[] };
        let decoded = verbs::decode_body(&call.parts.headers, body, &expected, mode).await?;
        let mut object = decoded.object;
        meta::metadata_mut(&mut object);
        Ok(Self { object, warnings: decoded.warnings })
    }

    /// 201 with the object and its status.
    pub fn answer(mut self, status: Value) -> Response<Body> {
        self.object["status"] = status;
        let bytes = format!("{}\n", self.object);
        let mut response = Response::new(body::full(bytes));
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        for warning in &self.warnings {
            if let Ok(value) = HeaderValue::from_str(&format!("299 - {warning:?}")) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }

    /// The `metadata` a caller may not fill in, with what the server itself maintains left out.
    pub fn stated_metadata(&self) -> Map<String, Value> {
        let mut metadata = self.object["metadata"].as_object().cloned().unwrap_or_default();
        metadata.remove("managedFields");
        metadata.retain(|_, value| !value.is_null());
        metadata
    }
}

/// A user from the fields of a review's spec (`user`, `uid`, `groups`, `extra`).
fn user_of(spec: &Value) -> User {
    let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    User {
        name: text("user"),
        uid: text("uid"),
        groups: spec.get("groups").map(strings).unwrap_or_default(),
        extra: extra.map(|(key, values)| (key.to_lowercase(), strings(values))).collect(),
    }
}
