//! The checks of the pod security standards, each with the versions it holds for. Names, order and texts follow
//! upstream's `pod-security-admission/policy`. Pure: a pod or pod template in, violations out.

mod restricted;

use std::collections::BTreeSet;

use serde_json::Value;

use super::policy::{Level, LevelVersion};
use api::quota::containers;
use restricted::seccomp_restricted;
use restricted::{capabilities_restricted, privilege_escalation, restricted_volumes, run_as_non_root, run_as_user};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

type Check = fn(&Value, u32) -> Option<Violation>;

/// By check id, as upstream sorts them.
const BASELINE: &[(&str, Check)] = &[
    ("appArmorProfile", app_armor),
    ("capabilities_baseline", capabilities_baseline),
    ("hostNamespaces", host_namespaces),
    ("hostPathVolumes", host_path),
    ("hostPorts", host_ports),
    ("hostProbesAndHostLifecycle", probe_hosts),
    ("privileged", privileged),
    ("procMount", proc_mount),
    ("seLinuxOptions", se_linux),
    ("seccompProfile_baseline", seccomp_baseline),
    ("sysctls", sysctls),
    ("windowsHostProcess", windows_host_process),
];

const RESTRICTED: &[(&str, Check)] = &[
    ("allowPrivilegeEscalation", privilege_escalation),
    ("capabilities_restricted", capabilities_restricted),
    ("restrictedVolumes", restricted_volumes),
    ("runAsNonRoot", run_as_non_root),
    ("runAsUser", run_as_user),
    ("seccompProfile_restricted", seccomp_restricted),
];

/// Baseline checks that a restricted one takes the place of, from this minor version on.
const OVERRIDDEN: &[(&str, u32)] =
    &[("capabilities_baseline", 22), ("hostPathVolumes", 0), ("seccompProfile_baseline", 19)];

pub fn all(level: LevelVersion, pod: &Value) -> Vec<Violation> {
    let minor = level.minor();
    let overridden = |id: &str| OVERRIDDEN.iter().any(|(other, since)| *other == id && minor >= *since);
    let run = |(_, check): &(&str, Check)| check(pod, minor);
    match level.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => BASELINE.iter().filter_map(run).collect(),
        Level::Restricted => {
            let baseline = BASELINE.iter().filter(|(id, _)| !overridden(id));
            baseline.chain(RESTRICTED).filter_map(run).collect()
        }
    }
}

fn every(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let found = containers(pod, &["initContainers", "containers", "ephemeralContainers"]);
    found.map(|container| (container["name"].as_str().unwrap_or_default(), container))
}

/// The names of the containers `bad` holds for.
fn names(pod: &Value, bad: impl Fn(&Value) -> bool) -> Vec<&str> {
    every(pod).filter(|(_, container)| bad(container)).map(|(name, _)| name).collect()
}

