//! Rules of a container's volume mounts and devices (`ValidateVolumeMounts`, `ValidateVolumeDevices`).

use serde_json::Value;

use super::containers::Scope;
use crate::field::Error;
use crate::strategy::fill::has;
use crate::strategy::place::{Errors, Place};
use crate::strategy::volume_source::local_descending;

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const RECURSIVE_READ_ONLY: &[&str] = &["Disabled", "Enabled", "IfPossible"];

pub fn rules(container: &Place, scope: &Scope, errors: &mut Errors) {
    let (mounts, devices) = (container.field("volumeMounts"), container.field("volumeDevices"));
    let privileged = container.field("securityContext").field("privileged").is_true();
    let mut paths: Vec<&str> = Vec::new();
    for mount in mounts.items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        name.require(errors);
        if !scope.volumes.iter().any(|(volume, _)| *volume == name.str()) {
            errors.push(Error::new(crate::field::ErrorKind::NotFound, name.path(), name.str(), ""));
        }
        path.require(errors);
        if paths.contains(&path.str()) {
            errors.push(path.invalid("must be unique"));
        }
        paths.push(path.str());
        if any(&devices, "name", name.str()) {
            errors.push(name.invalid("must not already exist in volumeDevices"));
        }
        if any(&devices, "devicePath", path.str()) {
            errors.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        sub_path(&mounts, &mount, errors);
        propagation(&mounts, &mount, privileged, errors);
    }
    self::devices(&devices, &mounts, scope, errors);
}

fn any(list: &Place, field: &str, text: &str) -> bool {
    list.list().iter().any(|item| item.get(field).and_then(Value::as_str).unwrap_or_default() == text)
}

/// Upstream reports these at the list, without an index.
fn sub_path(mounts: &Place, mount: &Place, errors: &mut Errors) {
    let (path, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
    if !path.is_empty() {
        local_descending(&mounts.named("subPath", path.value), errors);
    }
    if !expression.is_empty() {
        if !path.is_empty() {
            errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
        }
        local_descending(&mounts.named("subPathExpr", expression.value), errors);
    }
}

fn propagation(mounts: &Place, mount: &Place, privileged: bool, errors: &mut Errors) {
    let propagation = mounts.named("mountPropagation", mount.field("mountPropagation").value);
    propagation.one_of(PROPAGATIONS, errors);
    if propagation.str() == "Bidirectional" && !privileged {
        errors
            .push(propagation.forbidden("Bidirectional mount propagation is available only to privileged containers"));
    }
    let recursive = mounts.named("recursiveReadOnly", mount.field("recursiveReadOnly").value);
    recursive.one_of(RECURSIVE_READ_ONLY, errors);
    if !["Enabled", "IfPossible"].contains(&recursive.str()) {
        return;
    }
    if !mount.field("readOnly").is_true() {
        errors.push(recursive.forbidden("may only be specified when readOnly is true"));
    }
    if !["", "None"].contains(&propagation.str()) {
        errors.push(recursive.forbidden("may only be specified when mountPropagation is None or not specified"));
    }
}

fn devices(devices: &Place, mounts: &Place, scope: &Scope, errors: &mut Errors) {
    let (mut names, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for device in devices.items() {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        name.require(errors);
        if names.contains(&name.str()) {
            errors.push(name.invalid("must be unique"));
        }
        match scope.volumes.iter().find(|(volume, _)| *volume == name.str()) {
            None => errors.push(Error::new(crate::field::ErrorKind::NotFound, name.path(), name.str(), "")),
            Some((_, volume)) if !has(volume, "persistentVolumeClaim") && !has(volume, "ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(name.invalid(detail));
            }
            Some(_) => {}
        }
        path.require(errors);
        if paths.contains(&path.str()) {
            errors.push(path.invalid("must be unique"));
        }
        if path.str().split('/').any(|part| part == "..") {
            errors.push(path.invalid("can not contain backsteps ('..')"));
        } else {
            paths.push(path.str());
        }
        if any(mounts, "name", name.str()) {
            errors.push(name.invalid("must not already exist in volumeMounts"));
        }
        if any(mounts, "mountPath", path.str()) {
            errors.push(path.invalid("must not already exist as a path in volumeMounts"));
        }
        if !name.is_empty() {
            names.push(name.str());
        }
    }
}
