//! Why a claim has no volume, and what else can be wrong with storage.

use api::quantity::Quantity;
use api::selector::LabelSelector;
use serde_json::Value;

use crate::chain::Cause;
use crate::look::{Look, condition_is, counted, items, kubectl, names, text};
use crate::world::Found;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// The claims of a pod without a node that have no volume, or don't exist. One that waits for its pod is no cause.
pub fn unbound_of(look: &Look, pod: &Value) -> Vec<Cause> {
    let namespace = api::meta::namespace(pod);
    let mut causes = Vec::new();
    for volume in items(&pod["spec"]["volumes"]) {
        let name = match (volume["persistentVolumeClaim"]["claimName"].as_str(), volume.get("ephemeral")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(_)) => format!("{}-{}", api::meta::name(pod), text(&volume["name"])),
            (None, None) => continue,
        };
        match look.world.get("persistentvolumeclaims", namespace, &name) {
            Found::Absent => {
                let message = format!(
                    "the PersistentVolumeClaim {name}, for its volume {}, does not exist",
                    text(&volume["name"])
                );
                let apply = "apply -f CLAIM.yaml";
                causes.push(Cause::new("ClaimMissing", message).about(pod).fix("", kubectl(namespace, apply)));
            }
            Found::Here(claim) if api::meta::deletion_timestamp(claim).is_some() => {
                causes.push(
                    Cause::new("ClaimTerminating", ", for its volume, is being deleted")
                        .about(claim)
                        .because(look.why(claim)),
                );
            }
            Found::Here(claim) if claim["status"]["phase"] != "Bound" && !waits_for_pod(look, claim) => {
                causes.push(Cause::new("ClaimPending", "has no volume yet").about(claim).because(look.why(claim)));
            }
            Found::Here(_) | Found::Unknown => {}
        }
    }
    causes
}

fn waits_for_pod(look: &Look, claim: &Value) -> bool {
    let class = class(look, claim);
    let waits = class.is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer");
    waits && claim["metadata"]["annotations"][SELECTED_NODE].is_null() && text(&claim["spec"]["volumeName"]).is_empty()
}

fn class<'w>(look: &Look<'w>, claim: &Value) -> Option<&'w Value> {
    let name = claim["spec"]["storageClassName"].as_str().filter(|n| !n.is_empty())?;
    look.world.get("storageclasses.storage.k8s.io", "", name).here()
}

pub fn claim(look: &Look, claim: &Value) -> Vec<Cause> {
    let (namespace, name) = (api::meta::namespace(claim), api::meta::name(claim));
    let cause = |reason: &str, message: String| Cause::new(reason, message).about(claim);
    match text(&claim["status"]["phase"]) {
        "Bound" => return growing(claim).into_iter().collect(),
        "Lost" => {
            let volume = text(&claim["spec"]["volumeName"]);
            let message = format!("the volume {volume} that it was bound to does not exist any more, nor do its data");
            return vec![
                cause("VolumeLost", message)
                    .fix("a new one can be made in its place", kubectl(namespace, &format!("delete pvc {name}"))),
            ];
        }
        _ => {}
    }
    let wanted_volume = text(&claim["spec"]["volumeName"]);
    if !wanted_volume.is_empty() {
        return named_volume(look, claim, wanted_volume);
    }
    match claim["spec"]["storageClassName"].as_str() {
        Some(class_name) if !class_name.is_empty() => {
            match look.world.get("storageclasses.storage.k8s.io", "", class_name) {
                Found::Absent => {
                    let classes: Vec<&str> =
                        look.world.list("storageclasses.storage.k8s.io", "").iter().map(api::meta::name).collect();
                    let others = if classes.is_empty() {
                        "there is none at all".to_owned()
                    } else {
                        format!("there are {}", names(&classes))
                    };
                    let message = format!("the StorageClass {class_name} that it names does not exist; {others}");
                    let static_fit = volumes(look, claim);
                    let fix = "a claim cannot change its class: make it anew";
                    vec![
                        cause("StorageClassMissing", message)
                            .because(static_fit)
                            .fix(fix, "kubectl get storageclasses"),
                    ]
                }
                Found::Here(class) => provisioned(look, claim, class),
                Found::Unknown => Vec::new(),
            }
        }
        class_name => {
            let none = class_name.is_none();
            let message = match none {
                true => "it names no StorageClass, no class is the default, and no volume without class fits",
                false => "it wants a volume without class, and none that is free fits",
            };
            let causes = volumes(look, claim);
            let cause = cause(if none { "NoDefaultClass" } else { "NoVolumeFits" }, message.to_owned()).because(causes);
            let classes = look.world.list("storageclasses.storage.k8s.io", "");
            vec![match classes.first().filter(|_| none) {
                Some(class) => {
                    let patch = format!(
                        "kubectl patch storageclass {} -p '{{\"metadata\":{{\"annotations\":{{\"{DEFAULT_CLASS}\":\"true\"}}}}}}'",
                        api::meta::name(class)
                    );
                    cause.fix("claims without a class get it then", patch)
                }
                None => cause.fix("with a volume for it", "kubectl apply -f VOLUME.yaml"),
            }]
        }
    }
}

