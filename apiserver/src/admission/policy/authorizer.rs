//! `authorizer` of expressions: asks this server's authorizer as the requesting user or a service account.

use std::sync::{Arc, Weak};

use cel::{AUTHORIZER, Budget, Error, Host, Value};

use crate::admission::AdmissionRequest;
use crate::authz::{Attributes, Decision};
use crate::server::Server;
use crate::user::{User, service_account};

#[derive(Clone)]
struct Asker {
    server: Weak<Server>,
    user: Arc<User>,
    /// What `authorizer.requestResource` asks about.
    own: Arc<Resource>,
}

#[derive(Clone, Debug, Default)]
struct Resource {
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    field_selector: String,
}

enum Check {
    Authorizer,
    Path(String),
    Group(String),
    Resource(Resource),
    Decided(bool, String),
}

/// One step of a chain of calls.
struct Step {
    asker: Asker,
    check: Check,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.type_name())
    }
}

pub fn of(server: &Server, request: &AdmissionRequest<'_>) -> Value {
    let info = request.info;
    let own = Resource {
        group: info.group.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: request.namespace.to_owned(),
        name: request.name.to_owned(),
        field_selector: String::new(),
    };
    let asker = Asker { server: Weak::clone(&server.itself), user: Arc::new(request.user.clone()), own: Arc::new(own) };
    step(asker, Check::Authorizer)
}

fn step(asker: Asker, check: Check) -> Value {
    Value::Host(Arc::new(Step { asker, check }))
}

impl Step {
    fn next(&self, check: Check) -> Result<Value, Error> {
        Ok(step(self.asker.clone(), check))
    }

    fn decide(&self, verb: &str) -> Result<Value, Error> {
        let server = self.asker.server.upgrade().ok_or_else(|| Error::other("the server is stopping"))?;
        let user = &*self.asker.user;
        let decision = match &self.check {
            Check::Path(path) => {
                let mut asked = Attributes::resource(user, verb, "", "");
                asked.resource_request = false;
                asked.version = "";
                asked.path = path;
                server.authorizer.decide(&server, &asked)
            }
            Check::Resource(resource) => {
                let mut asked = Attributes::resource(user, verb, &resource.group, &resource.resource);
                asked.version = "*";
                asked.subresource = &resource.subresource;
                asked.namespace = &resource.namespace;
                asked.name = &resource.name;
                asked.field_selector = &resource.field_selector;
                server.authorizer.decide(&server, &asked)
            }
            _ => return Err(Error::NoSuchOverload),
        };
        match decision {
            Decision::Allow(reason) => self.next(Check::Decided(true, reason)),
            Decision::NoOpinion(reason) => self.next(Check::Decided(false, reason)),
        }
    }
}

impl Host for Step {
    fn type_name(&self) -> &str {
        match self.check {
            Check::Authorizer => AUTHORIZER,
            Check::Path(_) => "kubernetes.authorization.PathCheck",
            Check::Group(_) => "kubernetes.authorization.GroupCheck",
            Check::Resource(_) => "kubernetes.authorization.ResourceCheck",
            Check::Decided(..) => "kubernetes.authorization.Decision",
        }
    }

    fn field(&self, name: &str, _budget: &mut Budget) -> Option<Result<Value, Error>> {
        match (&self.check, name) {
            (Check::Authorizer, "requestResource") => Some(self.next(Check::Resource((*self.asker.own).clone()))),
            _ => None,
        }
    }

    fn call(&self, function: &str, args: &[Value]) -> Result<Value, Error> {
        let texts: Vec<&str> = args.iter().filter_map(Value::as_text).collect();
        match (&self.check, function, texts.as_slice()) {
            (Check::Authorizer, "path", [path]) => self.next(Check::Path((*path).to_owned())),
            (Check::Authorizer, "group", [group]) => self.next(Check::Group((*group).to_owned())),
            (Check::Authorizer, "serviceAccount", [namespace, name]) => {
                let asker = Asker { user: Arc::new(service_account(namespace, name)), ..self.asker.clone() };
                Ok(step(asker, Check::Authorizer))
            }
            (Check::Group(group), "resource", [resource]) => {
                let (group, resource) = (group.clone(), (*resource).to_owned());
                self.next(Check::Resource(Resource { group, resource, ..Resource::default() }))
            }
            (Check::Resource(resource), _, [text]) if function != "check" => {
                let mut next = resource.clone();
                let text = (*text).to_owned();
                match function {
                    "subresource" => next.subresource = text,
                    "namespace" => next.namespace = text,
                    "name" => next.name = text,
                    "fieldSelector" => next.field_selector = text,
                    // No authorizer here looks at labels.
                    "labelSelector" => {}
                    _ => return Err(Error::NoSuchOverload),
                }
                self.next(Check::Resource(next))
            }
            (Check::Path(_) | Check::Resource(_), "check", [verb]) => self.decide(verb),
            (Check::Decided(allowed, _), "allowed", []) => Ok(Value::Bool(*allowed)),
            (Check::Decided(_, reason), "reason", []) => Ok(Value::text(reason.as_str())),
            (Check::Decided(..), "errored", []) => Ok(Value::Bool(false)),
            (Check::Decided(..), "error", []) => Ok(Value::text("")),
            _ => Err(Error::NoSuchOverload),
        }
    }
}
