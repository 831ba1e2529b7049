//! Defaults of pods and pod templates (`SetDefaults_Pod`, `SetDefaults_PodSpec`, `SetDefaults_Container`, …).

use serde_json::Value;

use crate::strategy::fill::Lit::{Bool, Int, Object, Str};
use crate::strategy::fill::{Rows, each, fill, fill_at, has, text, with};
use crate::strategy::{persistent_volume_claim as claim, resources};

const SPEC: Rows = &[
    ("dnsPolicy", Str("ClusterFirst")),
    ("restartPolicy", Str("Always")),
    ("securityContext", Object),
    ("terminationGracePeriodSeconds", Int(30)),
    ("schedulerName", Str("default-scheduler")),
];
const CONTAINER: Rows = &[
    ("terminationMessagePath", Str("/dev/termination-log")),
    ("terminationMessagePolicy", Str("File")),
    ("resources", Object),
];
const PROBE: Rows = &[
    ("timeoutSeconds", Int(1)),
    ("periodSeconds", Int(10)),
    ("successThreshold", Int(1)),
    ("failureThreshold", Int(3)),
];
const HTTP_GET: Rows = &[("path", Str("/")), ("scheme", Str("HTTP"))];
const GRPC: Rows = &[("service", Str(""))];
const PROTOCOL: Rows = &[("protocol", Str("TCP"))];
const FIELD_REF: Rows = &[("apiVersion", Str("v1"))];
const MODE: Rows = &[("defaultMode", Int(0o644))];
const TOKEN: Rows = &[("expirationSeconds", Int(3600))];
/// Volume sources with defaults of their own, for pods and persistent volumes alike.
const SOURCES: &[(&str, Rows)] = &[
    ("secret", MODE),
    ("configMap", MODE),
    ("downwardAPI", MODE),
    ("projected", MODE),
    ("hostPath", &[("type", Str(""))]),
    ("iscsi", &[("iscsiInterface", Str("default"))]),
    ("rbd", &[("pool", Str("rbd")), ("user", Str("admin")), ("keyring", Str("/etc/ceph/keyring"))]),
    (
        "azureDisk",
        &[
            ("cachingMode", Str("ReadWrite")),
            ("fsType", Str("ext4")),
            ("kind", Str("Shared")),
            ("readOnly", Bool(false)),
        ],
    ),
    ("scaleIO", &[("fsType", Str("xfs")), ("storageMode", Str("ThinProvisioned"))]),
];
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// A pod: the spec's defaults and those that templates do not get.
pub fn pod(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|s| s.is_object()) else { return };
    self::spec(spec);
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| with(container, "resources", resources::requests_from_limits));
    }
    resources::default_pod_level(spec);
    fill(spec, &[("enableServiceLinks", Bool(true))]);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            each(spec, list, |container| each(container, "ports", host_port));
        }
    }
}

/// A pod template: `{metadata, spec}`.
pub fn template(template: &mut Value) {
    fill(template, &[("metadata", Object), ("spec", Object)]);
    with(template, "spec", spec);
}

/// What pods and pod templates share.
pub fn spec(spec: &mut Value) {
    fill(spec, SPEC);
    service_account(spec);
    for list in CONTAINER_LISTS {
        each(spec, list, container);
    }
    each(spec, "volumes", volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are written, the new one rules.
fn service_account(spec: &mut Value) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !name.is_empty() {
        spec["serviceAccount"] = name.as_str().into();
        spec["serviceAccountName"] = name.into();
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    fill(container, &[("imagePullPolicy", Str(policy))]);
    fill(container, CONTAINER);
    with(container, "resources", resources::round_up);
    each(container, "ports", |port| fill(port, PROTOCOL));
    each(container, "env", |env| {
        with(env, "valueFrom", |source| {
            fill_at(source, "fieldRef", FIELD_REF);
            fill_at(source, "fileKeyRef", &[("optional", Bool(false))]);
        });
    });
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        with(container, probe, |probe| {
            fill(probe, PROBE);
            fill_at(probe, "httpGet", HTTP_GET);
            fill_at(probe, "grpc", GRPC);
        });
    }
    with(container, "lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            with(lifecycle, hook, |hook| fill_at(hook, "httpGet", HTTP_GET));
        }
    });
}

/// `Always` for the tag `latest`, given or implied; a reference that does not parse counts as pinned.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let path_start = name.rfind('/').map_or(0, |i| i + 1);
    let (repository, tag) = match name[path_start..].split_once(':') {
        Some((last, tag)) => (format!("{}{last}", &name[..path_start]), Some(tag)),
        None => (name.to_owned(), None),
    };
    let path = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => &repository,
    };
    let parses =
        !path.is_empty() && path.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-/".contains(&b));
    match (parses, tag, digest) {
        (true, Some("latest"), _) | (true, None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// One entry of `spec.volumes`.
fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|v| v.iter().all(|(field, source)| field == "name" || source.is_null())) {
        volume["emptyDir"] = Value::Object(serde_json::Map::new());
    }
    volume_source(volume);
    with(volume, "image", |image| {
        let policy = pull_policy(text(image, "reference"));
        fill(image, &[("pullPolicy", Str(policy))]);
    });
    with(volume, "ephemeral", |ephemeral| {
        with(ephemeral, "volumeClaimTemplate", |template| {
            fill(template, &[("metadata", Object)]);
            with(template, "spec", claim::default_spec);
        });
    });
    with(volume, "downwardAPI", |source| each(source, "items", field_item));
    with(volume, "projected", |projected| {
        each(projected, "sources", |source| {
            fill_at(source, "serviceAccountToken", TOKEN);
            with(source, "downwardAPI", |source| each(source, "items", field_item));
        });
    });
}

/// The fields of a volume source that pods and persistent volumes default alike.
pub fn volume_source(holder: &mut Value) {
    for (source, rows) in SOURCES {
        fill_at(holder, source, rows);
    }
}

fn field_item(item: &mut Value) {
    fill_at(item, "fieldRef", FIELD_REF);
}

fn host_port(port: &mut Value) {
    if let Some(number) = port.get("containerPort").cloned().filter(|_| !has(port, "hostPort")) {
        port["hostPort"] = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        for (image, policy) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("reg:5000/a", "Always"),
            ("reg:5000/a:1", "IfNotPresent"),
            ("a@sha256:00", "IfNotPresent"),
            ("a:latest@sha256:00", "Always"),
            ("UPPER", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
