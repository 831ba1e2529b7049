//! Admission policies: expressions that refuse (ValidatingAdmissionPolicy) or change (MutatingAdmissionPolicy) writes.
//!
//! Policies and bindings are read from the watch cache at each request, so a change counts from the next request on;
//! what is compiled of a policy is kept as long as the policy is unchanged.

mod authorizer;
pub mod check;
mod compiled;
mod environment;
mod input;
mod mutating;
mod params;
mod validating;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::status::Status;
use serde_json::Value;

use super::{AdmissionRequest, matching};
use crate::cache::ResourceCache;
use crate::server::Server;
use compiled::Policy;

const GROUP: &str = "admissionregistration.k8s.io";

/// Compiled policies by resource and name, each with the revision it was compiled at.
#[derive(Debug, Default)]
pub struct Policies {
    compiled: Mutex<HashMap<(bool, String), (u64, Arc<Policy>)>>,
}

/// A policy that concerns a request, with what binds it.
struct Hook {
    policy: Arc<Policy>,
    bindings: Vec<Value>,
}

impl Policies {
    pub fn mutate(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        match self.hooks(server, request, true) {
            hooks if hooks.is_empty() => Ok(()),
            hooks => mutating::run(server, request, &hooks),
        }
    }

    pub fn validate(&self, server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        match self.hooks(server, request, false) {
            hooks if hooks.is_empty() => Ok(()),
            hooks => validating::run(server, request, &hooks),
        }
    }

    /// Policies that are bound, in the order of their names.
    fn hooks(&self, server: &Server, request: &AdmissionRequest<'_>, mutating: bool) -> Vec<Hook> {
        if matching::is_configuration(request) {
            return Vec::new();
        }
        let (plural, bindings) = match mutating {
            true => ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
            false => ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
        };
        let (Some((_, policies)), Some((_, bindings))) =
            (server.resource(GROUP, plural), server.resource(GROUP, bindings))
        else {
            return Vec::new();
        };
        if policies.snapshot().is_empty() || bindings.snapshot().is_empty() {
            return Vec::new();
        }
        let mut bound: HashMap<String, Vec<Value>> = HashMap::new();
        for (_, item) in bindings.snapshot().iter() {
            let binding = item.value();
            let policy = binding["spec"]["policyName"].as_str().unwrap_or_default().to_owned();
            bound.entry(policy).or_default().push(binding);
        }
        let current = self.current(&policies, mutating);
        let hook = |policy: Arc<Policy>| Some(Hook { bindings: bound.remove(&policy.name)?, policy });
        current.into_iter().filter_map(hook).collect()
    }

    /// All policies, compiled.
    fn current(&self, cache: &ResourceCache, mutating: bool) -> Vec<Arc<Policy>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = cache.snapshot();
        let mut out = Vec::new();
        for (name, item) in snapshot.iter() {
            let key = (mutating, name.to_string());
            let known = compiled.get(&key).filter(|(revision, _)| *revision == item.revision());
            let policy = match known {
                Some((_, policy)) => Arc::clone(policy),
                None => {
                    let policy = Arc::new(Policy::compile(&item.value()));
                    compiled.insert(key, (item.revision(), Arc::clone(&policy)));
                    policy
                }
            };
            out.push(policy);
        }
        compiled.retain(|(of, name), _| *of != mutating || snapshot.get(name).is_some());
        out
    }
}

/// Whether the conditions of a webhook hold. They are compiled each time: most webhooks have none.
pub fn hook_conditions(
    server: &Server,
    request: &AdmissionRequest<'_>,
    matched: &matching::Matched,
    conditions: &Value,
) -> Result<bool, String> {
    let conditions = conditions.as_array().filter(|list| !list.is_empty());
    let Some(conditions) = conditions else { return Ok(true) };
    let compile = |condition: &Value| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        (text("name").to_owned(), compiled::condition(text("expression"), false))
    };
    let conditions: Vec<_> = conditions.iter().map(compile).collect();
    let object = matched.convert(server, request, &request.object);
    validating::hold(&conditions, &input::Input::new(server, request, matched, &object))
}
