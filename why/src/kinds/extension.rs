//! What extends the API: aggregated servers, custom kinds, webhooks.

use serde_json::Value;

use super::said;
use crate::chain::Cause;
use crate::look::{Look, condition, condition_is, items, text};
use crate::world::Found;

pub fn api_service(look: &Look, service: &Value) -> Vec<Cause> {
    let Some(condition) = condition(service, "Available").filter(|c| c["status"] != "True") else { return Vec::new() };
    let target = &service["spec"]["service"];
    let (namespace, name) = (text(&target["namespace"]), text(&target["name"]));
    let below = behind(look, namespace, name);
    let message = format!("its server, the Service {namespace}/{name}, cannot be used{}", said(condition));
    let delete = format!("kubectl delete apiservice {}", api::meta::name(service));
    vec![Cause::new("Unavailable", message).about(service).because(below).fix("if nobody needs it any more", delete)]
}

/// The trouble of a Service that the API server calls.
fn behind(look: &Look, namespace: &str, name: &str) -> Vec<Cause> {
    match look.world.get("services", namespace, name) {
        Found::Absent => vec![Cause::new("ServiceMissing", format!("the Service {namespace}/{name} does not exist"))],
        Found::Here(service) => {
            let below = look.why(service);
            if below.is_empty() {
                return Vec::new();
            }
            vec![Cause::new("ServiceLeadsNowhere", "has no endpoints").about(service).because(below)]
        }
        Found::Unknown => Vec::new(),
    }
}

pub fn definition(definition: &Value) -> Vec<Cause> {
    let names = condition(definition, "NamesAccepted").filter(|c| c["status"] != "True");
    let schema = condition_is(definition, "NonStructuralSchema", "True");
    let established = condition(definition, "Established").filter(|c| c["status"] != "True");
    let cause = |reason: &str, message: String| Cause::new(reason, message).about(definition);
    match (names, schema, established) {
        (Some(c), ..) => vec![cause("NamesNotAccepted", format!("its names are taken by another kind{}", said(c)))],
        (None, Some(c), _) => vec![cause("NonStructuralSchema", format!("its schema does not do{}", said(c)))],
        (None, None, Some(c)) => vec![cause("NotEstablished", format!("it is not served yet{}", said(c)))],
        (None, None, None) => Vec::new(),
    }
}

/// The configuration that has a webhook of this name.
pub fn configuration_of<'w>(look: &Look<'w>, webhook: &str) -> Option<&'w Value> {
    let resources = ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"];
    let all = resources.iter().flat_map(|r| look.world.list(&format!("{r}.admissionregistration.k8s.io"), ""));
    { all }.find(|c| items(&c["webhooks"]).any(|w| w["name"] == webhook))
}

/// Webhooks that must be asked and cannot be.
pub fn webhooks(look: &Look, configuration: &Value) -> Vec<Cause> {
    let kind = text(&configuration["kind"]).to_lowercase();
    let name = api::meta::name(configuration);
    let must = items(&configuration["webhooks"]).enumerate().filter(|(_, w)| w["failurePolicy"] != "Ignore");
    let causes = must.filter_map(|(index, webhook)| {
        let service = &webhook["clientConfig"]["service"];
        let below = behind(look, service["namespace"].as_str()?, service["name"].as_str()?);
        if below.is_empty() {
            return None;
        }
        let message = format!("every request it is for fails while its webhook {} cannot be asked", text(&webhook["name"]));
        let patch = format!(
            "kubectl patch {kind} {name} --type=json -p '[{{\"op\":\"replace\",\"path\":\"/webhooks/{index}/failurePolicy\",\"value\":\"Ignore\"}}]'"
        );
        let fix = "lets requests pass unasked: what it protects is not protected then";
        Some(Cause::new("WebhookServerAway", message).about(configuration).because(below).fix(fix, patch))
    });
    causes.collect()
}
