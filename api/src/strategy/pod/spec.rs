//! Rules of a pod spec (`ValidatePodSpec`), whether it is a pod's or a template's.

use serde_json::Value;

use super::containers::{self, Scope};
use super::{os, scheduling, security, volumes};
use crate::field::Error;
use crate::strategy::place::{Errors, Place};
use crate::strategy::{address, format, metadata, resources};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PREEMPTION_POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LIST_MAX_BYTES: usize = 2048;
const HOSTNAME_OVERRIDE_MAX_BYTES: usize = 64;

/// The object a spec belongs to: a pod, known by name, or a template.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    Pod { name: &'a str },
    Template,
}

pub fn rules(spec: &Place, of: Of, errors: &mut Errors) {
    let (name, is_pod) = match of {
        Of::Pod { name } => (name, true),
        Of::Template => ("", false),
    };
    let grace = spec.field("terminationGracePeriodSeconds");
    if !grace.is_set() {
        errors.push(grace.required(""));
    }
    let claims = spec.field("resourceClaims");
    let scope = Scope {
        volumes: volumes::rules(spec, name, is_pod, errors),
        claim_names: claims.list().iter().filter_map(|c| c.get("name").and_then(Value::as_str)).collect(),
        grace_seconds: grace.int(),
        restart_policy: spec.field("restartPolicy").str(),
        os: spec.field("os").field("name").str(),
        host_users: spec.field("hostUsers").value.as_bool() != Some(false),
    };
    resource_claims(&claims, errors);
    containers::rules(spec, &scope, errors);
    file_refs(spec, &scope, errors);
    resources::pod_level(spec, errors);
    host_network_ports(spec, is_pod, errors);
    spec.field("restartPolicy").require_one_of(RESTART_POLICIES, errors);
    spec.field("dnsPolicy").require_one_of(DNS_POLICIES, errors);
    metadata::labels(&spec.field("nodeSelector"), errors);
    security::pod(spec, errors);
    scheduling::affinity(&spec.field("affinity"), errors);
    scheduling::tolerations(&spec.field("tolerations"), errors);
    scheduling::spread_constraints(&spec.field("topologySpreadConstraints"), errors);
    dns(spec, errors);
    gates(spec, errors);
    host_users(spec, errors);
    names(spec, errors);
    limits(spec, errors);
    os::rules(spec, errors);
}

