//! Why a namespace that was deleted is still there.

use serde_json::Value;

use super::deletion;
use crate::chain::Cause;
use crate::look::{Look, condition_is, items, text};

/// Objects that are named; more of them say the same.
const SHOWN_OBJECTS: usize = 5;

pub fn deleted(look: &Look, namespace: &Value) -> Vec<Cause> {
    let name = api::meta::name(namespace);
    let mut causes = Vec::new();
    if let Some(c) = condition_is(namespace, "NamespaceDeletionDiscoveryFailure", "True") {
        let message = "what it holds cannot be told, since some servers of extension APIs do not answer".to_owned();
        let failing: Vec<Cause> = look
            .world
            .list("apiservices.apiregistration.k8s.io", "")
            .iter()
            .filter(|service| condition_is(service, "Available", "True").is_none())
            .map(|service| {
                let delete = format!("kubectl delete apiservice {}", api::meta::name(service));
                Cause::new("APIServiceUnavailable", "is not available")
                    .about(service)
                    .because(look.why(service))
                    .fix("if nobody needs it any more", delete)
            })
            .collect();
        let below = if failing.is_empty() { vec![Cause::new("DiscoveryFailed", text(&c["message"]))] } else { failing };
        causes.push(Cause::new("DiscoveryFailed", message).about(namespace).because(below));
    }
    causes.extend(left(look, name));
    if let Some(c) = condition_is(namespace, "NamespaceDeletionContentFailure", "True") {
        causes.push(
            Cause::new("ContentDeletionFailed", format!("some of it could not be deleted: {}", text(&c["message"])))
                .about(namespace),
        );
    }
    let finalizers: Vec<&str> =
        items(&namespace["spec"]["finalizers"]).map(text).filter(|f| *f != "kubernetes").collect();
    for finalizer in finalizers {
        let message =
            format!("the finalizer {finalizer} (of spec.finalizers) must be taken off by whoever put it there");
        causes.push(Cause::new("Finalizer", message).about(namespace));
    }
    if api::meta::finalizers(namespace).next().is_some() {
        causes.extend(deletion::causes(look, namespace));
    }
    if causes.is_empty() {
        let message = "it is empty as far as can be seen, and the namespace controller has yet to let it go: do the controllers run?";
        causes.push(Cause::new("DeletionUnderWay", message).about(namespace));
    }
    causes
}

/// What is still in it; first what somebody holds.
fn left(look: &Look, namespace: &str) -> Vec<Cause> {
    let kinds = look.world.kinds.in_namespaces().filter(|k| *k.resource.resource != *"events");
    let all: Vec<&Value> = kinds.flat_map(|kind| look.world.select_of(kind, namespace, "", "")).collect();
    let (mut held, free): (Vec<&Value>, Vec<&Value>) = all
        .into_iter()
        .partition(|object| api::meta::finalizers(object).next().is_some() || text(&object["kind"]) == "Pod");
    // Pods are told first: they go by themselves.
    held.sort_by_key(|object| text(&object["kind"]) != "Pod");
    let rest = held.len().saturating_sub(SHOWN_OBJECTS);
    let mut causes: Vec<Cause> = held
        .iter()
        .take(SHOWN_OBJECTS)
        .map(|object| {
            let state =
                if api::meta::deletion_timestamp(object).is_some() { "is Terminating" } else { "is not deleted yet" };
            Cause::new("ContentRemains", state).about(object).because(look.why(object))
        })
        .collect();
    if rest > 0 {
        causes.push(Cause::new("ContentRemains", format!("{rest} more objects in it are held")));
    }
    if causes.is_empty() && !free.is_empty() {
        causes.push(Cause::new("ContentRemains", format!("{} objects in it are being deleted", free.len())));
    }
    causes
}
