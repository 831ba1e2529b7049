//! What a pod needs before it can start, and does not exist: ConfigMaps, Secrets, claims, its account.

use serde_json::Value;

use crate::chain::Cause;
use crate::look::{Look, items, kubectl, text};
use crate::world::Found;

/// Where a pod refers to another object.
struct Need<'p> {
    resource: &'static str,
    name: &'p str,
    /// Keys that must be in it; empty: any will do.
    keys: Vec<&'p str>,
    /// As in `for the volume data`.
    purpose: String,
}

/// One cause per object, or key in an object, that is missing.
pub fn causes(look: &Look, pod: &Value) -> Vec<Cause> {
    let mut told = Vec::new();
    let mut causes = Vec::new();
    for need in needs(&pod["spec"]) {
        let about = (need.resource, need.name, need.keys.clone());
        if told.contains(&about) {
            continue;
        }
        told.push(about);
        causes.extend(unmet(look, pod, &need));
    }
    causes
}

fn unmet(look: &Look, pod: &Value, need: &Need) -> Option<Cause> {
    let (namespace, name, purpose) = (api::meta::namespace(pod), need.name, &need.purpose);
    let (kind, reason) = match need.resource {
        "configmaps" => ("ConfigMap", "ConfigMapMissing"),
        "secrets" => ("Secret", "SecretMissing"),
        "serviceaccounts" => ("ServiceAccount", "ServiceAccountMissing"),
        _ => ("PersistentVolumeClaim", "ClaimMissing"),
    };
    match look.world.get(need.resource, namespace, name) {
        Found::Absent => {
            let cause = Cause::new(reason, format!("the {kind} {name}, {purpose}, does not exist")).about(pod);
            let literals = match need.keys.as_slice() {
                [] => " --from-literal=KEY=VALUE".to_owned(),
                keys => keys.iter().map(|key| format!(" --from-literal={key}=VALUE")).collect(),
            };
            Some(match kind {
                "ConfigMap" => cause.fix("", kubectl(namespace, &format!("create configmap {name}{literals}"))),
                "Secret" => cause.fix("", kubectl(namespace, &format!("create secret generic {name}{literals}"))),
                "ServiceAccount" => cause.fix("", kubectl(namespace, &format!("create serviceaccount {name}"))),
                _ => cause,
            })
        }
        Found::Here(object) => {
            let has = |key: &&&str| ["data", "binaryData"].iter().any(|field| object[*field].get(**key).is_some());
            let missing = need.keys.iter().find(|key| !has(key))?;
            let message = format!("the {kind} {name}, {purpose}, has no key {missing:?}");
            let patch = match kind {
                "Secret" => format!("patch secret {name} -p '{{\"stringData\":{{\"{missing}\":\"VALUE\"}}}}'"),
                _ => format!("patch configmap {name} -p '{{\"data\":{{\"{missing}\":\"VALUE\"}}}}'"),
            };
            let reason = format!("{kind}KeyMissing");
            Some(Cause::new(&reason, message).about(pod).fix("", kubectl(namespace, &patch)))
        }
        Found::Unknown => None,
    }
}

fn needs(spec: &Value) -> Vec<Need<'_>> {
    let mut needs = Vec::new();
    if let Some(name) = spec["serviceAccountName"].as_str().filter(|n| !n.is_empty()) {
        let purpose = "which it runs as".to_owned();
        needs.push(Need { resource: "serviceaccounts", name, keys: Vec::new(), purpose });
    }
    items(&spec["volumes"]).for_each(|volume| volume_needs(volume, &mut needs));
    for container in items(&spec["initContainers"]).chain(items(&spec["containers"])) {
        environment(container, &mut needs);
    }
    needs
}

fn volume_needs<'p>(volume: &'p Value, needs: &mut Vec<Need<'p>>) {
    let purpose = format!("for its volume {}", text(&volume["name"]));
    let mut sources = vec![volume];
    sources.extend(items(&volume["projected"]["sources"]));
    for source in sources {
        let config = (&source["configMap"], "configmaps", "name");
        let secret = match source["secret"].get("secretName") {
            Some(_) => (&source["secret"], "secrets", "secretName"),
            None => (&source["secret"], "secrets", "name"),
        };
        for (reference, resource, field) in [config, secret] {
            let Some(name) = reference[field].as_str().filter(|_| reference["optional"] != true) else { continue };
            let keys = items(&reference["items"]).map(|i| text(&i["key"])).collect();
            needs.push(Need { resource, name, keys, purpose: purpose.clone() });
        }
    }
    if let Some(name) = volume["persistentVolumeClaim"]["claimName"].as_str() {
        needs.push(Need { resource: "persistentvolumeclaims", name, keys: Vec::new(), purpose });
    }
}

fn environment<'p>(container: &'p Value, needs: &mut Vec<Need<'p>>) {
    let who = text(&container["name"]);
    let kinds = [("configMap", "configmaps"), ("secret", "secrets")];
    for (kind, resource) in kinds {
        for variable in items(&container["env"]) {
            let reference = &variable["valueFrom"][format!("{kind}KeyRef")];
            let Some(name) = reference["name"].as_str().filter(|_| reference["optional"] != true) else { continue };
            let purpose = format!("for {} of the container {who}", text(&variable["name"]));
            needs.push(Need { resource, name, keys: vec![text(&reference["key"])], purpose });
        }
        for from in items(&container["envFrom"]) {
            let reference = &from[format!("{kind}Ref")];
            let Some(name) = reference["name"].as_str().filter(|_| reference["optional"] != true) else { continue };
            let purpose = format!("for the environment of the container {who}");
            needs.push(Need { resource, name, keys: Vec::new(), purpose });
        }
    }
}
