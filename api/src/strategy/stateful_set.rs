//! StatefulSet.

use serde_json::{Value, json};

use super::fill::Lit::{Int, Object, Str};
use super::fill::{Rows, each, fill, text, with};
use super::place::{Errors, Place};
use super::pod::{defaults, template};
use super::{Context, NameRule, Strategy, format, metadata, persistent_volume_claim as claim, warnings, workload};
use crate::meta;

const SPEC: Rows = &[
    ("podManagementPolicy", Str("OrderedReady")),
    ("updateStrategy", Object),
    ("persistentVolumeClaimRetentionPolicy", Object),
    ("replicas", Int(1)),
    ("revisionHistoryLimit", Int(10)),
];
const RETENTION: Rows = &[("whenDeleted", Str("Retain")), ("whenScaled", Str("Retain"))];
const RETENTION_POLICIES: &[&str] = &["Retain", "Delete"];
const COUNTS: &[&str] = &[
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
];
/// What a change of the spec may touch.
const UPDATABLE: &[&str] = &[
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

pub struct StatefulSet;

impl Strategy for StatefulSet {
    /// Pods are named after it.
    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }
    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = meta::child_mut(object, "spec");
        fill(spec, SPEC);
        with(spec, "updateStrategy", |strategy| {
            if text(strategy, "type").is_empty() {
                fill(strategy, &[("type", Str("RollingUpdate")), ("rollingUpdate", Object)]);
            }
            if text(strategy, "type") == "RollingUpdate" {
                with(strategy, "rollingUpdate", |rolling| fill(rolling, &[("partition", Int(0))]));
            }
        });
        with(spec, "persistentVolumeClaimRetentionPolicy", |policy| fill(policy, RETENTION));
        defaults::template(meta::child_mut(spec, "template"));
        each(spec, "volumeClaimTemplates", |template| {
            template["apiVersion"] = "v1".into();
            template["kind"] = "PersistentVolumeClaim".into();
            claim::default(template);
        });
    }

    fn rules(&self, object: &Place, ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        update_strategy(&spec, errors);
        let retention = spec.field("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            retention.field(field).one_of(RETENTION_POLICIES, errors);
        }
        for count in ["replicas", "minReadySeconds"] {
            spec.field(count).nonnegative(errors);
        }
        spec.field("ordinals").field("start").nonnegative(errors);
        workload::selector(&spec, "empty selector is invalid for statefulset", errors);
        if ctx.verb == super::Verb::Create {
            for template in spec.field("volumeClaimTemplates").items() {
                claim::spec_rules(&template.field("spec"), errors);
            }
            let service = spec.field("serviceName");
            if !service.is_empty() {
                format::check(&service, format::label, errors);
            }
        }
        if workload::selects_template(&spec, errors) {
            template(&spec, errors);
        }
        workload::lasting(&spec.field("template"), "StatefulSet", errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let (spec, before) = (new.field("spec"), old.field("spec"));
        if !workload::only_changed(&spec, &before, UPDATABLE) {
            errors.push(spec.forbidden(
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            ));
        }
    }

    fn status_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        let fields = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        workload::status_counts(new, COUNTS, errors);
        workload::within_replicas(new, &fields, errors);
        workload::available_within_ready(new, errors);
        workload::collisions(new, old, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _ctx: &Context) -> Vec<String> {
        warnings::workload(object, old, "spec.template")
    }
}

fn update_strategy(spec: &Place, errors: &mut Errors) {
    let management = spec.field("podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&management.str()) {
        errors.push(management.invalid("must be 'OrderedReady' or 'Parallel'"));
    }
    let strategy = spec.field("updateStrategy");
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").str() {
        "" => errors.push(strategy.required("")),
        "OnDelete" if rolling.is_set() => {
            errors.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.field("partition").nonnegative(errors);
            let unavailable = rolling.field("maxUnavailable");
            if unavailable.is_set() {
                workload::count_or_percent(&unavailable, errors);
                if workload::is_zero(&unavailable) {
                    errors.push(unavailable.invalid("cannot be 0"));
                }
                workload::at_most_all(&unavailable, errors);
            }
        }
        _ => errors.push(strategy.invalid("must be 'RollingUpdate' or 'OnDelete'")),
    }
}

/// The template with what the controller adds to its pods: volumes of the claims, host name and subdomain of its own.
fn template(spec: &Place, errors: &mut Errors) {
    let place = spec.field("template");
    let claims = spec.field("volumeClaimTemplates");
    let mut completed = place.value.clone();
    if !completed.is_object() {
        completed = json!({});
    }
    let pod = meta::child_mut(&mut completed, "spec");
    for field in ["hostname", "subdomain"] {
        meta::object_mut(pod).remove(field);
    }
    let names: Vec<&str> = claims.items().map(|c| c.field("metadata").field("name").str()).collect();
    if !names.is_empty() {
        let own: Vec<Value> = pod.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        let kept = own.into_iter().filter(|volume| !names.contains(&text(volume, "name")));
        let added = names.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        pod["volumes"] = added.chain(kept).collect();
    }
    template::rules(&place.with_value(&completed), errors);
    // Upstream checks these a second time.
    let metadata = place.field("metadata");
    metadata::labels(&place.named("labels", metadata.field("labels").value), errors);
    metadata::annotations(&place.named("annotations", metadata.field("annotations").value), errors);
}
