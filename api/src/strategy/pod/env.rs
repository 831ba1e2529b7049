//! Rules of a container's environment, and of references to fields of the pod (`ValidateEnv`, `ValidateEnvFrom`).

use super::volumes::inner_path;
use crate::field::Error;
use crate::strategy::place::{Errors, Place};
use crate::strategy::{NameRule, format};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Field paths of a pod that references may name at all, with and without subscript.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["requests.hugepages-", "limits.hugepages-"];
const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

pub fn rules(container: &Place, errors: &mut Errors) {
    for variable in container.field("env").items() {
        let name = variable.field("name");
        if name.require(errors) {
            format::check(&name, format::env_name, errors);
        }
        value_from(&variable, errors);
    }
    let list = container.field("envFrom");
    for source in list.items() {
        let prefix = source.field("prefix");
        if !prefix.is_empty() {
            format::check(&prefix, format::env_name, errors);
        }
        let refs = [source.field("configMapRef"), source.field("secretRef")];
        for reference in refs.iter().filter(|r| r.is_set()) {
            let name = reference.field("name");
            if name.require(errors) {
                errors.extend(NameRule::Subdomain.problems(name.str(), true).into_iter().map(|p| name.invalid(p)));
            }
        }
        match refs.iter().filter(|r| r.is_set()).count() {
            0 => errors.push(Error::invalid(list.path(), "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(Error::invalid(list.path(), "", "may not have more than one field specified at a time")),
        }
    }
}

fn value_from(variable: &Place, errors: &mut Errors) {
    let from = variable.field("valueFrom");
    if !from.is_set() {
        return;
    }
    let mut count = 0;
    for source in SOURCES {
        let place = from.field(source);
        if !place.is_set() {
            continue;
        }
        count += 1;
        match source {
            "fieldRef" => field_ref(&place, ENV_FIELDS, errors),
            "resourceFieldRef" => resource_field_ref(&place, false, errors),
            "fileKeyRef" => file_key(&place, errors),
            _ => key_ref(&place, errors),
        }
    }
    let problem = match count {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !variable.field("value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(from.path(), "", problem));
}

/// `validateObjectFieldSelector`: a field of the pod, of those in `allowed`; labels and annotations by key too.
pub fn field_ref(place: &Place, allowed: &[&str], errors: &mut Errors) {
    place.field("apiVersion").require(errors);
    let path = place.field("fieldPath");
    path.require(errors);
    let text = path.str();
    let subscripted = text.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let base = subscripted.map_or(text, |(base, _)| base);
    if !KNOWN_FIELDS.contains(&base) {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        errors.push(path.invalid(detail));
        // Upstream goes on with an empty path, which is not supported either.
        errors.push(Error::not_supported(path.path(), "", allowed));
        return;
    }
    match subscripted {
        Some(("metadata.annotations", key)) => {
            let problems = format::qualified_name(&key.to_lowercase());
            errors.extend(problems.into_iter().map(|p| Error::invalid(place.path(), key, p)));
        }
        Some(("metadata.labels", key)) => {
            errors.extend(format::qualified_name(key).into_iter().map(|p| Error::invalid(place.path(), key, p)));
        }
        Some((base, _)) => errors.push(Error::invalid(place.path(), base, "does not support subscript")),
        None => path.one_of(allowed, errors),
    }
}

/// `validateContainerResourceFieldSelector`; a volume must name the container.
pub fn resource_field_ref(place: &Place, in_volume: bool, errors: &mut Errors) {
    let resource = place.field("resource");
    let huge_pages = HUGE_PAGES.iter().any(|prefix| resource.str().starts_with(prefix));
    if in_volume && place.field("containerName").is_empty() {
        errors.push(place.field("containerName").required(""));
    } else if resource.is_empty() {
        errors.push(resource.required(""));
    } else if !huge_pages {
        resource.one_of(RESOURCES, errors);
    }
    let divisor = place.field("divisor");
    if ["", "0"].contains(&divisor.str()) {
        return;
    }
    let (allowed, what): (&[&str], _) = match resource.str() {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"], "cpu"),
        "limits.memory" | "requests.memory" => (BYTE_DIVISORS, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (BYTE_DIVISORS, "local ephemeral storage"),
        _ if huge_pages => (BYTE_DIVISORS, "hugepages"),
        _ => return,
    };
    if !allowed.contains(&divisor.str()) {
        let listed = if what == "cpu" { "1m and 1".to_owned() } else { allowed.join(", ") };
        let detail = format!("only divisor's values {listed} are supported with the {what} resource");
        errors.push(Error::invalid(divisor.path(), resource.str(), detail));
    }
}

fn key_ref(place: &Place, errors: &mut Errors) {
    format::check(&place.field("name"), format::subdomain, errors);
    let key = place.field("key");
    if key.require(errors) {
        format::check(&key, format::config_map_key, errors);
    }
}

fn file_key(place: &Place, errors: &mut Errors) {
    let (key, volume) = (place.field("key"), place.field("volumeName"));
    if key.require(errors) {
        format::check(&key, format::env_name, errors);
    }
    if volume.require(errors) {
        format::check(&volume, format::label, errors);
    }
    inner_path(&place.field("path"), errors);
}
