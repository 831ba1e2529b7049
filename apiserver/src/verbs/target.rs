//! What a request on a resource is about: its row, its cache, its form, and where its object lies.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use api::catalogue::{Catalogue, Resource, Subresource};
use api::status::Status;
use api::strategy::{self, Context, Strategy, Verb};

use super::scale;
use super::write::Expected;
use crate::cache::ResourceCache;
use crate::convert;
use crate::definitions::Facts;
use crate::encode::Form;
use crate::expressions;
use crate::request::{Call, cut};
use crate::server::Server;

pub struct Target {
    pub server: Arc<Server>,
    pub call: Call,
    /// The row in the version asked for.
    pub resource: Arc<Resource>,
    /// The row in the version objects are stored in.
    pub storage: Arc<Resource>,
    pub strategy: &'static dyn Strategy,
    pub cache: Arc<ResourceCache>,
    /// Where the replica count lies, when the request is for a Scale of the object.
    pub scale: Option<scale::Paths>,
    /// Of a custom resource: what its definition says beside the row.
    pub facts: Option<Arc<Facts>>,
    pub form: Form,
    /// Texts for `Warning` headers, in order.
    pub warnings: Vec<String>,
    /// The user as an `authentication.k8s.io/v1` UserInfo.
    pub requester: Value,
    pub now: Timestamp,
}

impl Target {
    /// Finds the row of the resource asked for: 404 for unknown ones and for a scope that does not fit.
    pub fn new(server: Arc<Server>, call: Call) -> Result<Self, Status> {
        let info = &call.info;
        let catalogue = server.catalogue.load_full();
        let row = catalogue.find(&info.group, &info.version, &info.resource).ok_or_else(Status::no_such_path)?;
        let resource = Arc::clone(row);
        if !resource.stored || info.segments.len() > 3 {
            return Err(Status::no_such_path());
        }
        // The namespace of a request for namespaces is the object's own name.
        let own = resource.group.is_empty() && resource.plural == "namespaces";
        if !resource.namespaced() && !info.namespace.is_empty() && !own {
            return Err(Status::no_such_path());
        }
        if resource.namespaced() && info.namespace.is_empty() && !info.name.is_empty() {
            return Err(Status::no_such_path());
        }
        if !info.subresource.is_empty() && resource.subresource(&info.subresource).is_none() {
            return Err(Status::no_such_path());
        }
        Self::with(server, call, &catalogue, resource)
    }

    /// The target of a request that concerns an object of another resource than its path names: a pod's binding.
    pub fn of(server: Arc<Server>, call: Call, group: &str, version: &str, plural: &str) -> Result<Self, Status> {
        let catalogue = server.catalogue.load_full();
        let row = catalogue.find(group, version, plural).ok_or_else(Status::no_such_path)?;
        let resource = Arc::clone(row);
        Self::with(server, call, &catalogue, resource)
    }

    fn with(server: Arc<Server>, call: Call, catalogue: &Catalogue, resource: Arc<Resource>) -> Result<Self, Status> {
        let form = Form::negotiate(&call)?;
        let storage = convert::storage_row(catalogue, &resource);
        // By the group asked for: `events.k8s.io` is stricter than the core group it's stored as.
        let strategy = strategy::of(&resource.group, &resource.plural);
        let cache = server.cache_of(&resource);
        let requester = call.user.to_value();
        let scales = resource.subresource(&call.info.subresource).is_some_and(|s| s.kind == scale::KIND);
        let facts = server.definitions.load().get(&resource.group, &resource.plural).filter(|_| resource.custom);
        let stated = facts.as_ref().and_then(|facts| facts.scale(&resource.version));
        let scale = scales.then(|| stated.map_or_else(scale::Paths::builtin, scale::Paths::stated));
        Ok(Self {
            server,
            call,
            resource,
            storage,
            strategy,
            cache,
            scale,
            facts,
            form,
            warnings: Vec::new(),
            requester,
            now: Timestamp::now(),
        })
    }