fn named_volume(look: &Look, claim: &Value, volume_name: &str) -> Vec<Cause> {
    let (namespace, name) = (api::meta::namespace(claim), api::meta::name(claim));
    match look.world.get("persistentvolumes", "", volume_name) {
        Found::Absent => {
            let message = format!("it asks for the volume {volume_name}, which does not exist");
            vec![Cause::new("VolumeMissing", message).about(claim).fix("", "kubectl get pv")]
        }
        Found::Here(volume) => {
            let owner = &volume["spec"]["claimRef"];
            let taken = !owner.is_null() && (text(&owner["namespace"]), text(&owner["name"])) != (namespace, name);
            let why = match taken {
                true => Some(format!("is bound to the claim {}/{}", text(&owner["namespace"]), text(&owner["name"]))),
                false => unfit(claim, volume),
            };
            why.map(|why| Cause::new("VolumeUnfit", why).about(volume)).into_iter().collect()
        }
        Found::Unknown => Vec::new(),
    }
}

/// The class exists: something is to make the volume, or a pod is waited for.
fn provisioned(look: &Look, claim: &Value, class: &Value) -> Vec<Cause> {
    let (namespace, name) = (api::meta::namespace(claim), api::meta::name(claim));
    let cause = |reason: &str, message: String| Cause::new(reason, message).about(claim);
    let class_name = api::meta::name(class);
    if waits_for_pod(look, claim) {
        let uses =
            |pod: &&Value| items(&pod["spec"]["volumes"]).any(|v| v["persistentVolumeClaim"]["claimName"] == name);
        let pods: Vec<&Value> = look.world.list("pods", namespace).iter().filter(uses).collect();
        let Some(pod) = pods.first() else {
            let message =
                format!("its class {class_name} makes the volume when a pod needs it, and no pod uses it yet");
            return vec![cause("WaitForFirstConsumer", message)];
        };
        let message = "uses it, and the volume is made where that pod will run";
        return vec![Cause::new("WaitForPodScheduled", message).about(pod).because(look.why(pod))];
    }
    let provisioner = text(&class["provisioner"]);
    if let Some(event) = look.event(claim, &["ProvisioningFailed"]) {
        let message = format!("its provisioner {provisioner} failed: {}", text(&event["message"]));
        return vec![cause("ProvisioningFailed", message)];
    }
    if provisioner == "kubernetes.io/no-provisioner" {
        let message = format!("its class {class_name} makes no volumes, and none that is there fits");
        return vec![
            cause("NoVolumeFits", message)
                .because(volumes(look, claim))
                .fix("with a volume for it", "kubectl apply -f VOLUME.yaml"),
        ];
    }
    let driver = look.world.get("csidrivers.storage.k8s.io", "", provisioner);
    let installed =
        if driver.is_absent() { ", of which there is no sign in this cluster (no CSIDriver of this name)" } else { "" };
    let message = format!("it waits for a volume from {provisioner}{installed}");
    vec![
        cause("WaitingForProvisioner", message)
            .because(volumes(look, claim))
            .fix("where the provisioner runs", "kubectl get pods -A | grep -i -e csi -e provisioner"),
    ]
}

/// The volumes there are, and why none of them will do; told together by reason.
fn volumes(look: &Look, claim: &Value) -> Vec<Cause> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for volume in look.world.list("persistentvolumes", "") {
        let why = unfit(claim, volume).unwrap_or_else(|| "fits, and will be taken".to_owned());
        match groups.iter_mut().find(|(other, _)| *other == why) {
            Some((_, volumes)) => volumes.push(api::meta::name(volume)),
            None => groups.push((why, vec![api::meta::name(volume)])),
        }
    }
    let told = groups.into_iter().map(|(why, volumes)| {
        Cause::new("VolumeUnfit", format!("{} ({}): {why}", counted(volumes.len(), "volume"), names(&volumes)))
    });
    told.collect()
}

