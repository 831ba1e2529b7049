//! Why an object that was deleted is still there: finalizers, each with who should take it off.

use serde_json::Value;

use crate::chain::Cause;
use crate::look::{Look, be, counted, items, kubectl, names, text};
use crate::world::Found;

pub fn causes(look: &Look, object: &Value) -> Vec<Cause> {
    let mut causes: Vec<Cause> = api::meta::finalizers(object).map(|f| finalizer(look, object, f)).collect();
    if causes.is_empty() {
        let message = "it is marked for deletion without a finalizer, and whoever watches over it has yet to let it go";
        causes.push(Cause::new("DeletionUnderWay", message).about(object));
    }
    causes
}

fn finalizer(look: &Look, object: &Value, finalizer: &str) -> Cause {
    let held = Cause::new("Finalizer", String::new()).about(object);
    let with = |message: String| Cause { message, ..held.clone() };
    match finalizer {
        "foregroundDeletion" => foreground(look, object),
        "orphan" => Cause {
            reason: "Orphaning".into(),
            ..with("the garbage collector has yet to take it out of its dependents' owners (finalizer orphan)".into())
        },
        "kubernetes.io/pvc-protection" => claim_in_use(look, object),
        "kubernetes.io/pv-protection" => volume_in_use(look, object),
        "customresourcecleanup.apiextensions.k8s.io" => instances(look, object),
        "service.kubernetes.io/load-balancer-cleanup" => with(
            "its load balancer must be taken down first (finalizer service.kubernetes.io/load-balancer-cleanup), \
             which whoever made it does"
                .into(),
        )
        .fix("if nobody does any more", remove(object, finalizer)),
        "batch.kubernetes.io/job-tracking" => job_tracking(look, object),
        other => with(format!("the finalizer {other} must be taken off by whoever put it there, and was not"))
            .fix("if that one is gone; what it would clean up is left behind", remove(object, other)),
    }
}

/// Takes off one finalizer, whatever its place in the list.
pub fn remove(object: &Value, finalizer: &str) -> String {
    let left: Vec<String> =
        api::meta::finalizers(object).filter(|f| *f != finalizer).map(|f| format!("\"{f}\"")).collect();
    let name = format!("{}/{}", text(&object["kind"]).to_lowercase(), api::meta::name(object));
    let patch = format!("{{\"metadata\":{{\"finalizers\":[{}]}}}}", left.join(","));
    kubectl(api::meta::namespace(object), &format!("patch {name} --type=merge -p '{patch}'"))
}

/// The dependents that the owner waits for. They can be of any kind of its namespace.
fn foreground(look: &Look, object: &Value) -> Cause {
    let uid = api::meta::uid(object);
    let holds = |dependent: &&Value| {
        items(&dependent["metadata"]["ownerReferences"]).any(|o| o["uid"] == uid && o["blockOwnerDeletion"] == true)
    };
    let namespace = api::meta::namespace(object);
    let kinds = look.world.kinds.in_namespaces().filter(|k| *k.resource.resource != *"events");
    let dependents: Vec<&Value> =
        kinds.flat_map(|kind| look.world.select_of(kind, namespace, "", "")).filter(holds).collect();
    let message = match dependents.len() {
        0 => "it goes after its dependents (deleted in the foreground), of which none is left".to_owned(),
        n => format!("it goes after its dependents (deleted in the foreground), of which {n} {} left", be(n)),
    };
    let cause = Cause::new("ForegroundDeletion", message).about(object);
    let below = dependents.iter().take(3).map(|dependent| {
        let message = match api::meta::deletion_timestamp(dependent) {
            Some(_) => "is Terminating",
            None => "is not deleted yet",
        };
        Cause::new("Dependent", message).about(dependent).because(look.why(dependent))
    });
    let fix = kubectl(
        namespace,
        &format!("delete {}/{} --cascade=orphan", text(&object["kind"]).to_lowercase(), api::meta::name(object)),
    );
    cause.because(below.collect::<Vec<_>>()).fix("lets it go now and leaves the dependents", fix)
}

fn claim_in_use(look: &Look, claim: &Value) -> Cause {
    let (namespace, name) = (api::meta::namespace(claim), api::meta::name(claim));
    let uses = |pod: &&Value| {
        let over = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
        !over && items(&pod["spec"]["volumes"]).any(|v| v["persistentVolumeClaim"]["claimName"] == name)
    };
    let pods: Vec<&str> = look.world.list("pods", namespace).iter().filter(uses).map(api::meta::name).collect();
    let cause = |message| Cause::new("ClaimInUse", message).about(claim);
    match pods.as_slice() {
        [] => cause("no pod uses it any more, and the protection controller has yet to let it go".to_owned()),
        pods => cause(format!(
            "{} still {} it: {}",
            counted(pods.len(), "pod"),
            if pods.len() == 1 { "uses" } else { "use" },
            names(pods)
        ))
        .fix("or scale down what owns it", kubectl(namespace, &format!("delete pod {}", pods.join(" ")))),
    }
}

fn volume_in_use(look: &Look, volume: &Value) -> Cause {
    let claim = &volume["spec"]["claimRef"];
    let (namespace, name) = (text(&claim["namespace"]), text(&claim["name"]));
    let cause = |message: String| Cause::new("VolumeInUse", message).about(volume);
    match look.world.get("persistentvolumeclaims", namespace, name) {
        Found::Here(claim) => cause(format!("the claim {namespace}/{name} is bound to it"))
            .because(if api::meta::deletion_timestamp(claim).is_some() { look.why(claim) } else { Vec::new() })
            .fix(
                "deletes the claim, and with it the right to the data",
                kubectl(namespace, &format!("delete pvc {name}")),
            ),
        _ => cause("no claim is bound to it any more, and the protection controller has yet to let it go".to_owned()),
    }
}

/// The objects of a kind whose definition goes.
fn instances(look: &Look, definition: &Value) -> Cause {
    let (plural, group) = (text(&definition["spec"]["names"]["plural"]), text(&definition["spec"]["group"]));
    let objects = look.world.list(&format!("{plural}.{group}"), "");
    let message = match objects.len() {
        0 => "its objects are being deleted".to_owned(),
        n => format!("its objects go first, and {n} {} left", be(n)),
    };
    let below: Vec<Cause> = objects
        .iter()
        .filter(|o| api::meta::deletion_timestamp(o).is_some())
        .take(3)
        .map(|o| Cause::new("Instance", "is Terminating").about(o).because(look.why(o)))
        .collect();
    Cause::new("InstancesRemain", message).about(definition).because(below)
}

fn job_tracking(look: &Look, pod: &Value) -> Cause {
    let owner = items(&pod["metadata"]["ownerReferences"]).find(|o| o["kind"] == "Job");
    let job = owner.map(|o| text(&o["name"])).unwrap_or_default();
    let gone = look.world.get("jobs.batch", api::meta::namespace(pod), job).is_absent();
    let message = match gone {
        true => format!("its Job {job} is gone before it was counted (finalizer batch.kubernetes.io/job-tracking)"),
        false => format!("the Job {job} has yet to count it (finalizer batch.kubernetes.io/job-tracking)"),
    };
    Cause::new("JobTracking", message)
        .about(pod)
        .fix("if no Job controller runs", remove(pod, "batch.kubernetes.io/job-tracking"))
}
