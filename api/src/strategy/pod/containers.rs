//! Rules of containers: the three lists of a pod and what their members share (`validateContainers`,
//! `validateInitContainers`, `validateEphemeralContainers`, `validateContainerCommon`).

use serde_json::Value;

use super::{env, mounts, probes, security};
use crate::field::Error;
use crate::strategy::place::{Errors, Place};
use crate::strategy::{format, resources};

pub const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
/// What an ephemeral container may have; anything else is for containers that are part of the pod's plan.
const EPHEMERAL_FIELDS: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "env",
    "envFrom",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "resizePolicy",
    "targetContainerName",
];

/// What the containers of a pod may refer to.
pub struct Scope<'v> {
    /// Valid volumes by name, with their definition.
    pub volumes: Vec<(&'v str, &'v Value)>,
    pub claim_names: Vec<&'v str>,
    pub grace_seconds: Option<i64>,
    pub restart_policy: &'v str,
    /// `linux`, `windows`, or empty when the pod does not say.
    pub os: &'v str,
    pub host_users: bool,
}

pub fn rules(spec: &Place, scope: &Scope, errors: &mut Errors) {
    let (main, init) = (spec.field("containers"), spec.field("initContainers"));
    if main.is_empty() {
        errors.push(main.required(""));
    }
    let mut names: Vec<&str> = Vec::new();
    for container in main.items() {
        common(&container, scope, errors);
        unique(&container, &mut names, errors);
        probes::rules(&container, scope, errors);
        restart_policy(&container, errors);
    }
    host_ports(main.items(), errors);
    for container in init.items() {
        common(&container, scope, errors);
        restart_policy(&container, errors);
        unique(&container, &mut names, errors);
        host_ports(std::iter::once(container), errors);
        init_only(&container, scope, errors);
    }
    ephemeral(spec, &names, scope, errors);
}

fn unique<'v>(container: &Place<'v, '_>, names: &mut Vec<&'v str>, errors: &mut Errors) {
    let name = container.field("name");
    if names.contains(&name.str()) {
        errors.push(name.duplicate());
    } else if !name.is_empty() {
        names.push(name.str());
    }
}

fn common(container: &Place, scope: &Scope, errors: &mut Errors) {
    let name = container.field("name");
    if name.require(errors) {
        format::check(&name, format::label, errors);
    }
    container.field("image").require(errors);
    container.field("terminationMessagePolicy").require_one_of(MESSAGE_POLICIES, errors);
    ports(&container.field("ports"), errors);
    env::rules(container, errors);
    mounts::rules(container, scope, errors);
    container.field("imagePullPolicy").require_one_of(PULL_POLICIES, errors);
    resources::requirements(&container.field("resources"), &scope.claim_names, errors);
    resize_policy(&container.field("resizePolicy"), scope, errors);
    security::container(&container.field("securityContext"), scope.host_users, errors);
}

fn ports(ports: &Place, errors: &mut Errors) {
    let mut names: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            let problems = format::port_name(name.str());
            if problems.is_empty() && names.contains(&name.str()) {
                errors.push(name.duplicate());
            }
            errors.extend(problems.into_iter().map(|problem| name.invalid(problem)));
            names.push(name.str());
        }
        let number = port.field("containerPort");
        if number.int().unwrap_or(0) == 0 {
            errors.push(number.required(""));
        } else {
            format::number_port(&number, errors);
        }
        let host_port = port.field("hostPort");
        if host_port.int().unwrap_or(0) != 0 {
            format::number_port(&host_port, errors);
        }
        port.field("protocol").require_one_of(PROTOCOLS, errors);
    }
}

/// No two containers of a pod take the same port of the host.
fn host_ports<'v: 'p, 'p>(containers: impl Iterator<Item = Place<'v, 'p>>, errors: &mut Errors) {
    let mut taken: Vec<String> = Vec::new();
    for container in containers {
        for port in container.field("ports").items() {
            let host_port = port.field("hostPort");
            let Some(number) = host_port.int().filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", port.field("protocol").str(), port.field("hostIP").str());
            if taken.contains(&key) {
                errors.push(Error::duplicate(host_port.path(), key));
            } else {
                taken.push(key);
            }
        }
    }
}

