//! `serviceaccounts/NAME/token`: issues a token bound to the account and, if asked, to a Pod, Secret or Node.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use api::field;
use api::meta;
use api::status::Status;

use crate::authn::token::{Binding, Claims, Reference};
use crate::authz::node;
use crate::body::Body;
use crate::endpoint::Answer;
use crate::request::Call;
use crate::review::{AUTHENTICATION, Review};
use crate::server::Server;
use crate::special::Special;
use crate::user::SERVICE_ACCOUNT_PREFIX;

const KIND: &str = "TokenRequest";
const SECONDS_DEFAULT: i64 = 60 * 60;
const SECONDS_MIN: i64 = 10 * 60;
const SECONDS_MAX: i64 = 1 << 32;
/// What admission asks for in pods (`WarnOnlyBoundTokenExpirationSeconds`): such tokens live a year, so that clients
/// that never read the file again go on working, and are only counted as stale after the hour.
const SECONDS_OF_PODS: i64 = 60 * 60 + 7;
const SECONDS_EXTENDED: i64 = 365 * 24 * 60 * 60;

pub static SPECIAL: &[Special] = &[Special {
    group: "",
    resource: "serviceaccounts",
    subresource: "token",
    handler: |server, call, body| create(server, call, body),
}];

fn create(server: Arc<Server>, call: Call, body: Body) -> Answer {
    Box::pin(async move {
        let mut review = Review::read(&call, body, AUTHENTICATION, KIND).await?;
        let (name, namespace) = (call.info.name.as_str(), call.info.namespace.as_str());
        check_metadata(&review.object, name, namespace)?;
        server.cache.fresh().await?;
        let account = find(&server, "serviceaccounts", namespace, name)?;
        let stated_uid = meta::uid(&review.object);
        if !stated_uid.is_empty() && stated_uid != meta::uid(&account) {
            let why = format!(
                "the UID in the token request ({stated_uid}) does not match the UID of the service account ({})",
                meta::uid(&account)
            );
            return Err(Status::conflict(AUTHENTICATION, KIND, name, why));
        }
        let now = Timestamp::now();
        complete(&server, &mut review.object, &account, now);
        let seconds = expiration(&review.object["spec"])?;
        restrict_nodes(&server, &call, &review.object["spec"]["boundObjectRef"])?;
        let mut claims = claims(&server, &review.object["spec"], &account, seconds, now);
        bind(&server, &review.object["spec"]["boundObjectRef"], &mut claims)?;
        extend(&server, &mut claims, seconds, now);
        let token = server.authenticator.issuer().sign(&claims).map_err(Status::internal)?;
        let expires = now.saturating_add(SignedDuration::from_secs(seconds)).map_err(Status::internal)?;
        Ok(review.answer(json!({ "token": token, "expirationTimestamp": time(expires) })))
    })
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn check_metadata(request: &Value, name: &str, namespace: &str) -> Result<(), Status> {
    let stated = meta::namespace(request);
    if !stated.is_empty() && stated != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let stated = meta::name(request);
    if !stated.is_empty() && stated != name {
        let why = "must match the service account name if specified";
        return Err(Status::invalid(
            AUTHENTICATION,
            KIND,
            name,
            &[field::Error::invalid("metadata.name", stated, why)],
        ));
    }
    Ok(())
}

/// Fills in what the caller left out.
fn complete(server: &Server, request: &mut Value, account: &Value, now: Timestamp) {
    let metadata = meta::metadata_mut(request);
    for (field, value) in
        [("name", meta::name(account)), ("namespace", meta::namespace(account)), ("uid", meta::uid(account))]
    {
        metadata.insert(field.to_owned(), value.into());
    }
    metadata.insert("creationTimestamp".to_owned(), time(now).into());
    let spec = meta::object_mut(meta::child_mut(request, "spec"));
    if spec.get("audiences").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("audiences".to_owned(), json!(server.authenticator.audiences()));
    }
    if spec.get("expirationSeconds").is_none_or(Value::is_null) {
        spec.insert("expirationSeconds".to_owned(), SECONDS_DEFAULT.into());
    }
    spec.entry("boundObjectRef").or_insert(Value::Null);
}