fn resource_claims(claims: &Place, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for claim in claims.items() {
        let name = claim.field("name");
        if name.require(errors) {
            if seen.contains(&name.str()) {
                errors.push(name.duplicate());
            } else {
                format::check(&name, format::label, errors);
            }
            seen.push(name.str());
        }
        let sources = [claim.field("resourceClaimName"), claim.field("resourceClaimTemplateName")];
        match sources.iter().filter(|s| s.is_set()).count() {
            0 => errors.push(claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")),
            1 => {}
            _ => errors.push(
                claim.invalid("at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            ),
        }
        for source in sources.iter().filter(|s| s.is_set()) {
            format::check(source, format::subdomain, errors);
        }
    }
}

/// Environment from a file: the volume exists and is an `emptyDir`.
fn file_refs(spec: &Place, scope: &Scope, errors: &mut Errors) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.field(list).items() {
            for variable in container.field("env").items() {
                let from = variable.field("valueFrom");
                let reference = from.field("fileKeyRef");
                if !reference.is_set() {
                    continue;
                }
                let name = reference.field("volumeName");
                match scope.volumes.iter().find(|(volume, _)| *volume == name.str()) {
                    None => errors.push(name.not_found()),
                    Some((_, volume)) if volume.get("emptyDir").is_none() => {
                        errors.push(name.invalid("referenced volume must be of type emptyDir"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

fn host_network_ports(spec: &Place, is_pod: bool, errors: &mut Errors) {
    if !spec.field("hostNetwork").is_true() {
        return;
    }
    for container in spec.field("containers").items() {
        for port in container.field("ports").items() {
            let host = port.field("hostPort");
            let (host_port, own) = (host.int().unwrap_or(0), port.field("containerPort").int().unwrap_or(0));
            if (is_pod || host_port != 0) && host_port != own {
                errors.push(host.invalid("must match `containerPort` when `hostNetwork` is true"));
            }
        }
    }
}

fn dns(spec: &Place, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let (servers, searches) = (config.field("nameservers"), config.field("searches"));
    if spec.field("dnsPolicy").str() == "None" {
        if !config.is_set() {
            errors.push(config.required("must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            errors.push(servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
            return;
        }
    }
    if servers.list().len() > NAMESERVERS_MAX {
        errors.push(servers.invalid(format!("must not have more than {NAMESERVERS_MAX} nameservers")));
    }
    for server in servers.items() {
        format::check(&server, address::ip, errors);
    }
    if searches.list().len() > SEARCHES_MAX {
        errors.push(searches.invalid(format!("must not have more than {SEARCHES_MAX} search paths")));
    }
    let joined: usize = searches.list().iter().filter_map(Value::as_str).map(|s| s.len() + 1).sum();
    if joined > SEARCH_LIST_MAX_BYTES + 1 {
        errors.push(searches.invalid(format!(
            "must not have more than {SEARCH_LIST_MAX_BYTES} characters (including spaces) in the search list"
        )));
    }
    for search in searches.items().filter(|s| s.str() != ".") {
        let name = search.str().strip_suffix('.').unwrap_or(search.str());
        let problems = format::subdomain_with_underscore(name);
        errors.extend(problems.into_iter().map(|p| Error::invalid(search.path(), name, p)));
    }
    for option in config.field("options").items().filter(|o| o.field("name").is_empty()) {
        errors.push(option.required("must not be empty"));
    }
}

fn gates(spec: &Place, errors: &mut Errors) {
    for gate in spec.field("readinessGates").items() {
        format::check(&gate.field("conditionType"), format::qualified_name, errors);
    }
    let mut seen: Vec<&str> = Vec::new();
    for gate in spec.field("schedulingGates").items() {
        let name = gate.field("name").str();
        errors.extend(format::qualified_name(name).into_iter().map(|p| Error::invalid(gate.path(), name, p)));
        if seen.contains(&name) {
            errors.push(Error::duplicate(gate.path(), name));
        }
        seen.push(name);
    }
}

/// A user namespace of its own excludes the host's namespaces.
fn host_users(spec: &Place, errors: &mut Errors) {
    const WHY: &str = "when `hostUsers` is false";
    if spec.field("hostUsers").value.as_bool() != Some(false) {
        return;
    }
    for (field, reported) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.field(field).is_true() {
            errors.push(spec.field(reported).forbidden(WHY));
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.field(list).items() {
            if !container.field("volumeDevices").is_empty() {
                errors.push(container.field("volumeDevices").forbidden(WHY));
            }
        }
    }
}

/// Fields that name something.
fn names(spec: &Place, errors: &mut Errors) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let place = spec.field(field);
        if !place.is_empty() {
            format::check(&place, format::subdomain, errors);
        }
    }
    for field in ["hostname", "subdomain"] {
        let place = spec.field(field);
        if !place.is_empty() {
            format::check(&place, format::label, errors);
        }
    }
    let over = spec.field("hostnameOverride");
    if over.is_set() {
        for (field, what) in [("setHostnameAsFQDN", "setHostnameAsFQDN"), ("hostNetwork", "hostNetwork")] {
            if spec.field(field).is_true() {
                errors.push(over.forbidden(format!("may not be specified when {what} is true")));
            }
        }
        if over.str().len() > HOSTNAME_OVERRIDE_MAX_BYTES {
            errors.push(over.too_long(HOSTNAME_OVERRIDE_MAX_BYTES));
        }
        format::check(&over, format::subdomain, errors);
    }
    for alias in spec.field("hostAliases").items() {
        format::check(&alias.field("ip"), address::ip, errors);
        for hostname in alias.field("hostnames").items() {
            format::check(&hostname, format::subdomain, errors);
        }
    }
}

fn limits(spec: &Place, errors: &mut Errors) {
    spec.field("activeDeadlineSeconds").in_range(1, i64::from(i32::MAX), errors);
    spec.field("preemptionPolicy").one_of(PREEMPTION_POLICIES, errors);
    overhead(&spec.field("overhead"), errors);
    let group = spec.field("schedulingGroup");
    if group.is_set() {
        let name = group.field("podGroupName");
        if name.is_set() {
            format::check(&name, format::subdomain, errors);
        } else {
            errors.push(name.invalid("must specify one of: `podGroupName`"));
        }
    }
}

/// `validateOverhead`: as the limits of a container, reported so.
pub fn overhead(overhead: &Place, errors: &mut Errors) {
    let limits = overhead.named("limits", overhead.value);
    for (name, amount) in limits.entries() {
        resources::container_name(name, &amount, errors);
        resources::amount(name, &amount, errors);
    }
}