/// Why a volume is not for a claim.
fn unfit(claim: &Value, volume: &Value) -> Option<String> {
    let (wants, has) = (&claim["spec"], &volume["spec"]);
    let owner = &has["claimRef"];
    let own =
        text(&owner["namespace"]) == api::meta::namespace(claim) && text(&owner["name"]) == api::meta::name(claim);
    if !owner.is_null() && !own {
        return Some("taken by another claim".to_owned());
    }
    let (class, of) = (text(&wants["storageClassName"]), text(&has["storageClassName"]));
    if class != of {
        return Some(if of.is_empty() { "without class".to_owned() } else { format!("of the class {of}") });
    }
    let modes: Vec<&str> = items(&has["accessModes"]).map(text).collect();
    if let Some(mode) = items(&wants["accessModes"]).map(text).find(|mode| !modes.contains(mode)) {
        return Some(format!("not {mode}, only {}", modes.join(", ")));
    }
    let amount = |value: &Value| Quantity::parse(text(value)).ok();
    let (wanted, size) = (amount(&wants["resources"]["requests"]["storage"]), amount(&has["capacity"]["storage"]));
    if let (Some(wanted), Some(size)) = (wanted, size)
        && size < wanted
    {
        return Some(format!("too small, {size} where {wanted} are asked for"));
    }
    let mode = |spec: &Value| spec["volumeMode"].as_str().unwrap_or("Filesystem").to_owned();
    if mode(wants) != mode(has) {
        return Some(format!("of the mode {}", mode(has)));
    }
    let selector = LabelSelector::from_object(wants.get("selector").filter(|s| !s.is_null()));
    if wants["selector"].is_object() && selector.is_ok_and(|s| !s.matches(api::meta::labels(volume))) {
        return Some("without the labels that it selects by".to_owned());
    }
    None
}

/// A bound claim that is to become larger.
fn growing(claim: &Value) -> Option<Cause> {
    if let Some(condition) = condition_is(claim, "FileSystemResizePending", "True") {
        let message = format!(
            "its volume is larger, and its file system grows when a pod that uses it is started anew: {}",
            text(&condition["message"])
        );
        return Some(Cause::new("FileSystemResizePending", message).about(claim));
    }
    let error = condition_is(claim, "ControllerResizeError", "True")
        .or_else(|| condition_is(claim, "NodeResizeError", "True"))?;
    Some(Cause::new("ResizeFailed", format!("it cannot grow: {}", text(&error["message"]))).about(claim))
}

pub fn volume(look: &Look, volume: &Value) -> Vec<Cause> {
    let name = api::meta::name(volume);
    let owner = &volume["spec"]["claimRef"];
    let claim = format!("{}/{}", text(&owner["namespace"]), text(&owner["name"]));
    match text(&volume["status"]["phase"]) {
        "Released" if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" => {
            let told = look
                .event(volume, &["VolumeFailedDelete"])
                .map(|e| format!(": {}", text(&e["message"])))
                .unwrap_or_default();
            vec![
                Cause::new(
                    "Released",
                    format!("its claim {claim} is gone, and it is to be deleted by its provisioner{told}"),
                )
                .about(volume),
            ]
        }
        "Released" => {
            let message =
                format!("its claim {claim} is gone, and it keeps that claim's data and name (reclaim policy Retain)");
            let patch =
                format!("kubectl patch pv {name} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'");
            vec![
                Cause::new("Released", message)
                    .about(volume)
                    .fix("gives it to whoever asks next, with what is on it", patch),
            ]
        }
        "Failed" => {
            vec![
                Cause::new(
                    "ReclaimFailed",
                    format!("it could not be deleted or cleaned: {}", text(&volume["status"]["message"])),
                )
                .about(volume),
            ]
        }
        _ => Vec::new(),
    }
}

pub fn attachment(look: &Look, attachment: &Value) -> Vec<Cause> {
    let (spec, status) = (&attachment["spec"], &attachment["status"]);
    let (driver, node) = (text(&spec["attacher"]), text(&spec["nodeName"]));
    let error = text(&status["attachError"]["message"]);
    if !error.is_empty() {
        let message = format!("{driver} cannot attach the volume to {node}: {error}");
        return vec![Cause::new("AttachFailed", message).about(attachment)];
    }
    if status["attached"] == true {
        return Vec::new();
    }
    if look.world.get("nodes", "", node).is_absent() {
        let message = format!("its node {node} does not exist");
        return vec![Cause::new("NodeMissing", message).about(attachment)];
    }
    let message = format!("{driver} has yet to attach the volume to {node}");
    vec![Cause::new("Attaching", message).about(attachment).fix("where it runs", "kubectl get pods -A | grep -i csi")]
}
