//! Why the API server refused to make a pod for a workload: its words, understood.

use serde_json::Value;

use super::extension;
use crate::chain::Cause;
use crate::look::{Look, kubectl, text};

/// `owner` is whose pods could not be made; `message` what the server, or the controller, said.
pub fn cause(look: &Look, owner: &Value, workload: &str, message: &str) -> Cause {
    let namespace = api::meta::namespace(owner);
    let known = [quota, account, security, webhook, limits, priority, unavailable];
    let found = known.iter().find_map(|reads| reads(look, namespace, workload, message));
    found.unwrap_or_else(|| Cause::new("PodsRefused", format!("its pods are refused: {message}")).about(owner))
}

fn between<'m>(message: &'m str, before: &str, after: &str) -> Option<&'m str> {
    let rest = message.split_once(before)?.1;
    Some(rest.split_once(after).map_or(rest, |(found, _)| found))
}

fn quota(_: &Look, namespace: &str, workload: &str, message: &str) -> Option<Cause> {
    if let Some(name) = between(message, "exceeded quota: ", ",") {
        let used = message.split_once("used: ").map_or("", |(_, rest)| rest);
        let told = used.replace("limited: ", "of at most ");
        let limited = between(message, "limited: ", "\n").unwrap_or_default();
        let hard: Vec<String> = limited
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='))
            .map(|(resource, _)| format!("\"{resource}\":\"MORE\""))
            .collect();
        let requested = between(message, "requested: ", ", used:").unwrap_or_default();
        let patch =
            format!("patch resourcequota {name} --type=merge -p '{{\"spec\":{{\"hard\":{{{}}}}}}}'", hard.join(","));
        let message = format!("does not allow another pod: it asks for {requested}; used: {told}");
        return Some(
            Cause::new("QuotaExceeded", message)
                .named("ResourceQuota", namespace, name)
                .fix("or delete what is not needed", kubectl(namespace, &patch)),
        );
    }
    let name = between(message, "failed quota: ", ":")?;
    let what = between(message, "must specify ", "\n").unwrap_or_default();
    let resource = what.split(" for").next().unwrap_or_default();
    let set = match resource.split_once('.') {
        Some((kind, resource)) => format!("--{kind}={}=AMOUNT", resource.split(',').next().unwrap_or_default()),
        None => format!("--requests={}=AMOUNT", resource.split(',').next().unwrap_or_default()),
    };
    let message = format!("counts what pods ask for, and the pods do not say it ({what})");
    Some(
        Cause::new("QuotaNeedsRequests", message)
            .named("ResourceQuota", namespace, name)
            .fix("or make a LimitRange with defaults", kubectl(namespace, &format!("set resources {workload} {set}"))),
    )
}

fn account(look: &Look, namespace: &str, _: &str, message: &str) -> Option<Cause> {
    let name = between(message, "error looking up service account ", ":")?;
    let name = name.rsplit('/').next().unwrap_or(name);
    // The refusal may be a while ago: a controller does not try again at once.
    let message = match look.world.get("serviceaccounts", namespace, name).here() {
        Some(_) => format!("the ServiceAccount {name} was missing; now it is there, and its controller will try again"),
        None => format!("the ServiceAccount {name}, which its pods run as, does not exist"),
    };
    Some(
        Cause::new("ServiceAccountMissing", message)
            .fix("", kubectl(namespace, &format!("create serviceaccount {name}"))),
    )
}

fn security(_: &Look, namespace: &str, _: &str, message: &str) -> Option<Cause> {
    let level = between(message, "violates PodSecurity \"", "\"")?;
    let told = message.split_once("\": ").map_or(message, |(_, told)| told);
    let message = format!("the namespace enforces the pod security level {level}, and the pods do not keep it: {told}");
    let label = format!("kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=LEVEL --overwrite");
    Some(Cause::new("PodSecurity", message).fix("better: change the pods' securityContext", label))
}

fn webhook(look: &Look, _: &str, _: &str, message: &str) -> Option<Cause> {
    if let Some(name) = between(message, "admission webhook \"", "\"") {
        let said = between(message, "denied the request: ", "\n").unwrap_or("it gave no reason");
        let cause = Cause::new("WebhookDenied", format!("the admission webhook {name} refuses its pods: {said}"));
        return Some(match extension::configuration_of(look, name) {
            Some(configuration) => {
                let kind = text(&configuration["kind"]).to_lowercase();
                let show = format!("kubectl get {kind} {} -o yaml", api::meta::name(configuration));
                cause.fix("says whose it is and what it is for", show)
            }
            None => cause,
        });
    }
    let name = between(message, "failed calling webhook \"", "\"")?;
    let said = message.split_once("\": ").map_or("", |(_, said)| said);
    let cause = Cause::new(
        "WebhookUnreachable",
        format!("the admission webhook {name} must be asked and does not answer: {said}"),
    );
    Some(match extension::configuration_of(look, name) {
        Some(configuration) => cause.because(look.why(configuration)),
        None => cause,
    })
}

fn limits(_: &Look, namespace: &str, workload: &str, message: &str) -> Option<Cause> {
    let told = ["maximum ", "minimum "].iter().find_map(|word| Some(&message[message.find(word)?..]))?;
    let told = told.trim_end_matches(']');
    told.contains(" usage per ").then(|| {
        Cause::new("LimitRange", format!("a LimitRange of the namespace refuses its pods: {told}"))
            .fix("shows the limits", kubectl(namespace, "describe limitrange"))
            .fix(
                "",
                kubectl(
                    namespace,
                    &format!("set resources {workload} --limits=RESOURCE=AMOUNT --requests=RESOURCE=AMOUNT"),
                ),
            )
    })
}

fn priority(_: &Look, _: &str, _: &str, message: &str) -> Option<Cause> {
    if let Some(name) = between(message, "no PriorityClass with name ", " was found") {
        let cause = Cause::new(
            "PriorityClassMissing",
            format!("the PriorityClass {name}, which its pods name, does not exist"),
        );
        return Some(cause.fix("", format!("kubectl create priorityclass {name} --value=1000")));
    }
    let name = between(message, "RuntimeClass \"", "\" not found")?;
    let cause =
        Cause::new("RuntimeClassMissing", format!("the RuntimeClass {name}, which its pods name, does not exist"));
    Some(cause.fix("", "kubectl get runtimeclasses"))
}

fn unavailable(_: &Look, namespace: &str, _: &str, message: &str) -> Option<Cause> {
    message.contains("because it is being terminated").then(|| {
        Cause::new("NamespaceTerminating", "nothing new is made in a namespace that is being deleted")
            .fix("", format!("keelson why namespace/{namespace}"))
    })
}
