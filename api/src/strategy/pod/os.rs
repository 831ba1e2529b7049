//! What a pod may not set on the operating system it names (`validateOS`, `validateLinux`, `validateWindows`).

use crate::strategy::place::{Errors, Place};

const WINDOWS_DETAIL: &str = "cannot be set for a windows pod";
const LINUX_DETAIL: &str = "windows options cannot be set for a linux pod";
const POD_FIELDS: &[&str] = &["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
const POD_CONTEXT_FIELDS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const CONTAINER_CONTEXT_FIELDS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

pub fn rules(spec: &Place, errors: &mut Errors) {
    let os = spec.field("os");
    if !os.is_set() {
        return;
    }
    let name = os.field("name");
    match name.str() {
        "" => errors.push(name.required("")),
        "linux" => {
            let options = ["windowsOptions"];
            forbid(&spec.field("securityContext"), &options, LINUX_DETAIL, errors);
            each_container(spec, &options, LINUX_DETAIL, errors);
        }
        "windows" => {
            forbid(spec, POD_FIELDS, WINDOWS_DETAIL, errors);
            forbid(&spec.field("securityContext"), POD_CONTEXT_FIELDS, WINDOWS_DETAIL, errors);
            each_container(spec, CONTAINER_CONTEXT_FIELDS, WINDOWS_DETAIL, errors);
        }
        // Upstream reports the name at the field that holds it.
        _ => errors.push(os.with_value(name.value).not_supported(&["linux", "windows"])),
    }
}

fn each_container(spec: &Place, fields: &[&str], detail: &str, errors: &mut Errors) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.field(list).items() {
            forbid(&container.field("securityContext"), fields, detail, errors);
        }
    }
}

fn forbid(holder: &Place, fields: &[&str], detail: &str, errors: &mut Errors) {
    for field in fields {
        let place = holder.field(field);
        // False and empty lists are what Go's types cannot tell from absence here.
        let given = match place.value {
            serde_json::Value::Bool(false) => !matches!(*field, "hostPID" | "hostIPC"),
            serde_json::Value::Array(list) => !list.is_empty(),
            value => !value.is_null(),
        };
        if given {
            errors.push(place.forbidden(detail));
        }
    }
}
