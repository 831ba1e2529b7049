//! Cells of storage kinds.

use serde_json::Value;

use crate::meta;
use crate::table::View;
use crate::table::text::or;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

fn access_modes(view: &View, pointer: &str) -> String {
    let given = view.list(pointer);
    let short: Vec<&str> = MODES.iter().filter(|(mode, _)| given.iter().any(|g| g == mode)).map(|(_, s)| *s).collect();
    short.join(",")
}

/// The class by annotation of old, else by field.
fn class<'a>(view: &View<'a>) -> &'a str {
    let annotated = meta::annotations(view.object).and_then(|a| a.get(CLASS_ANNOTATION)).and_then(Value::as_str);
    annotated.unwrap_or_else(|| view.text("/spec/storageClassName"))
}

fn phase<'a>(view: &View<'a>) -> &'a str {
    if meta::deletion_timestamp(view.object).is_some() { "Terminating" } else { view.text("/status/phase") }
}

pub fn persistent_volume(view: &View) -> Vec<Value> {
    let claim = view.at("/spec/claimRef");
    let claim = if claim.is_null() {
        String::new()
    } else {
        format!("{}/{}", view.text("/spec/claimRef/namespace"), view.text("/spec/claimRef/name"))
    };
    vec![
        or(view.text("/spec/capacity/storage"), "0").into(),
        access_modes(view, "/spec/accessModes").into(),
        view.text("/spec/persistentVolumeReclaimPolicy").into(),
        phase(view).into(),
        claim.into(),
        class(view).into(),
        or(view.text("/spec/volumeAttributesClassName"), "<unset>").into(),
        view.text("/status/reason").into(),
        view.age(),
        or(view.text("/spec/volumeMode"), "<unset>").into(),
    ]
}

pub fn persistent_volume_claim(view: &View) -> Vec<Value> {
    let volume = view.text("/spec/volumeName");
    let (capacity, modes) = if volume.is_empty() {
        (String::new(), String::new())
    } else {
        let capacity = or(view.text("/status/capacity/storage"), "0").to_owned();
        (capacity, access_modes(view, "/status/accessModes"))
    };
    vec![
        phase(view).into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class(view).into(),
        or(view.text("/spec/volumeAttributesClassName"), "<unset>").into(),
        view.age(),
        or(view.text("/spec/volumeMode"), "<unset>").into(),
    ]
}

pub fn storage_class_name(view: &View) -> Value {
    const KEYS: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    default_class_name(view, &KEYS)
}

/// The name, marked when one of the annotations says that the class is the default.
pub fn default_class_name(view: &View, keys: &[&str]) -> Value {
    let name = meta::name(view.object);
    let is_default = |key: &&str| meta::annotations(view.object).and_then(|a| a.get(*key)).is_some_and(|v| v == "true");
    if keys.iter().any(is_default) { format!("{name} (default)").into() } else { name.into() }
}

pub fn token_audiences(view: &View) -> Value {
    if view.at("/spec/tokenRequests").is_null() {
        return "<unset>".into();
    }
    let audiences: Vec<&str> =
        view.list("/spec/tokenRequests").iter().map(|t| t["audience"].as_str().unwrap_or_default()).collect();
    audiences.join(",").into()
}

pub fn lifecycle_modes(view: &View) -> Value {
    let modes: Vec<&str> = view.list("/spec/volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    or(&modes.join(","), "<none>").into()
}
