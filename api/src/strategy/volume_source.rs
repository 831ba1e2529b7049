//! Volume sources that pods and persistent volumes share: which fields each needs, and the few rules beyond that.

use super::format;
use super::place::{Errors, Place};
use crate::field::Error;

pub const MODE_MAX: i64 = 0o777;
const MODE_DETAIL: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const MORE_THAN_ONE: &str = "may not specify more than 1 volume type";
const DISK_URI_MANAGED: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const DISK_URI_BLOB: &str = "https://{account-name}.blob.windows.net/{container-name}/{disk-name}.vhd";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Fields that must not be empty, by source; `a.b` is `b` of `a` when `a` is given.
const REQUIRED: &[(&str, &[&str])] = &[
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID", "secretRef.name"]),
    ("cephfs", &["monitors"]),
    ("quobyte", &["volume"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName", "secretRef.name"]),
    ("local", &["path"]),
];

/// Runs `rules` on the first of `sources` that `holder` has and refuses the others; false when it has none.
pub fn one_of(
    holder: &Place,
    sources: &[&str],
    errors: &mut Errors,
    mut rules: impl FnMut(&str, &Place, &mut Errors),
) -> bool {
    let mut found = false;
    for source in sources {
        let place = holder.field(source);
        if !place.is_set() {
            continue;
        }
        if found {
            // Upstream misspells two of its own fields here.
            let name = match *source {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                name => name,
            };
            errors.push(holder.field(name).forbidden(MORE_THAN_ONE));
            continue;
        }
        found = true;
        let reported = if *source == "gcePersistentDisk" { "persistentDisk" } else { source };
        let place = holder.named(reported, place.value);
        required(source, &place, errors);
        rules(source, &place, errors);
        own_rules(source, &place, errors);
    }
    found
}

fn required(source: &str, place: &Place, errors: &mut Errors) {
    let rows = REQUIRED.iter().filter(|(name, _)| *name == source).flat_map(|(_, fields)| fields.iter());
    for field in rows {
        match field.split_once('.') {
            Some((outer, inner)) => {
                let outer = place.field(outer);
                if outer.is_set() {
                    outer.field(inner).require(errors);
                }
            }
            None => {
                place.field(field).require(errors);
            }
        }
    }
}

/// What a source asks beyond required fields, the same in pods and persistent volumes.
fn own_rules(source: &str, place: &Place, errors: &mut Errors) {
    match source {
        "hostPath" => {
            no_backsteps(&place.field("path"), errors);
            place.field("type").one_of(HOST_PATH_TYPES, errors);
        }
        "gitRepo" => local_descending(&place.field("directory"), errors),
        "gcePersistentDisk" | "awsElasticBlockStore" => place.field("partition").in_range(0, 255, errors),
        "nfs" if !place.field("path").str().starts_with('/') => {
            errors.push(place.field("path").invalid("must be an absolute path"));
        }
        "local" => no_backsteps(&place.field("path"), errors),
        "iscsi" => iscsi(place, errors),
        "fc" => fibre_channel(place, errors),
        "flocker" => flocker(place, errors),
        "quobyte" => quobyte(place, errors),
        "flexVolume" => flex(place, errors),
        "azureDisk" => azure_disk(place, errors),
        "storageos" => {
            for name in ["volumeName", "volumeNamespace"] {
                let name = place.field(name);
                if !name.is_empty() {
                    format::check(&name, format::label, errors);
                }
            }
        }
        _ => {}
    }
}

fn iscsi(place: &Place, errors: &mut Errors) {
    let iqn = place.field("iqn");
    if !iqn.is_empty() {
        initiator(&iqn, errors);
    }
    place.field("lun").in_range(0, 255, errors);
    let authenticates = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|f| place.field(f).is_true());
    if authenticates && !place.field("secretRef").is_set() {
        errors.push(place.field("secretRef").required(""));
    }
    let name = place.field("initiatorName");
    if name.is_set() {
        initiator(&place.named("initiatorname", name.value), errors);
    }
}

fn initiator(name: &Place, errors: &mut Errors) {
    let text = name.str();
    let alphanumeric =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let valid = match text.get(..3) {
        Some("iqn") => is_iqn(text),
        Some("eui") => text.get(4..).is_some_and(|rest| alphanumeric(rest, 16)),
        Some("naa") => text.get(4..).is_some_and(|rest| alphanumeric(rest, 32)),
        _ => {
            errors.push(name.invalid("must be valid format starting with iqn, eui, or naa"));
            return;
        }
    };
    if !valid {
        errors.push(name.invalid("must be valid format"));
    }
}

/// `iqn.YYYY-MM.domain[:name]`.
fn is_iqn(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("iqn.") else { return false };
    let (domain, name) = rest.split_once(':').map_or((rest, None), |(d, n)| (d, Some(n)));
    let Some((date, domain)) = domain.split_once('.') else { return false };
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    dated
        && !domain.is_empty()
        && domain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && name.is_none_or(|n| !n.is_empty() && !n.contains([',', ';', '*', '&', '$', '|', ' ']))
}

fn fibre_channel(place: &Place, errors: &mut Errors) {
    let targets = place.field("targetWWNs");
    match (targets.is_empty(), place.field("wwids").is_empty()) {
        (true, true) => errors.push(targets.required("must specify either targetWWNs or wwids, but not both")),
        (false, false) => errors.push(targets.invalid("targetWWNs and wwids can not be specified simultaneously")),
        _ => {}
    }
    if !targets.is_empty() {
        let lun = place.field("lun");
        if lun.is_set() {
            lun.in_range(0, 255, errors);
        } else {
            errors.push(lun.required("lun is required if targetWWNs is specified"));
        }
    }
}

fn flocker(place: &Place, errors: &mut Errors) {
    let name = place.field("datasetName");
    match (name.is_empty(), place.field("datasetUUID").is_empty()) {
        (true, true) => errors.push(place.required("one of datasetName and datasetUUID is required")),
        (false, false) => errors.push(Error::invalid(
            place.path(),
            "resource",
            "datasetName and datasetUUID can not be specified simultaneously",
        )),
        _ => {}
    }
    if name.str().contains('/') {
        errors.push(name.invalid("must not contain '/'"));
    }
}

fn quobyte(place: &Place, errors: &mut Errors) {
    const REGISTRY: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = place.field("registry");
    if registry.is_empty() {
        errors.push(registry.required(REGISTRY));
    } else if place.field("tenant").str().len() > 64 {
        errors.push(place.field("tenant").required("must be a UUID and may not exceed a length of 64 characters"));
    } else {
        for _ in registry.str().split(',').filter(|pair| !pair.contains(':')) {
            errors.push(registry.invalid(REGISTRY));
        }
    }
}

fn flex(place: &Place, errors: &mut Errors) {
    let options = place.field("options");
    for (key, option) in options.entries() {
        let namespace = format!(".{}", key.split_once('/').map_or(key, |(n, _)| n).to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(option.path(), key, detail));
        }
    }
}

