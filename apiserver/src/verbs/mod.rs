//! The verbs, each one function over any resource's row. [`serve`] finds the row and picks the verb; no kind's name
//! appears here.

pub mod binding;
mod change;
mod collection;
mod continuation;
mod create;
mod delete;
mod delete_options;
mod deletion;
pub mod eviction;
mod get;
mod list;
mod list_options;
mod patch;
mod scale;
mod target;
mod update;
mod watch;
mod write;
mod write_options;

use std::sync::Arc;

use http::Response;

use api::status::Status;

use crate::body::Body;
use crate::request::Call;
use crate::server::Server;

pub use change::{Change, Outcome};
pub use delete_options::{DeleteOptions, Propagation};
pub use deletion::delete_object;
pub use list_options::{ListOptions, Selection};
pub use target::Target;
pub use write::{Expected, decode_body, finish, timestamp};
pub use write_options::WriteOptions;

/// Answers a request on a stored resource, or on a subresource that is a view of the object itself.
pub async fn serve(server: Arc<Server>, call: Call, body: Body) -> Result<Response<Body>, Status> {
    let mut target = Target::new(server, call)?;
    let verb = target.call.info.verb.clone();
    if !target.allows(&verb) {
        return Err(Status::method_not_allowed());
    }
    let deprecation = target.resource.deprecation.clone();
    target.warnings.extend(Some(deprecation).filter(|d| !d.is_empty()));
    let answer = match verb.as_str() {
        "get" => get::get(&target).await,
        "list" => list::list(&target).await,
        "watch" => watch::watch(&target).await,
        "create" => create::create(&mut target, body).await,
        "update" => update::update(&mut target, body).await,
        "patch" => patch::patch(&mut target, body).await,
        "delete" => delete::delete(&mut target, body).await,
        "deletecollection" => collection::delete_collection(&mut target, body).await,
        _ => Err(Status::method_not_allowed()),
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(status) => crate::status::response(&status, &target.form),
    };
    crate::encode::add_warnings(&mut response, &target.warnings);
    Ok(response)
}
