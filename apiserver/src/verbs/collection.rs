//! `deletecollection`: everything a list request selects, a few at a time.

use std::sync::Arc;

use http::Response;

use api::status::Status;

use super::deletion::delete_object;
use super::list::{self, Failure};
use super::list_options::ListOptions;
use super::{DeleteOptions, Target};
use crate::body::{self, Body};

pub async fn delete_collection(target: &mut Target, body: Body) -> Result<Response<Body>, Status> {
    let bytes = body::read(body).await?;
    let options = DeleteOptions::parse(&target.call, &bytes)?;
    let admission_options = options.to_value();
    let list_options = ListOptions::parse(&target.call.query, &target.resource, false)?;
    let page = list::page(target, &list_options).await.map_err(|failure| match failure {
        Failure::Status(status) | Failure::Expired(status, _) => status,
    })?;
    let keys: Vec<Arc<str>> = page.items.iter().map(|(key, _)| Arc::clone(key)).collect();
    for key in keys {
        let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
        match delete_object(target, namespace, name, &options, &admission_options).await {
            Err(status) if status.code != 404 => return Err(status),
            // Somebody else was faster.
            Ok(_) | Err(_) => {}
        }
    }
    list::respond(target, page)
}
