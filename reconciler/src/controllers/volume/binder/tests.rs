//! Claims and volumes as text, and what the binder does about them.

use std::sync::Arc;

use api_client::Snapshot;
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::plan::{self, ForClaim, ForVolume};
use super::steps::Step;
use crate::controllers::volume::annotations;

fn set(object: &mut Value, word: &str) {
    let (name, value) = word.split_once('=').unwrap_or((word, "yes"));
    let modes = || -> Value {
        let long = |m: &str| match m {
            "RWO" => "ReadWriteOnce",
            "ROX" => "ReadOnlyMany",
            _ => "ReadWriteMany",
        };
        value.split(',').map(long).collect()
    };
    match name {
        "modes" => object["spec"]["accessModes"] = modes(),
        "class" => object["spec"]["storageClassName"] = value.into(),
        "mode" => object["spec"]["volumeMode"] = value.into(),
        "policy" => object["spec"]["persistentVolumeReclaimPolicy"] = value.into(),
        "phase" => object["status"]["phase"] = value.into(),
        "volume" => object["spec"]["volumeName"] = value.into(),
        "label" => object["metadata"]["labels"] = json!({"tier": value}),
        "selector" => object["spec"]["selector"] = json!({"matchLabels": {"tier": value}}),
        "node" => object["metadata"]["annotations"][annotations::SELECTED_NODE] = value.into(),
        "made-by" => object["metadata"]["annotations"][annotations::PROVISIONED_BY] = value.into(),
        "completed" => object["metadata"]["annotations"][annotations::BIND_COMPLETED] = "yes".into(),
        "by-controller" => object["metadata"]["annotations"][annotations::BOUND_BY_CONTROLLER] = "yes".into(),
        "ref" => {
            let (claim, uid) = value.split_once(':').unwrap_or((value, ""));
            object["spec"]["claimRef"] = json!({"namespace": "a", "name": claim, "uid": uid});
        }
        _ => panic!("unknown word {word}"),
    }
}

/// `NAME SIZE [WORD...]`
fn object(text: &str, size_at: &str) -> Value {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap();
    let mut object = json!({
        "metadata": {"name": name, "uid": format!("{name}-uid"), "resourceVersion": "7"},
        "spec": {"accessModes": ["ReadWriteOnce"]},
    });
    *object.pointer_mut("/spec").unwrap().as_object_mut().unwrap().entry(size_at).or_insert(json!({})) = match size_at {
        "capacity" => json!({"storage": words.next().unwrap()}),
        _ => json!({"requests": {"storage": words.next().unwrap()}}),
    };
    words.for_each(|word| set(&mut object, word));
    object
}

