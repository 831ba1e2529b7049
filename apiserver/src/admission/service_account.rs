//! ServiceAccount: every pod runs as an account of its namespace, gets its pull secrets and, unless it declines, a
//! projected volume with a token, the cluster's CA and the namespace.

use std::time::Duration;

use rand::RngExt;
use serde_json::{Value, json};

use api::meta;
use api::status::Status;

use super::{AdmissionRequest, Operation, find};
use crate::server::Server;
use api::quota::containers;

const DEFAULT_ACCOUNT: &str = "default";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and seven seconds: recognized when the token is issued (`WarnOnlyBoundTokenExpirationSeconds`).
const TOKEN_SECONDS: i64 = 3607;
/// 0644.
const FILE_MODE: i64 = 420;
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
/// A new namespace's default account is made by a controller a moment later; so long a pod waits for it.
const DEFAULT_ACCOUNT_WAIT_MAX: Duration = Duration::from_secs(2);

fn is_mirror(pod: &Value) -> bool {
    meta::annotations(pod).is_some_and(|annotations| annotations.contains_key(MIRROR))
}

fn account_name(pod: &Value) -> &str {
    pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_ACCOUNT)
}

/// Before anything else: makes sure that the account a new pod needs had its chance to appear.
pub async fn wait_for_account(server: &Server, request: &AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("", "pods") || is_mirror(&request.object) {
        return Ok(());
    }
    let name = account_name(&request.object);
    let there = || find(server, "", "serviceaccounts", request.namespace, name).is_some();
    if there() {
        return Ok(());
    }
    let mut progress = server.cache.subscribe();
    server.cache.fresh().await?;
    if there() || name != DEFAULT_ACCOUNT {
        return Ok(());
    }
    let waited = tokio::time::timeout(DEFAULT_ACCOUNT_WAIT_MAX, progress.wait_for(|_| there())).await;
    // Whether it came or not, the plugin itself looks again and says what is missing.
    drop(waited);
    Ok(())
}

pub fn mutate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    if !request.creates("", "pods") || is_mirror(&request.object) {
        return Ok(());
    }
    let name = account_name(&request.object).to_owned();
    let account = account(server, request, &name)?;
    let spec = meta::child_mut(&mut request.object, "spec");
    spec["serviceAccountName"] = name.as_str().into();
    // The deprecated alias follows, as upstream's conversion keeps both equal.
    spec["serviceAccount"] = name.as_str().into();
    let own = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    let mounts = own.or_else(|| account["automountServiceAccountToken"].as_bool()).unwrap_or(true);
    if mounts {
        mount_token(spec);
    }
    let has_pull_secrets = spec.get("imagePullSecrets").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if let (false, Some(secrets)) = (has_pull_secrets, account["imagePullSecrets"].as_array())
        && !secrets.is_empty()
    {
        spec["imagePullSecrets"] = secrets.iter().map(|secret| json!({ "name": secret["name"] })).collect();
    }
    Ok(())
}

fn account(server: &Server, request: &AdmissionRequest<'_>, name: &str) -> Result<Value, Status> {
    find(server, "", "serviceaccounts", request.namespace, name).ok_or_else(|| {
        request.forbidden(format!(
            "error looking up service account {}/{name}: serviceaccount {name:?} not found",
            request.namespace
        ))
    })
}

fn mount_token(spec: &mut Value) {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let mut names = volumes.filter_map(|volume| volume["name"].as_str());
    let existing = names.find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let volume = existing.clone().unwrap_or_else(volume_name);
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = container.get("volumeMounts").and_then(Value::as_array);
            if mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH)) {
                continue;
            }
            push(container, "volumeMounts", json!({ "name": volume, "readOnly": true, "mountPath": MOUNT_PATH }));
            needed = true;
        }
    }
    if needed && existing.is_none() {
        push(spec, "volumes", json!({ "name": volume, "projected": token_volume() }));
    }
}

fn token_volume() -> Value {
    json!({
        "defaultMode": FILE_MODE,
        "sources": [
            { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{
                "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
            }] } },
        ],
    })
}

fn push(parent: &mut Value, field: &str, item: Value) {
    match parent.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => parent[field] = json!([item]),
    }
}

/// The prefix and five letters or digits that make no words, as upstream's `names.SimpleNameGenerator`.
fn volume_name() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    let suffix: String = (0..5).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])).collect();
    format!("{VOLUME_PREFIX}{suffix}")
}