    /// What the body of a write must be.
    pub fn expected(&self) -> Expected<'_> {
        let resource = &self.resource;
        match &self.scale {
            Some(_) => Expected {
                schema: scale::schema(),
                group: scale::GROUP,
                version: scale::VERSION,
                kind: scale::KIND,
                also_accepted: &[],
            },
            None => Expected {
                schema: resource.schema(),
                group: &resource.group,
                version: &resource.version,
                kind: &resource.kind,
                also_accepted: &[],
            },
        }
    }

    /// Fills in defaults of an object in the version asked for.
    pub fn default(&self, object: &mut Value) {
        if self.scale.is_some() {
            return;
        }
        if self.resource.custom {
            api::decode::apply_defaults(self.resource.schema(), object);
        } else {
            self.strategy.default(object);
        }
    }

    /// What a custom resource's schema refuses in an object about to be stored.
    pub fn schema_errors(&self, object: &Value) -> Vec<api::field::Error> {
        match self.storage.custom {
            true => api::schema::validate(self.storage.schema(), object),
            false => Vec::new(),
        }
    }

    /// What is wrong with the expressions an object about to be stored holds, or by the rules of its definition.
    pub fn expression_errors(&self, object: &Value, old: Option<&Value>) -> Vec<api::field::Error> {
        expressions::errors(self, object, old)
    }

    /// Dotted paths that this endpoint's writers never own.
    pub fn reset_fields(&self) -> &'static [&'static str] {
        match self.scale {
            Some(_) => &["status"],
            None => self.strategy.reset_fields(&self.call.info.subresource),
        }
    }

    /// What strategies are told of the subresource: a Scale is a write of the object itself.
    fn strategy_subresource(&self) -> &str {
        if self.scale.is_some() { "" } else { &self.call.info.subresource }
    }

    /// Whether the row serves the verb on this path; a create names no object, an update does.
    pub fn allows(&self, verb: &str) -> bool {
        let info = &self.call.info;
        let named = !info.name.is_empty();
        match self.subresource() {
            Some(subresource) => subresource.has_verb(verb),
            None => {
                let fits = match verb {
                    "create" => !named && (!self.resource.namespaced() || !info.namespace.is_empty()),
                    "list" | "watch" => true,
                    "deletecollection" => !named && (!self.resource.namespaced() || !info.namespace.is_empty()),
                    _ => named,
                };
                fits && self.resource.has_verb(verb)
            }
        }
    }

    pub fn subresource(&self) -> Option<&Subresource> {
        self.resource.subresource(&self.call.info.subresource)
    }

    pub fn name(&self) -> &str {
        &self.call.info.name
    }

    /// Empty for cluster-scoped resources.
    pub fn namespace(&self) -> &str {
        if self.resource.namespaced() { &self.call.info.namespace } else { "" }
    }

    /// The cache key of an object of this resource.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.resource.namespaced() { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// The store key of a cache key.
    pub fn store_key(&self, key: &str) -> Bytes {
        format!("{}/{key}", self.resource.storage_prefix()).into()
    }

    /// What a strategy may know.
    pub fn context(&self, verb: Verb) -> Context<'_> {
        Context {
            verb,
            subresource: self.strategy_subresource(),
            now: self.now,
            namespaced: self.resource.namespaced(),
            has_status: self.resource.subresource("status").is_some(),
            requester: &self.requester,
        }
    }

    /// The manager recorded for this write: as given, else what precedes the `/` of the user agent.
    pub fn manager(&self, given: &str) -> String {
        const MANAGER_BYTES_MAX: usize = 128;
        if !given.is_empty() {
            return given.to_owned();
        }
        let agent = self.call.parts.headers.get(http::header::USER_AGENT);
        let agent = agent.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default();
        let prefix: String = agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        cut(&prefix, MANAGER_BYTES_MAX).to_owned()
    }

    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, name)
    }

    pub fn conflict(&self, name: &str, why: impl std::fmt::Display) -> Status {
        Status::conflict(&self.resource.group, &self.resource.plural, name, why)
    }

    /// The stored object in the version asked for.
    pub fn requested(&self, stored: Value) -> Value {
        let rewrites = self.facts.as_ref().is_some_and(|facts| facts.rewrites);
        convert::read(&self.resource, &self.storage, rewrites, stored)
    }

    /// The stored object as it would be stored today.
    pub fn current(&self, stored: Value) -> Value {
        let rewrites = self.facts.as_ref().is_some_and(|facts| facts.rewrites);
        convert::read(&self.storage, &self.storage, rewrites, stored)
    }

    /// Whether stored objects are answers as they are.
    pub fn is_plain(&self) -> bool {
        convert::same(&self.resource, &self.storage) && !self.facts.as_ref().is_some_and(|facts| facts.rewrites)
    }

    /// Waits until reads see every write answered before this request.
    pub async fn fresh(&self) -> Result<u64, Status> {
        self.server.cache.fresh().await
    }
}