fn volume(text: &str) -> Arc<PersistentVolume> {
    let mut object = object(text, "capacity");
    if object["status"]["phase"].is_null() {
        object["status"]["phase"] = "Available".into();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

fn claim(text: &str) -> PersistentVolumeClaim {
    let mut object = object(text, "resources");
    object["metadata"]["namespace"] = "a".into();
    serde_json::from_value(object).unwrap()
}

fn shown(steps: Vec<Step>) -> String {
    let short = |mut patch: Value| {
        if let Some(metadata) = patch["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            metadata.remove("uid");
        }
        let mut text = patch.to_string();
        for known in ["pv.kubernetes.io/", "volume.kubernetes.io/", "volume.beta.kubernetes.io/"] {
            text = text.replace(known, "");
        }
        text
    };
    let line = |step: Step| match step {
        Step::Volume { key, patch } => format!("volume {} {}", key.name, short(patch)),
        Step::VolumeStatus { key, patch } => format!("volume {} is {}", key.name, patch["status"]),
        Step::Claim { key, patch } => format!("claim {} {}", key.name, short(patch)),
        Step::ClaimStatus { key, patch } => format!("claim {} is {}", key.name, patch["status"]),
        Step::Event { reason, message, .. } => format!("{reason}: {message}"),
    };
    steps.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn class(name: &str) -> Option<Arc<StorageClass>> {
    let (provisioner, mode) = match name {
        "fast" => ("driver.example.com", "Immediate"),
        "late" => ("driver.example.com", "WaitForFirstConsumer"),
        "old" => ("kubernetes.io/gce-pd", "Immediate"),
        "none" => ("kubernetes.io/no-provisioner", "Immediate"),
        _ => return None,
    };
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
    Some(Arc::new(serde_json::from_value(class).unwrap()))
}

fn steps_of(text: &str, volumes: &[&str], default_class: Option<&str>, waiting_pod: Option<&str>) -> Vec<Step> {
    let volumes = Snapshot::of(volumes.iter().map(|text| volume(text)).map(Arc::unwrap_or_clone), &[]);
    plan::claim(&ForClaim { claim: &claim(text), volumes: &volumes, class: &class, default_class, waiting_pod })
}

fn check_claim(text: &str, volumes: &[&str], expected: Expect) {
    expected.assert_eq(&shown(steps_of(text, volumes, None, None)));
}

/// The volume a claim is bound to.
fn check_choice(text: &str, volumes: &[&str], expected: &str) {
    let steps = steps_of(text, volumes, None, None);
    let chosen = steps.iter().find_map(|step| match step {
        Step::Volume { key, .. } => Some(key.name.clone()),
        _ => None,
    });
    assert_eq!(chosen.as_deref().unwrap_or("-"), expected, "{text}");
}

#[test]
fn both_halves_are_written_and_what_is_there_is_not_written_again() {
    check_claim(
        "data 1Gi",
        &["v 2Gi"],
        expect![[r#"
            volume v {"metadata":{"annotations":{"bound-by-controller":"yes"}},"spec":{"claimRef":{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"data","namespace":"a","resourceVersion":"7","uid":"data-uid"}}}
            volume v is {"message":null,"phase":"Bound"}
            claim data {"metadata":{"annotations":{"bind-completed":"yes","bound-by-controller":"yes"}},"spec":{"volumeName":"v"}}
            claim data is {"accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"},"phase":"Bound"}"#]],
    );
    check_claim(
        "data 1Gi volume=v completed",
        &["v 2Gi ref=data:data-uid phase=Bound"],
        expect![[r#"claim data is {"accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"},"phase":"Bound"}"#]],
    );
}

#[test]
fn the_smallest_that_fits_is_taken() {
    check_choice("data 2Gi", &["big 9Gi", "fit 3Gi", "small 1Gi"], "fit");
    check_choice("data 2Gi", &["fit 3Gi ref=other", "big 9Gi"], "big");
    check_choice("data 2Gi", &["mine 9Gi ref=data", "fit 2Gi"], "mine");
    check_choice("data 2Gi", &["lost 9Gi ref=data:earlier-uid"], "-");
    check_choice("data 2Gi", &["v 2Gi phase=Released"], "-");
    check_choice("data 2Gi class=x", &["v 2Gi", "x 5Gi class=x"], "x");
    check_choice("data 2Gi mode=Block", &["v 2Gi", "b 5Gi mode=Block"], "b");
    check_choice("data 2Gi selector=gold", &["v 2Gi", "g 5Gi label=gold"], "g");
    check_choice("data 2Gi", &["many 2Gi modes=RWO,RWX", "one 5Gi"], "one");
    check_choice("data 2Gi modes=RWX", &["one 2Gi", "many 5Gi modes=RWO,RWX"], "many");
}

#[test]
fn without_a_volume_somebody_is_asked_for_one() {
    check_claim(
        "data 1Gi",
        &[],
        expect![[r#"
            FailedBinding: no persistent volumes available for this claim and no storage class is set
            claim data is {"phase":"Pending"}"#]],
    );
    check_claim(
        "data 1Gi class=fast phase=Pending",
        &[],
        expect![[r#"
            claim data {"metadata":{"annotations":{"storage-provisioner":"driver.example.com","storage-provisioner":"driver.example.com"}}}
            ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'driver.example.com' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."#]],
    );
    check_claim(
        "data 1Gi class=none phase=Pending",
        &[],
        expect!["ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"],
    );
    check_claim(
        "data 1Gi class=gone phase=Pending",
        &[],
        expect![[r#"ProvisioningFailed: storageclass.storage.k8s.io "gone" not found"#]],
    );
    let text = shown(steps_of("data 1Gi class=old phase=Pending", &[], None, None));
    assert!(text.contains("pd.csi.storage.gke.io"), "{text}");
}

#[test]
fn the_default_class_comes_late_but_comes() {
    let check = |text: &str, expected: Expect| expected.assert_eq(&shown(steps_of(text, &[], Some("fast"), None)));
    check("data 1Gi", expect![[r#"claim data {"metadata":{},"spec":{"storageClassName":"fast"}}"#]]);
    check(
        "data 1Gi class= phase=Pending",
        expect!["FailedBinding: no persistent volumes available for this claim and no storage class is set"],
    );
}

#[test]
fn a_class_that_waits_leaves_the_choice_to_the_scheduler() {
    check_claim(
        "data 1Gi class=late phase=Pending",
        &["v 2Gi class=late"],
        expect!["WaitForFirstConsumer: waiting for first consumer to be created before binding"],
    );
    let steps = steps_of("data 1Gi class=late phase=Pending", &[], None, Some("web-1"));
    assert_eq!(shown(steps), "WaitForPodScheduled: waiting for pod web-1 to be scheduled");
    check_choice("data 1Gi class=late", &["v 2Gi class=late ref=data"], "v");
    let text = shown(steps_of("data 1Gi class=late node=n1 phase=Pending", &[], None, None));
    assert!(text.contains("ExternalProvisioning"), "{text}");
}

#[test]
fn a_named_volume_is_taken_if_it_will_do() {
    check_claim("data 1Gi volume=v phase=Pending", &[], expect![""]);
    check_choice("data 1Gi volume=v", &["v 2Gi"], "v");
    let check = |volume: &str, expected: &str| {
        let text = shown(steps_of("data 2Gi volume=v phase=Pending", &[volume], None, None));
        assert_eq!(text, expected);
    };
    let mismatch = |why: &str| format!("VolumeMismatch: Cannot bind to requested volume \"v\": {why}");
    check("v 1Gi", &mismatch("requested PV is too small"));
    check("v 2Gi class=x", &mismatch("storageClassName does not match"));
    check("v 2Gi mode=Block", &mismatch("incompatible volumeMode"));
    check("v 2Gi modes=RWX", &mismatch("incompatible accessMode"));
    check("v 2Gi ref=other", "FailedBinding: volume \"v\" already bound to a different claim.");
}

#[test]
fn a_bound_claim_without_its_volume_is_lost_once() {
    check_claim(
        "data 1Gi volume=v completed phase=Bound",
        &[],
        expect![[r#"
            claim data is {"phase":"Lost"}
            ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!"#]],
    );
    check_claim("data 1Gi volume=v completed phase=Lost", &[], expect![""]);
    let text = shown(steps_of("data 1Gi volume=v completed phase=Bound", &["v 1Gi ref=data:x"], None, None));
    assert!(text.contains("ClaimMisbound"), "{text}");
}

#[test]
fn a_volume_follows_its_claim() {
    let check = |text: &str, of: Option<&str>, expected: Expect| {
        let claim = of.map(claim);
        let (steps, half_done) = plan::volume(&ForVolume { volume: &volume(text), claim: claim.as_ref() });
        let also = half_done.map(|key| format!("look at {}", key.name)).unwrap_or_default();
        expected.assert_eq(&[shown(steps), also].join(""));
    };
    check("v 1Gi phase=Pending", None, expect![[r#"volume v is {"message":null,"phase":"Available"}"#]]);
    check("v 1Gi ref=data", None, expect![""]);
    check("v 1Gi ref=data:data-uid", Some("data 1Gi"), expect!["look at data"]);
    check(
        "v 1Gi ref=data:data-uid",
        Some("data 1Gi volume=v"),
        expect![[r#"volume v is {"message":null,"phase":"Bound"}"#]],
    );
    let released = [
        expect![[r#"volume v is {"message":null,"phase":"Released"}"#]],
        expect![[r#"volume v is {"message":null,"phase":"Released"}"#]],
    ];
    for (policy, released) in ["", " policy=Delete made-by=driver"].iter().zip(released) {
        check(&format!("v 1Gi ref=data:data-uid phase=Bound{policy}"), None, released);
    }
    check(
        "v 1Gi ref=data:data-uid phase=Released policy=Delete",
        None,
        expect![[r#"
            volume v is {"message":"error getting deleter volume plugin for volume \"v\": no volume plugin matched","phase":"Failed"}
            VolumeFailedDelete: error getting deleter volume plugin for volume "v": no volume plugin matched"#]],
    );
    check("v 1Gi ref=data:data-uid phase=Failed policy=Delete", None, expect![""]);
    check(
        "v 1Gi ref=data:data-uid phase=Bound by-controller",
        Some("data 1Gi volume=other"),
        expect![[r#"
            volume v {"metadata":{"annotations":{"bound-by-controller":null}},"spec":{"claimRef":null}}
            volume v is {"message":null,"phase":"Available"}"#]],
    );
}