pub fn validate(server: &Server, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
    let ephemeral = request.is("", "pods", "ephemeralcontainers") && request.operation == Operation::Update;
    if !request.creates("", "pods") && !ephemeral {
        return Ok(());
    }
    let pod = &request.object;
    if is_mirror(pod) && !ephemeral {
        return mirror(request);
    }
    let name = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    if name.is_empty() {
        let pod = request.object_name();
        return Err(request.forbidden(format!("no service account specified for pod {}/{pod}", request.namespace)));
    }
    let account = account(server, request, name)?;
    let enforced = meta::annotations(&account).and_then(|a| a.get(ENFORCE_MOUNTABLE)?.as_str()) == Some("true");
    if enforced && let Some(why) = unreferenced(pod, &account, ephemeral) {
        return Err(request.forbidden(why));
    }
    Ok(())
}

/// A node's own pod refers to nothing in the API.
fn mirror(request: &AdmissionRequest<'_>) -> Result<(), Status> {
    let spec = &request.object["spec"];
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Err(request.forbidden("a mirror pod may not reference service accounts"));
    }
    let mut plain = request.object.clone();
    if let Some(annotations) = meta::metadata_mut(&mut plain).get_mut("annotations") {
        api::meta::object_mut(annotations).remove(MIRROR);
    }
    if !crate::authz::node::secrets_of(&plain).is_empty() {
        return Err(request.forbidden("a mirror pod may not reference secrets"));
    }
    let sources = spec["volumes"].as_array().into_iter().flatten();
    let mut sources = sources.filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    if sources.any(|source| source.get("serviceAccountToken").is_some_and(|token| !token.is_null())) {
        return Err(request.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

/// What the pod uses that its account does not list, in upstream's words.
fn unreferenced(pod: &Value, account: &Value, ephemeral: bool) -> Option<String> {
    let names = |field: &str| -> Vec<String> {
        let list = account[field].as_array().into_iter().flatten();
        list.filter_map(|reference| reference["name"].as_str().map(str::to_owned)).collect()
    };
    let (secrets, account_name) = (names("secrets"), meta::name(account));
    let listed = |secret: &str| secrets.iter().any(|s| s == secret);
    let suffix = format!("is not allowed because service account {account_name} does not reference that");
    if !ephemeral {
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            if let Some(secret) = volume["secret"]["secretName"].as_str().filter(|s| !listed(s)) {
                return Some(format!("volume with secret.secretName=\"{secret}\" {suffix} secret"));
            }
        }
    }
    let lists: &[(&str, &str)] = match ephemeral {
        true => &[("ephemeralContainers", "ephemeral container")],
        false => &[("initContainers", "init container"), ("containers", "container")],
    };
    for (list, what) in lists {
        for container in containers(pod, &[list]) {
            let name = container["name"].as_str().unwrap_or_default();
            for variable in container["env"].as_array().into_iter().flatten() {
                if let Some(secret) = variable["valueFrom"]["secretKeyRef"]["name"].as_str().filter(|s| !listed(s)) {
                    let variable = variable["name"].as_str().unwrap_or_default();
                    return Some(format!(
                        "{what} {name} with envVar {variable} referencing secret.secretName=\"{secret}\" {suffix} secret"
                    ));
                }
            }
            for source in container["envFrom"].as_array().into_iter().flatten() {
                if let Some(secret) = source["secretRef"]["name"].as_str().filter(|s| !listed(s)) {
                    return Some(format!(
                        "{what} {name} with envFrom referencing secret.secretName=\"{secret}\" {suffix} secret"
                    ));
                }
            }
        }
    }
    if ephemeral {
        return None;
    }
    let pull_secrets = names("imagePullSecrets");
    let given = pod["spec"]["imagePullSecrets"].as_array().into_iter().flatten().enumerate();
    let mut unlisted = given.filter_map(|(i, reference)| Some((i, reference["name"].as_str()?)));
    let (index, name) = unlisted.find(|(_, name)| !pull_secrets.iter().any(|s| s == name))?;
    Some(format!("imagePullSecrets[{index}].name=\"{name}\" {suffix} imagePullSecret"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_mounted_once_and_not_over_something_else() {
        let mut spec = json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "c"}, {"name": "own", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]}],
        });
        mount_token(&mut spec);
        let name = spec["volumes"][0]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5, "{name}");
        assert_eq!(spec["initContainers"][0]["volumeMounts"][0]["name"], name.as_str());
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], MOUNT_PATH);
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let once = spec.clone();
        mount_token(&mut spec);
        assert_eq!(spec, once);
    }
}