fn azure_disk(place: &Place, errors: &mut Errors) {
    place.field("cachingMode").one_of(&["None", "ReadOnly", "ReadWrite"], errors);
    let (kind, uri) = (place.field("kind"), place.field("diskURI"));
    kind.one_of(&["Dedicated", "Managed", "Shared"], errors);
    let (prefix, supported) = match kind.str() {
        "Managed" => ("/subscriptions/", DISK_URI_MANAGED),
        _ => ("https://", DISK_URI_BLOB),
    };
    if kind.is_set() && !uri.str().starts_with(prefix) {
        errors.push(uri.not_supported(&[supported]));
    }
}

/// File permissions.
pub fn mode(mode: &Place, errors: &mut Errors) {
    if mode.int().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        errors.push(mode.invalid(MODE_DETAIL));
    }
}

/// `validatePathNoBacksteps`.
pub fn no_backsteps(path: &Place, errors: &mut Errors) {
    if path.str().split('/').any(|part| part == "..") {
        errors.push(path.invalid("must not contain '..'"));
    }
}

/// `validateLocalDescendingPath`.
pub fn local_descending(path: &Place, errors: &mut Errors) {
    if path.str().starts_with('/') {
        errors.push(path.invalid("must be a relative path"));
    }
    no_backsteps(path, errors);
}

/// `ValidateLocalNonReservedPath`.
pub fn local_unreserved(path: &Place, errors: &mut Errors) {
    local_descending(path, errors);
    if path.str().starts_with("..") && !path.str().starts_with("../") {
        errors.push(path.invalid("must not start with '..'"));
    }
}

/// `ValidateCSIDriverName`.
pub fn csi_driver_name(name: &Place, errors: &mut Errors) {
    const NAME_MAX_BYTES: usize = 63;
    if !name.require(errors) {
        return;
    }
    if name.str().len() > NAME_MAX_BYTES {
        errors.push(name.too_long(NAME_MAX_BYTES));
    }
    errors.extend(format::subdomain(&name.str().to_lowercase()).into_iter().map(|problem| name.invalid(problem)));
}
