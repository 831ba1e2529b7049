//! `componentstatuses`, deprecated: what this server knows of the health of its parts, which is its store's.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use api::status::Status;

use crate::body::Body;
use crate::encode::{self, Form};
use crate::endpoint::Answer;
use crate::request::Call;
use crate::server::Server;
use crate::special::Special;

pub static SPECIAL: &[Special] =
    &[Special { group: "", resource: "componentstatuses", subresource: "", handler: answer }];

/// The store's name under which clients look for it.
const STORE: &str = "etcd-0";

fn answer(server: Arc<Server>, call: Call, _: Body) -> Answer {
    Box::pin(async move { read(&server, &call).await })
}

async fn read(server: &Server, call: &Call) -> Result<Response<Body>, Status> {
    let form = Form::negotiate(call)?;
    let catalogue = server.catalogue.load_full();
    let row = catalogue.find("", "v1", "componentstatuses").ok_or_else(Status::no_such_path)?;
    let mut response = match call.info.verb.as_str() {
        "get" if call.info.name == STORE => encode::object(StatusCode::OK, &store(server).await, row, &form)?,
        "get" => return Err(Status::not_found("", "componentstatus", &call.info.name)),
        "list" => encode::object_list(vec![store(server).await], row, &form)?,
        _ => return Err(Status::method_not_allowed()),
    };
    encode::add_warnings(&mut response, &["v1 ComponentStatus is deprecated in v1.19+".to_owned()]);
    Ok(response)
}

async fn store(server: &Server) -> Value {
    let (status, message) = match server.store.status().await {
        Ok(_) => ("True", "ok".to_owned()),
        Err(error) => ("False", error.to_string()),
    };
    let condition = json!({"type": "Healthy", "status": status, "message": message});
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": {"name": STORE, "creationTimestamp": null}, "conditions": [condition],
    })
}
