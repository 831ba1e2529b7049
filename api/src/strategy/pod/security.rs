//! Rules of security contexts, profiles and sysctls (`ValidateSecurityContext`, `validatePodSpecSecurityContext`).

use crate::strategy::format;
use crate::strategy::place::{Errors, Place};
use crate::strategy::volume_source::local_descending;

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
/// `PATH_MAX` without the terminator.
const PROFILE_MAX_BYTES: usize = 4095;
const SYSCTL_MAX_BYTES: usize = 253;
const IPC_SYSCTLS: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];

pub fn container(context: &Place, host_users: bool, errors: &mut Errors) {
    if !context.is_set() {
        return;
    }
    format::id(&context.field("runAsUser"), errors);
    format::id(&context.field("runAsGroup"), errors);
    let proc_mount = context.field("procMount");
    proc_mount.one_of(&["Default", "Unmasked"], errors);
    if host_users && proc_mount.str() == "Unmasked" {
        errors.push(proc_mount.invalid("`hostUsers` must be false to use `Unmasked`"));
    }
    seccomp(&context.field("seccompProfile"), errors);
    if context.field("allowPrivilegeEscalation").value.as_bool() == Some(false) {
        if context.field("privileged").is_true() {
            errors.push(context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
        }
        for _ in context.field("capabilities").field("add").list().iter().filter(|c| *c == "CAP_SYS_ADMIN") {
            errors.push(
                context.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"),
            );
        }
    }
    app_armor(&context.field("appArmorProfile"), errors);
}

/// The pod's own context. Host namespaces stand beside it in the spec, but upstream reports them with it.
pub fn pod(spec: &Place, errors: &mut Errors) {
    let context = spec.field("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        format::id(&context.field(field), errors);
    }
    for group in context.field("supplementalGroups").items() {
        format::id(&group, errors);
    }
    let share = context.named("shareProcessNamespace", spec.field("shareProcessNamespace").value);
    if share.is_true() && spec.field("hostPID").is_true() {
        errors.push(share.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    sysctls(&context.field("sysctls"), spec, errors);
    context.field("fsGroupChangePolicy").one_of(&["Always", "OnRootMismatch"], errors);
    seccomp(&context.field("seccompProfile"), errors);
    app_armor(&context.field("appArmorProfile"), errors);
    context.field("supplementalGroupsPolicy").one_of(&["Merge", "Strict"], errors);
    context.field("seLinuxChangePolicy").one_of(&["MountOption", "Recursive"], errors);
}

fn seccomp(profile: &Place, errors: &mut Errors) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    if kind.is_empty() {
        errors.push(kind.required("type is required when seccompProfile is set"));
    } else {
        kind.one_of(PROFILE_TYPES, errors);
    }
    match (kind.str() == "Localhost", local.is_set()) {
        (true, true) => local_descending(&local, errors),
        (true, false) => errors.push(local.required("must be set when seccomp type is Localhost")),
        (false, true) => errors.push(local.invalid("can only be set when seccomp type is Localhost")),
        (false, false) => {}
    }
}

fn app_armor(profile: &Place, errors: &mut Errors) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.str() {
        "" => errors.push(kind.required("type is required when appArmorProfile is set")),
        "Localhost" if !local.is_set() => errors.push(local.required(NEEDED)),
        "Localhost" => {
            if local.str().trim() != local.str() {
                errors.push(local.invalid("must not be padded with whitespace"));
            } else if local.is_empty() {
                errors.push(local.required(NEEDED));
            }
            if local.str().len() > PROFILE_MAX_BYTES {
                errors.push(local.too_long(PROFILE_MAX_BYTES));
            }
        }
        "RuntimeDefault" | "Unconfined" if local.is_set() => {
            errors.push(local.invalid("can only be set when AppArmor type is Localhost"));
        }
        _ => kind.one_of(PROFILE_TYPES, errors),
    }
}

fn sysctls(sysctls: &Place, spec: &Place, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for sysctl in sysctls.items() {
        let name = sysctl.field("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !is_sysctl(name.str()) {
            errors.push(name.invalid(format!(
                "must have at most {SYSCTL_MAX_BYTES} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            )));
        } else if seen.contains(&name.str()) {
            errors.push(name.duplicate());
        }
        seen.push(name.str());
        let dotted = name.str().replace('/', ".");
        if spec.field("hostNetwork").is_true() && dotted.starts_with("net.") {
            errors.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        } else if spec.field("hostIPC").is_true() && IPC_SYSCTLS.iter().any(|prefix| dotted.starts_with(prefix)) {
            errors.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|b| edge(b) || *b == b'-' || *b == b'_')
    };
    name.len() <= SYSCTL_MAX_BYTES && name.split(['.', '/']).all(segment)
}
