//! The values of a request that expressions name. Variables of a policy are evaluated when they are first read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cel::{Budget, Error, Host, Scope, Value};
use serde_json::Value as Json;

use super::authorizer;
use super::compiled::{Expression, Failure, Policy};
use super::matching::{self, Matched};
use crate::admission::AdmissionRequest;
use crate::server::Server;

/// What all expressions of one policy see of one request.
#[derive(Clone, Debug)]
pub struct Input {
    object: Value,
    old_object: Value,
    request: Value,
    namespace: Value,
    authorizer: Value,
    params: Value,
    variables: Value,
}

impl Input {
    pub fn new(server: &Server, request: &AdmissionRequest<'_>, matched: &Matched, object: &Json) -> Self {
        let old = matched.convert(server, request, request.old_object);
        // A namespace does not lie in itself here.
        let own = request.info.group.is_empty() && request.info.resource == "namespaces";
        let namespace = if own { None } else { matching::namespace_object(server, request.namespace) };
        let mut namespace = namespace.unwrap_or(Json::Null);
        if let Some(metadata) = namespace["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.remove("ownerReferences");
        }
        Self {
            object: Value::from_json(object),
            old_object: Value::from_json(&old),
            request: Value::from_json(&matching::described(request, matched)),
            namespace: Value::from_json(&namespace),
            authorizer: authorizer::of(server, request),
            params: Value::Null,
            variables: Value::Null,
        }
    }

    #[must_use]
    pub fn with(mut self, policy: &Policy, params: Option<&Json>) -> Self {
        self.params = params.map_or(Value::Null, Value::from_json);
        let shared = Shared { list: Arc::clone(&policy.variables), input: self.clone(), known: Mutex::default() };
        let upto = policy.variables.len();
        self.variables = Value::Host(Arc::new(Variables { shared: Arc::new(shared), upto }));
        self
    }

    /// Runs with all names in scope.
    pub fn scope<T>(&self, run: impl FnOnce(&Scope<'_>) -> T) -> T {
        let names = [
            ("object", &self.object),
            ("oldObject", &self.old_object),
            ("request", &self.request),
            ("namespaceObject", &self.namespace),
            ("authorizer", &self.authorizer),
            ("params", &self.params),
            ("variables", &self.variables),
        ];
        run(&Scope::new(&names))
    }
}

#[derive(Debug)]
struct Shared {
    list: Arc<Vec<(Arc<str>, Expression)>>,
    input: Input,
    known: Mutex<HashMap<usize, Result<Value, Error>>>,
}

/// The variables declared before one, or all.
#[derive(Debug)]
struct Variables {
    shared: Arc<Shared>,
    upto: usize,
}

impl Host for Variables {
    fn type_name(&self) -> &str {
        "kubernetes.variables"
    }

    fn field(&self, name: &str, budget: &mut Budget) -> Option<Result<Value, Error>> {
        let shared = &self.shared;
        let index = shared.list[..self.upto].iter().rposition(|(known, _)| &**known == name)?;
        let known = || shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known().get(&index) {
            return Some(known.clone());
        }
        let mut input = shared.input.clone();
        input.variables = Value::Host(Arc::new(Self { shared: Arc::clone(shared), upto: index }));
        let result = input.scope(|scope| shared.list[index].1.value(scope, budget)).map_err(|failure| match failure {
            Failure::Evaluation(Error::CostExceeded) => Error::CostExceeded,
            failure => Error::Other(format!("composited variable \"{name}\" fails to evaluate: {failure}")),
        });
        known().insert(index, result.clone());
        Some(result)
    }
}
