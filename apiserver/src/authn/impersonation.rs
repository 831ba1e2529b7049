//! Impersonation: acting as somebody else, when authorized for each part of that identity. Constrained modes are tried
//! before the legacy one, as upstream's `WithConstrainedImpersonation` does: a mode allows certain requests only
//! (`impersonate-on:MODE:VERB`) as certain users (`impersonate:MODE`), legacy allows a user's every request.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;

use api::status::Status;

use crate::authz::{Attributes, Decision, message};
use crate::server::Server;
use crate::user::{self, ANONYMOUS, GROUP_AUTHENTICATED, GROUP_NODES, GROUP_UNAUTHENTICATED, User};

const HEADER_USER: &str = "impersonate-user";
const HEADER_UID: &str = "impersonate-uid";
const HEADER_GROUP: &str = "impersonate-group";
const HEADER_EXTRA_PREFIX: &str = "impersonate-extra-";
const GROUP: &str = "authentication.k8s.io";
/// Users whose last successful mode is remembered; beyond it all are forgotten.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// Which mode worked last for a user. It is tried first, so that the common case costs one pass; with several failing
/// modes it also decides whose refusal is reported, as upstream.
#[derive(Debug, Default)]
pub struct Modes(Mutex<HashMap<Box<str>, Mode>>);

impl Modes {
    fn last(&self, name: &str) -> Option<Mode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
    fn worked(&self, name: &str, mode: Mode) {
        let mut modes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if modes.len() >= REMEMBERED_MAX {
            modes.clear();
        }
        modes.insert(name.into(), mode);
    }
}

/// The identity asked for in the headers, as it stands there; `None` without one.
pub fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let texts = |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok().map(str::to_owned)).collect();
    let mut user =
        User { name: text(HEADER_USER), uid: text(HEADER_UID), groups: texts(HEADER_GROUP), extra: BTreeMap::new() };
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(HEADER_EXTRA_PREFIX) else { continue };
        let value = value.to_str().unwrap_or_default().to_owned();
        user.extra.entry(crate::request::percent_decode(key, false)).or_default().push(value);
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if !user.uid.is_empty() || !user.groups.is_empty() || !user.extra.is_empty() {
        return Err(Status::bad_request(format!("requested {user:?} without impersonating a user name")));
    }
    Ok(None)
}

/// Takes the headers away, so that nothing behind can behave differently for an impersonated user.
pub fn strip(headers: &mut HeaderMap) {
    let ours: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
}

/// The user the request acts as, if its own user (`asked.user`) may act so.
pub fn act_as(server: &Server, modes: &Modes, wanted: &User, asked: &Attributes<'_>) -> Result<User, Status> {
    let name = &asked.user.name;
    let last = modes.last(name);
    let mut first_refusal = None;
    let order = last.into_iter().chain(MODES.into_iter().filter(|mode| Some(*mode) != last));
    for mode in order {
        match check(server, mode, wanted, asked) {
            Ok(None) => {}
            Ok(Some(user)) => {
                if last != Some(mode) {
                    modes.worked(name, mode);
                }
                return Ok(user);
            }
            Err(refusal) => drop(first_refusal.get_or_insert(refusal)),
        }
    }
    Err(first_refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// `None` when the mode is not made for such a user.
fn check(server: &Server, mode: Mode, wanted: &User, asked: &Attributes<'_>) -> Result<Option<User>, Status> {
    let Some(name) = applies(mode, wanted, asked.user) else { return Ok(None) };
    let Some(name) = name else { return identity(server, "impersonate", "", wanted, asked.user, mode).map(Some) };
    let on = format!("impersonate-on:{name}:{}", asked.verb);
    let requestor = requestor(mode, asked.user);
    allowed(server, &Attributes { verb: &on, user: &requestor, ..*asked })?;
    identity(server, &format!("impersonate:{name}"), GROUP, wanted, &requestor, mode).map(Some)
}

/// The name of a constrained mode that is made for such a user; the legacy mode has none.
fn applies(mode: Mode, wanted: &User, requestor: &User) -> Option<Option<&'static str>> {
    let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
    let node = user::node_name(&wanted.name);
    let account = user::split_service_account(&wanted.name).is_some();
    match mode {
        Mode::AssociatedNode => {
            let own = match requestor.extra.get("authentication.kubernetes.io/node-name").map(Vec::as_slice) {
                Some([own]) => Some(own.as_str()),
                _ => None,
            };
            let is_account = user::split_service_account(&requestor.name).is_some();
            (only_name && node.is_some() && is_account && own == node).then_some(Some("associated-node"))
        }
        Mode::ArbitraryNode => (only_name && node.is_some()).then_some(Some("arbitrary-node")),
        Mode::ServiceAccount => (only_name && account).then_some(Some("serviceaccount")),
        Mode::UserInfo => (node.is_none() && !account).then_some(Some("user-info")),
        Mode::Legacy => Some(None),
    }
}

/// In the associated-node mode a service account is judged without what differs between its pods.
fn requestor(mode: Mode, user: &User) -> User {
    let mut user = user.clone();
    if mode == Mode::AssociatedNode {
        let keys = user.extra.keys().cloned().collect();
        user.extra = BTreeMap::from([("authentication.kubernetes.io/associated-node-keys".to_owned(), keys)]);
    }
    user
}

/// Checks every part of the identity and completes it with the groups that follow from it.
fn identity(
    server: &Server,
    verb: &str,
    group: &str,
    wanted: &User,
    requestor: &User,
    mode: Mode,
) -> Result<User, Status> {
    let ask = |group, resource, name| Attributes { name, ..Attributes::resource(requestor, verb, group, resource) };
    let mut actual = wanted.clone();
    let mut who = ask(group, "users", wanted.name.as_str());
    if mode != Mode::Legacy
        && let Some(node) = user::node_name(&wanted.name)
    {
        who = ask(group, "nodes", if mode == Mode::AssociatedNode { "*" } else { node });
        actual.groups = vec![GROUP_NODES.to_owned()];
    }
    if let Some((namespace, name)) = user::split_service_account(&wanted.name) {
        who = Attributes { namespace, ..ask(group, "serviceaccounts", name) };
        if wanted.groups.is_empty() {
            actual.groups = user::service_account(namespace, name).groups;
            actual.groups.retain(|g| g != GROUP_AUTHENTICATED);
        }
    }
    allowed(server, &who)?;
    if !wanted.uid.is_empty() {
        allowed(server, &ask(GROUP, "uids", &wanted.uid))?;
    }
    for name in &wanted.groups {
        allowed(server, &ask(group, "groups", name))?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            allowed(server, &Attributes { subresource: key, ..ask(GROUP, "userextras", value) })?;
        }
    }
    let implied = if actual.name == ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
    if !actual.in_group(implied) && !actual.in_group(GROUP_UNAUTHENTICATED) {
        actual.groups.push(implied.to_owned());
    }
    Ok(actual)
}

fn allowed(server: &Server, asked: &Attributes<'_>) -> Result<(), Status> {
    match server.authorizer.decide(server, asked) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) => Err(message::forbidden(asked, &reason)),
    }
}
