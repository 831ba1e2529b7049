//! Rules of pod templates, and of the annotations that pods and templates share.

use super::containers;
use super::spec::{self, Of};
use crate::field::Error;
use crate::strategy::place::{Errors, Place};
use crate::strategy::{metadata, volume_source};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// `ValidatePodTemplateSpec`. Labels and annotations are reported without `metadata`, as upstream does.
pub fn rules(template: &Place, errors: &mut Errors) {
    let metadata = template.field("metadata");
    let labels = template.named("labels", metadata.field("labels").value);
    let annotations = template.named("annotations", metadata.field("annotations").value);
    let spec = template.field("spec");
    metadata::labels(&labels, errors);
    metadata::annotations(&annotations, errors);
    self::annotations(&annotations, &spec, errors);
    spec::rules(&spec, Of::Template, errors);
    let ephemeral = spec.field("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

/// `validatePodMetadataAndSpec`, metadata aside.
pub fn pod_rules(pod: &Place, errors: &mut Errors) {
    let (metadata, spec) = (pod.field("metadata"), pod.field("spec"));
    annotations(&metadata.field("annotations"), &spec, errors);
    spec::rules(&spec, Of::Pod { name: metadata.field("name").str() }, errors);
    if spec.field("serviceAccountName").is_empty() {
        for volume in spec.field("volumes").items() {
            let projected = volume.field("projected");
            for source in projected.field("sources").items() {
                let token = source.field("serviceAccountToken");
                if token.is_set() {
                    errors.push(token.forbidden("must not be specified when serviceAccountName is not set"));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.field(list).items() {
            containers::image_untrimmed(&container, errors);
        }
    }
}

/// `ValidatePodSpecificAnnotations`.
pub fn annotations(annotations: &Place, spec: &Place, errors: &mut Errors) {
    for (key, annotation) in annotations.entries() {
        let text = annotation.str();
        if key == MIRROR && spec.field("nodeName").is_empty() {
            errors.push(annotation.invalid("must set spec.nodeName if mirror pod annotation is set"));
        } else if key == DELETION_COST && !is_deletion_cost(text) {
            errors.push(annotation.invalid("must be a 32bit integer"));
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp_profile(&annotations.named(key, annotation.value), errors);
        } else if let Some(name) = key.strip_prefix(APP_ARMOR) {
            let lists = ["containers", "initContainers", "ephemeralContainers"];
            let found = lists.iter().any(|l| spec.field(l).list().iter().any(|c| c["name"] == name));
            if !found {
                errors.push(Error::invalid(annotation.path(), name, "container not found"));
            }
            let known = text.is_empty() || ["runtime/default", "unconfined"].contains(&text);
            if !known && !text.starts_with("localhost/") {
                errors.push(annotation.invalid(format!("invalid AppArmor profile name: {text:?}")));
            }
        }
    }
}

fn is_deletion_cost(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text == "0" || (digits.starts_with(|c: char| ('1'..='9').contains(&c)) && text.parse::<i32>().is_ok())
}

fn seccomp_profile(profile: &Place, errors: &mut Errors) {
    match profile.str() {
        "runtime/default" | "docker/default" | "unconfined" => {}
        text => match text.strip_prefix("localhost/") {
            Some(path) => {
                let value = path.into();
                let mut found = Errors::new();
                volume_source::local_descending(&Place::root(&value), &mut found);
                errors.extend(found.into_iter().map(|error| profile.invalid(error.detail)));
            }
            None => errors.push(profile.invalid("must be a valid seccomp profile")),
        },
    }
}