fn quoted<S: AsRef<str>>(items: &[S]) -> String {
    items.iter().map(|item| format!("{:?}", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
fn listed(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

fn violation(reason: &'static str, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation { reason, detail: detail.into() })
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn sorted(items: BTreeSet<String>) -> Vec<String> {
    items.into_iter().collect()
}

/// The pod and the containers that set something forbidden.
fn setters(pod_sets: bool, containers: &[&str]) -> Option<String> {
    let mut who = Vec::new();
    if pod_sets {
        who.push("pod".to_owned());
    }
    if !containers.is_empty() {
        who.push(listed(containers));
    }
    (!who.is_empty()).then(|| who.join(" and "))
}

fn is_windows(pod: &Value) -> bool {
    pod["spec"]["os"]["name"] == "windows"
}

/// Own user namespace: root inside is nobody outside.
fn own_users(pod: &Value) -> bool {
    pod["spec"]["hostUsers"] == false
}

fn app_armor(pod: &Value, _: u32) -> Option<Violation> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let bad = |context: &Value| {
        let kind = text(&context["appArmorProfile"], "type");
        (!matches!(kind, "" | "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let mut values: BTreeSet<String> = bad(&pod["spec"]["securityContext"]).into_iter().collect();
    let pod_sets = !values.is_empty();
    let containers = names(pod, |c| bad(&c["securityContext"]).is_some());
    values.extend(every(pod).filter_map(|(_, c)| bad(&c["securityContext"])));
    let mut values = sorted(values);
    let mut who: Vec<String> = setters(pod_sets, &containers).into_iter().collect();
    let annotations = api::meta::annotations(pod).into_iter().flatten();
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let mut forbidden: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with(PREFIX))
        .filter_map(|(key, value)| Some((key, value.as_str().filter(|v| !allowed(v))?)))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !forbidden.is_empty() {
        forbidden.sort();
        who.push(plural("annotation", "annotations", forbidden.len()).to_owned());
        values.extend(forbidden);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)))
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    container["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn capabilities_baseline(pod: &Value, _: u32) -> Option<Violation> {
    const ALLOWED: &[&str] = &[
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let forbidden = |capability: &str| !ALLOWED.contains(&capability);
    let bad = names(pod, |c| added(c).any(forbidden));
    if bad.is_empty() {
        return None;
    }
    let values = every(pod).flat_map(|(_, c)| added(c)).filter(|c| forbidden(c)).map(str::to_owned).collect();
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", listed(&bad), quoted(&sorted(values)));
    violation("non-default capabilities", detail)
}

fn host_namespaces(pod: &Value, _: u32) -> Option<Violation> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod["spec"][*field] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["spec"]["volumes"].as_array().into_iter().flatten()
}

fn host_path(pod: &Value, _: u32) -> Option<Violation> {
    let bad: Vec<&str> = volumes(pod).filter(|v| v["hostPath"].is_object()).map(|v| text(v, "name")).collect();
    if bad.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", bad.len()), quoted(&bad)))
}

fn host_ports(pod: &Value, _: u32) -> Option<Violation> {
    let ports = |c: &Value| -> Vec<i64> {
        let ports = c["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect()
    };
    let bad = names(pod, |c| !ports(c).is_empty());
    if bad.is_empty() {
        return None;
    }
    let used = sorted(every(pod).flat_map(|(_, c)| ports(c)).map(|port| port.to_string()).collect());
    let uses = plural("uses", "use", bad.len());
    let what = plural("hostPort", "hostPorts", used.len());
    violation("hostPort", format!("{} {uses} {what} {}", listed(&bad), used.join(", ")))
}

fn probe_hosts(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < 34 {
        return None;
    }
    let hosts = |c: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &c[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &c["lifecycle"][hook]);
        let handlers = probes.into_iter().chain(hooks);
        let hosts = handlers.flat_map(|h| [text(&h["httpGet"], "host"), text(&h["tcpSocket"], "host")]);
        hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let bad: BTreeSet<&str> = names(pod, |c| !hosts(c).is_empty()).into_iter().collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let used = sorted(every(pod).flat_map(|(_, c)| hosts(c)).collect());
    let uses = plural("uses", "use", bad.len());
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", used.len());
    violation("probe or lifecycle host", format!("{} {uses} {what} {}", listed(&bad), quoted(&used)))
}

fn privileged(pod: &Value, _: u32) -> Option<Violation> {
    let bad = names(pod, |c| c["securityContext"]["privileged"] == true);
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", listed(&bad)))
}

fn proc_mount(pod: &Value, minor: u32) -> Option<Violation> {
    if minor >= 35 && own_users(pod) {
        return None;
    }
    let kind = |c: &Value| text(&c["securityContext"], "procMount").to_owned();
    let forbidden = |kind: &str| !matches!(kind, "" | "Default");
    let bad = names(pod, |c| forbidden(&kind(c)));
    if bad.is_empty() {
        return None;
    }
    let used = sorted(every(pod).map(|(_, c)| kind(c)).filter(|kind| forbidden(kind)).collect());
    violation("procMount", format!("{} must not set securityContext.procMount to {}", listed(&bad), quoted(&used)))
}

fn se_linux(pod: &Value, minor: u32) -> Option<Violation> {
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (minor >= 31 && kind == "container_engine_t")
    };
    let options = |context: &Value| context["seLinuxOptions"].clone();
    let bad = |o: &Value| !allowed(text(o, "type")) || !text(o, "user").is_empty() || !text(o, "role").is_empty();
    let own = options(&pod["spec"]["securityContext"]);
    let containers = names(pod, |c| bad(&options(&c["securityContext"])));
    let who = setters(bad(&own), &containers)?;
    let all: Vec<Value> = std::iter::once(own).chain(every(pod).map(|(_, c)| options(&c["securityContext"]))).collect();
    let kinds = all.iter().map(|o| text(o, "type")).filter(|kind| !allowed(kind)).map(str::to_owned).collect();
    let kinds = sorted(kinds);
    let mut data = Vec::new();
    if !kinds.is_empty() {
        data.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(&kinds)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|o| !text(o, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

fn seccomp(context: &Value) -> Option<&str> {
    context["seccompProfile"]["type"].as_str()
}

fn seccomp_forbidden(kind: &str) -> bool {
    !matches!(kind, "RuntimeDefault" | "Localhost")
}

fn seccomp_baseline(pod: &Value, minor: u32) -> Option<Violation> {
    if minor < 19 {
        return seccomp_annotations(pod);
    }
    let own = seccomp(&pod["spec"]["securityContext"]).filter(|kind| seccomp_forbidden(kind));
    let of = |c: &Value| seccomp(&c["securityContext"]).filter(|kind| seccomp_forbidden(kind)).map(str::to_owned);
    let who = setters(own.is_some(), &names(pod, |c| of(c).is_some()))?;
    let used = own.map(str::to_owned).into_iter().chain(every(pod).filter_map(|(_, c)| of(c))).collect();
    let used = quoted(&sorted(used));
    violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {used}"))
}

/// Before there was a field.
fn seccomp_annotations(pod: &Value) -> Option<Violation> {
    let allowed = |v: &str| matches!(v, "runtime/default" | "docker/default") || v.starts_with("localhost/");
    let annotations = api::meta::annotations(pod).into_iter().flatten();
    let ours = annotations.filter(|(key, _)| {
        let container = key.strip_prefix("container.seccomp.security.alpha.kubernetes.io/");
        *key == "seccomp.security.alpha.kubernetes.io/pod"
            || container.is_some_and(|name| every(pod).any(|(other, _)| other == name))
    });
    let bad = ours.filter_map(|(key, value)| Some((key, value.as_str().filter(|v| !allowed(v))?)));
    let bad = sorted(bad.map(|(key, value)| format!("{key}={value:?}")).collect());
    if bad.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", bad.len());
    violation("seccompProfile", format!("forbidden {what} {}", bad.join(", ")))
}

fn sysctls(pod: &Value, minor: u32) -> Option<Violation> {
    const ALLOWED: &[(&str, u32)] = &[
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
    ];
    let set = pod["spec"]["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let allowed = |name: &str| ALLOWED.iter().any(|(other, since)| *other == name && minor >= *since);
    let bad: Vec<&str> = set.map(|sysctl| text(sysctl, "name")).filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Value, _: u32) -> Option<Violation> {
    let set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let who = setters(set(&pod["spec"]["securityContext"]), &names(pod, |c| set(&c["securityContext"])))?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(level: Level, version: Option<u32>, spec: Value, expected: &[&str]) {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec});
        let found = all(LevelVersion { level, version }, &pod);
        let texts: Vec<String> = found.iter().map(|v| format!("{} ({})", v.reason, v.detail)).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn baseline_finds_each_way_out() {
        let baseline = |spec, expected: &[&str]| check(Level::Baseline, None, spec, expected);
        baseline(json!({"containers": [{"name": "c"}]}), &[]);
        baseline(json!({"hostPID": true, "hostNetwork": true}), &["host namespaces (hostNetwork=true, hostPID=true)"]);
        baseline(
            json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}),
            &[r#"hostPort (container "c" uses hostPort 80)"#],
        );
        baseline(
            json!({"containers": [{"name": "a", "securityContext": {"privileged": true}},
                                  {"name": "b", "securityContext": {"privileged": true}}]}),
            &[r#"privileged (containers "a", "b" must not set securityContext.privileged=true)"#],
        );
        baseline(
            json!({"securityContext": {"seLinuxOptions": {"type": "y", "user": "x"}}}),
            &[r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "y"; user may not be set)"#],
        );
        baseline(
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
            &["forbidden sysctls (kernel.msgmax)"],
        );
    }

    #[test]
    fn restricted_asks_for_what_must_be_said() {
        let plain = json!({"containers": [{"name": "c"}]});
        let escalation = r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)"#;
        let capabilities =
            r#"unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])"#;
        let root = r#"runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)"#;
        let seccomp = r#"seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#;
        check(Level::Restricted, None, plain.clone(), &[escalation, capabilities, root, seccomp]);
        check(Level::Restricted, Some(20), plain.clone(), &[escalation, root, seccomp]);
        check(Level::Privileged, None, plain, &[]);
        let good = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext":
                {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        });
        check(Level::Restricted, None, good, &[]);
    }
}
