//! Why something that is asked about is not there.

use crate::chain::{Cause, Explanation, Reference};
use crate::look::{Look, kubectl, names};
use crate::target::{Kind, Target};
use crate::world::World;

/// No kind has this name.
pub fn kind(world: &World, target: &Target) -> Explanation {
    let word = &target.kind;
    let mut causes = vec![Cause::new("UnknownKind", format!("the server has no kind {word:?}")).fix(
        "lists the kinds there are; custom ones come with their CustomResourceDefinition",
        "kubectl api-resources",
    )];
    if !world.kinds.failed.is_empty() {
        let failed = names(&world.kinds.failed);
        causes.push(
            Cause::new(
                "DiscoveryFailed",
                format!("the servers behind {failed} do not answer, and it may be one of theirs"),
            )
            .fix("", "kubectl get apiservices"),
        );
    }
    Explanation {
        object: Reference::new(word, "", &target.name),
        state: "nobody knows what that is".to_owned(),
        healthy: false,
        causes,
        unread: world.refusals(),
    }
}

/// No object has this name.
pub fn object(look: &Look, kind: &Kind, object: &Reference) -> Vec<Cause> {
    let mut causes = Vec::new();
    let namespace = &object.namespace;
    if kind.namespaced() && look.world.get("namespaces", "", namespace).is_absent() {
        causes.push(
            Cause::new("NamespaceMissing", format!("there is no namespace {namespace}"))
                .fix("", format!("kubectl create namespace {namespace}")),
        );
    }
    if kind.namespaced() {
        let fields = format!("metadata.name={}", object.name);
        let elsewhere = look.world.select_of(kind, "", "", &fields).iter().map(api::meta::namespace);
        let elsewhere: Vec<&str> = elsewhere.filter(|n| n != namespace).collect();
        if let Some(first) = elsewhere.first() {
            let message = format!("there is one of this name in another namespace: {}", names(&elsewhere));
            let command = format!("keelson why -n {first} {}/{}", kind.singular, object.name);
            causes.push(Cause::new("OtherNamespace", message).fix("", command));
        }
    }
    let all = look.world.select_of(kind, namespace, "", "").iter().map(api::meta::name);
    let similar: Vec<&str> = all.filter(|name| is_similar(name, &object.name)).collect();
    if causes.is_empty() {
        let message = match similar.as_slice() {
            [] => format!("no {} has this name", kind.singular),
            similar => format!("no {} has this name; similar ones are {}", kind.singular, names(similar)),
        };
        causes.push(Cause::new("NotFound", message).fix("", kubectl(namespace, &format!("get {}", kind.qualified()))));
    }
    causes
}

/// One is the other's beginning, or they differ in a letter.
fn is_similar(a: &str, b: &str) -> bool {
    let begins = |long: &str, short: &str| short.len() >= 3 && long.starts_with(short);
    let one_letter = a.len() == b.len() && a.bytes().zip(b.bytes()).filter(|(x, y)| x != y).count() == 1;
    begins(a, b) || begins(b, a) || one_letter
}