fn expiration(spec: &Value) -> Result<i64, Status> {
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
    let why = if seconds < SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else if seconds > SECONDS_MAX {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(seconds);
    };
    let error = field::Error::invalid("spec.expirationSeconds", seconds, why);
    Err(Status::invalid(AUTHENTICATION, KIND, "", &[error]))
}

fn claims(server: &Server, spec: &Value, account: &Value, seconds: i64, now: Timestamp) -> Claims {
    let (namespace, name) = (meta::namespace(account), meta::name(account));
    let audiences = spec["audiences"].as_array().into_iter().flatten();
    let now = now.as_second();
    Claims {
        aud: audiences.filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        exp: now + seconds,
        iat: now,
        iss: server.authenticator.issuer().issuer().to_owned(),
        jti: Uuid::new_v4().to_string(),
        binding: Binding { namespace: namespace.to_owned(), serviceaccount: reference(account), ..Binding::default() },
        nbf: now,
        sub: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
    }
}

fn reference(object: &Value) -> Reference {
    Reference { name: meta::name(object).to_owned(), uid: meta::uid(object).to_owned() }
}

/// NodeRestriction for tokens: a node gets them only for a pod that runs on it, named with its UID.
fn restrict_nodes(server: &Server, call: &Call, bound: &Value) -> Result<(), Status> {
    let Some(node) = node::identity(&call.user) else { return Ok(()) };
    let refuse = |why: &str| Err(Status::forbidden("", "serviceaccounts", &call.info.name, why));
    let text = |field: &str| bound.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if text("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    let pod = find(server, "pods", &call.info.namespace, text("name"))?;
    if text("uid") != meta::uid(&pod) {
        let uid = text("uid");
        return refuse(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
}

/// Binds the token to the object the request names; a pod's node goes along.
fn bind(server: &Server, bound: &Value, claims: &mut Claims) -> Result<(), Status> {
    if bound.is_null() {
        return Ok(());
    }
    let text = |field: &str| bound.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = meta::split_api_version(text("apiVersion"));
    let (kind, name) = (text("kind"), text("name"));
    let namespace = claims.binding.namespace.clone();
    let object = match (group, kind) {
        ("", "Pod") => {
            let pod = find(server, "pods", &namespace, name)?;
            let account = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
            if account != claims.binding.serviceaccount.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    claims.binding.serviceaccount.name
                )));
            }
            if let Some(node) = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty()) {
                let known = find(server, "nodes", "", node).map(|node| reference(&node));
                claims.binding.node =
                    Some(known.unwrap_or_else(|_| Reference { name: node.to_owned(), uid: String::new() }));
            }
            claims.binding.pod = Some(reference(&pod));
            pod
        }
        ("", "Secret") => {
            let secret = find(server, "secrets", &namespace, name)?;
            claims.binding.secret = Some(reference(&secret));
            secret
        }
        ("", "Node") => {
            let node = find(server, "nodes", "", name)?;
            claims.binding.node = Some(reference(&node));
            node
        }
        _ => {
            let full = format!("{group}/{version}, Kind={kind}");
            return Err(Status::bad_request(format!("cannot bind token to object of type {full}")));
        }
    };
    let (stated, uid) = (text("uid"), meta::uid(&object));
    if !stated.is_empty() && stated != uid {
        let why = format!(
            "the UID in the bound object reference ({stated}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(group, kind, name, why));
    }
    Ok(())
}

/// See [`SECONDS_OF_PODS`].
fn extend(server: &Server, claims: &mut Claims, seconds: i64, now: Timestamp) {
    let ours = claims.aud.iter().all(|a| server.authenticator.audiences().contains(a));
    if claims.binding.pod.is_some() && seconds == SECONDS_OF_PODS && ours {
        claims.binding.warnafter = Some(now.as_second() + seconds);
        claims.exp = now.as_second() + SECONDS_EXTENDED;
    }
}

fn find(server: &Server, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let key = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let found = server.resource("", resource).and_then(|(_, cache)| cache.snapshot().get(&key).map(|i| i.value()));
    found.ok_or_else(|| Status::not_found("", resource, name))
}
