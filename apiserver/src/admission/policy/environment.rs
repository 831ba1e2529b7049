//! What expressions of policies may name, with types (`BuildRequestType`, `BuildNamespaceType`).

use std::sync::OnceLock;

use cel::{AUTHORIZER, Env, Type};

/// Which variables there are beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Copy)]
pub struct Variables {
    pub params: bool,
    pub authorizer: bool,
    /// `Object{}` and `JSONPatch{}` can be constructed.
    pub mutations: bool,
}

pub fn env(which: Variables) -> Env {
    static BASE: OnceLock<Env> = OnceLock::new();
    let mut env = BASE.get_or_init(base).clone();
    if which.params {
        env = env.with("params", Type::Dyn);
    }
    if which.authorizer {
        let check = Type::named("kubernetes.authorization.ResourceCheck");
        env = env.with("authorizer", Type::object(AUTHORIZER, [("requestResource", check)]));
    }
    if which.mutations { env.with_mutations() } else { env }
}

fn base() -> Env {
    Env::default()
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with("request", request())
        .with("namespaceObject", namespace())
}

fn texts(name: &str, fields: &[&'static str]) -> Type {
    Type::object(name, fields.iter().map(|field| (*field, Type::String)))
}

fn request() -> Type {
    let kind = || texts("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = || texts("kubernetes.GroupVersionResource", &["group", "version", "resource"]);
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::String, Type::list(Type::String))),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::String),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace() -> Type {
    let labels = || Type::map(Type::String, Type::String);
    let condition = Type::object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    let spec = Type::object("kubernetes.NamespaceSpec", [("finalizers", Type::list(Type::String))]);
    let status =
        Type::object("kubernetes.NamespaceStatus", [("conditions", Type::list(condition)), ("phase", Type::String)]);
    Type::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}
