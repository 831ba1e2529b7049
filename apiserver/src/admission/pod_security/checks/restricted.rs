//! The checks of the restricted level: what a pod must say of itself.

use serde_json::Value;

use super::{Violation, added, every, is_windows, listed, names, own_users, plural, quoted, seccomp, seccomp_baseline};
use super::{setters, sorted, text, violation, volumes};

pub(super) fn capabilities_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < 22 || (minor >= 25 && is_windows(pod)) {
        return None;
    }
    let drops_all = |c: &Value| {
        let drop = c["securityContext"]["capabilities"]["drop"].as_array();
        drop.is_some_and(|list| list.iter().any(|item| item == "ALL"))
    };
    let forbidden = |capability: &str| capability != "NET_BIND_SERVICE";
    let (keeping, adding) = (names(pod, |c| !drops_all(c)), names(pod, |c| added(c).any(forbidden)));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", listed(&keeping)));
    }
    if !adding.is_empty() {
        let values = every(pod).flat_map(|(_, c)| added(c)).filter(|c| forbidden(c)).map(str::to_owned).collect();
        let values = quoted(&sorted(values));
        details.push(format!("{} must not include {values} in securityContext.capabilities.add", listed(&adding)));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn seccomp_restricted(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < 19 || (minor >= 25 && is_windows(pod)) {
        return None;
    }
    if let Some(explicit) = seccomp_baseline(pod, minor) {
        return Some(explicit);
    }
    if seccomp(&pod["spec"]["securityContext"]).is_some() {
        return None;
    }
    let bad = names(pod, |c| seccomp(&c["securityContext"]).is_none());
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        listed(&bad)
    );
    violation("seccompProfile", detail)
}

pub(super) fn privilege_escalation(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < 8 || (minor >= 25 && is_windows(pod)) {
        return None;
    }
    let bad = names(pod, |c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", listed(&bad));
    violation("allowPrivilegeEscalation != false", detail)
}

pub(super) fn restricted_volumes(pod: &Value, _: u32) -> Option<Violation> {
    const ALLOWED: &[&str] = &[
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let source = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten().filter(|(_, value)| value.is_object());
        fields.map(|(key, _)| key.clone()).find(|key| key != "name")
    };
    let bad: Vec<(&str, String)> = volumes(pod)
        .filter(|volume| !ALLOWED.iter().any(|kind| volume[*kind].is_object()))
        .map(|volume| (text(volume, "name"), source(volume).unwrap_or_else(|| "unknown".to_owned())))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let kinds = sorted(bad.iter().map(|(_, kind)| kind.clone()).collect());
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    violation("restricted volume types", detail)
}

pub(super) fn run_as_non_root(pod: &Value, minor: u32) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if minor >= 35 && own_users(pod) {
        return None;
    }
    let own = pod["spec"]["securityContext"]["runAsNonRoot"].as_bool();
    let of = |c: &Value| c["securityContext"]["runAsNonRoot"].as_bool();
    if let Some(who) = setters(own == Some(false), &names(pod, |c| of(c) == Some(false))) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = names(pod, |c| of(c).is_none());
    if own == Some(true) || silent.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", listed(&silent)))
}

pub(super) fn run_as_user(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < 23 || (minor >= 35 && own_users(pod)) {
        return None;
    }
    let root = |context: &Value| context["runAsUser"] == 0;
    let who = setters(root(&pod["spec"]["securityContext"]), &names(pod, |c| root(&c["securityContext"])))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