fn resize_policy(policies: &Place, scope: &Scope, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for policy in policies.items() {
        let (resource, restart) = (policy.field("resourceName"), policy.field("restartPolicy"));
        if seen.contains(&resource.str()) {
            errors.push(Error::duplicate(policy.path(), resource.str()));
        }
        seen.push(resource.str());
        // Upstream reports both at the list.
        policies.with_value(resource.value).require_one_of(&["cpu", "memory"], errors);
        policies.with_value(restart.value).require_one_of(&["NotRequired", "RestartContainer"], errors);
        if scope.restart_policy == "Never" && restart.str() != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(Error::invalid(policies.path(), restart.str(), detail));
        }
    }
}

/// `validateContainerRestartPolicy`.
fn restart_policy(container: &Place, errors: &mut Errors) {
    let (policy, rules) = (container.field("restartPolicy"), container.field("restartPolicyRules"));
    if policy.is_set() {
        policy.one_of(RESTART_POLICIES, errors);
    } else if !rules.is_empty() {
        errors.push(policy.required("must specify restartPolicy when restart rules are used"));
    }
    if rules.list().len() > RESTART_RULES_MAX {
        errors.push(rules.too_many(RESTART_RULES_MAX));
    }
    for rule in rules.items() {
        let (action, codes) = (rule.field("action"), rule.field("exitCodes"));
        if !["Restart", "RestartAllContainers"].contains(&action.str()) {
            errors.push(action.not_supported(&["Restart", "RestartAllContainers"]));
        }
        if !codes.is_set() {
            errors.push(codes.required("must be specified"));
            continue;
        }
        let operator = codes.field("operator");
        if !["In", "NotIn"].contains(&operator.str()) {
            errors.push(operator.not_supported(&["In", "NotIn"]));
        }
        if codes.field("values").list().len() > EXIT_CODES_MAX {
            errors.push(codes.field("values").too_many(EXIT_CODES_MAX));
        }
    }
}

/// Hooks and probes are for containers that stay: init containers have them only when always restarted.
fn init_only(container: &Place, scope: &Scope, errors: &mut Errors) {
    if container.field("restartPolicy").str() == "Always" {
        probes::rules(container, scope, errors);
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let place = container.field(field);
        if place.is_set() {
            errors.push(place.forbidden("may not be set for init containers without restartPolicy=Always"));
        }
    }
    for policy in container.field("resizePolicy").items() {
        let restart = policy.field("restartPolicy");
        if restart.str() == "RestartContainer" {
            errors.push(restart.invalid("must not be set to 'RestartContainer' for non-sidecar initContainers"));
        }
    }
}

fn ephemeral(spec: &Place, others: &[&str], scope: &Scope, errors: &mut Errors) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let mut names = others.to_vec();
    for container in spec.field("ephemeralContainers").items() {
        common(&container, scope, errors);
        image_untrimmed(&container, errors);
        unique(&container, &mut names, errors);
        let target = container.field("targetContainerName");
        if !target.is_empty() && !others.contains(&target.str()) {
            errors.push(target.not_found());
        }
        for (field, place) in container.entries() {
            if !EPHEMERAL_FIELDS.contains(&field) && !place.is_empty() {
                errors.push(container.field(field).forbidden(WHY));
            }
        }
        for mount in container.field("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.field(field).is_empty() {
                    errors.push(mount.field(field).forbidden(WHY));
                }
            }
        }
    }
}

/// Pods, unlike templates, refuse blanks around an image's name.
pub fn image_untrimmed(container: &Place, errors: &mut Errors) {
    let image = container.field("image");
    if image.str().trim() != image.str() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
}
