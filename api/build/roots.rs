//! Which types are compiled: every kind of the catalogue, what their subresources take, and what list, watch, delete
//! and status answers are made of. Types they refer to come along.

use k8s_openapi as k8s;
use schemars::JsonSchema;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

macro_rules! roots {
    ($generator:ident; $($($module:ident)::+ { $($kind:ident),+ $(,)? }),+ $(,)?) => {
        $({
            use k8s::$($module)::+::{$($kind),+};
            $( add::<$kind>(&mut $generator); )+
        })+
    };
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Definitions by type name, in the form of JSON Schema, references as `#/$defs/NAME`.
pub fn definitions() -> Map<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    roots! { generator;
        api::admissionregistration::v1 {
            MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
            ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
        },
        api::apps::v1 { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet },
        api::authentication::v1 { SelfSubjectReview, TokenRequest, TokenReview },
        api::authorization::v1 {
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        },
        api::autoscaling::v1 { HorizontalPodAutoscaler, Scale },
        api::autoscaling::v2 { HorizontalPodAutoscaler },
        api::batch::v1 { CronJob, Job },
        api::certificates::v1 { CertificateSigningRequest },
        api::coordination::v1 { Lease },
        api::core::v1 {
            Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node,
            PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota,
            Secret, Service, ServiceAccount,
        },
        api::discovery::v1 { EndpointSlice },
        api::events::v1 { Event },
        api::flowcontrol::v1 { FlowSchema, PriorityLevelConfiguration },
        api::networking::v1 { IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR },
        api::node::v1 { RuntimeClass },
        api::policy::v1 { Eviction, PodDisruptionBudget },
        api::rbac::v1 { ClusterRole, ClusterRoleBinding, Role, RoleBinding },
        api::resource::v1 { DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice },
        api::scheduling::v1 { PriorityClass },
        api::storage::v1 {
            CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
        },
        apiextensions_apiserver::pkg::apis::apiextensions::v1 { CustomResourceDefinition },
        kube_aggregator::pkg::apis::apiregistration::v1 { APIService },
        apimachinery::pkg::apis::meta::v1 {
            APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, ListMeta, Patch, Status,
        },
        apimachinery::pkg::version { Info },
    }
    add::<k8s::apimachinery::pkg::apis::meta::v1::WatchEvent<k8s::apimachinery::pkg::runtime::RawExtension>>(
        &mut generator,
    );
    let mut definitions = generator.take_definitions(false).into_iter().collect();
    settle_watch_event(&mut definitions);
    add_metrics(&mut definitions);
    definitions
}

/// `metrics.k8s.io`, whose types the crate lacks.
fn add_metrics(definitions: &mut Map<String, Value>) {
    const PREFIX: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";
    let with = |reference: &str, description: &str| -> Value {
        json!({"$ref": format!("#/$defs/io.k8s.apimachinery.pkg.{reference}"), "description": description})
    };
    let quantities = json!({
        "description": "Usage is what was in use, by resource.",
        "type": "object",
        "additionalProperties": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.api.resource.Quantity"},
    });
    let kind = |about: &str, field: &str, content: Value, node: &Value| {
        json!({
            "description": about,
            "type": "object",
            "properties": {
                "apiVersion": node["properties"]["apiVersion"],
                "kind": node["properties"]["kind"],
                "metadata": with("apis.meta.v1.ObjectMeta", "Standard object's metadata."),
                "timestamp": with("apis.meta.v1.Time", "The end of the interval over which the use was measured."),
                "window": {"type": "string", "description": "The length of that interval, as a Go duration."},
                field: content,
            },
            "required": ["timestamp", "window", field],
        })
    };
    let node = definitions["io.k8s.api.core.v1.Node"].clone();
    let container = json!({
        "description": "ContainerMetrics is what a container uses.",
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "The name of the container."},
            "usage": quantities,
        },
        "required": ["name", "usage"],
    });
    let containers = json!({
        "description": "What each of the pod's containers uses.",
        "type": "array",
        "items": {"$ref": format!("#/$defs/{PREFIX}.ContainerMetrics")},
    });
    let of_node = kind("NodeMetrics is what a node uses.", "usage", quantities, &node);
    let of_pod = kind("PodMetrics is what a pod's containers use.", "containers", containers, &node);
    for (name, definition) in [("ContainerMetrics", container), ("NodeMetrics", of_node), ("PodMetrics", of_pod)] {
        definitions.insert(format!("{PREFIX}.{name}"), definition);
    }
}

/// What the crate says about watch events, divided between type and field as upstream has it.
fn settle_watch_event(definitions: &mut Map<String, Value>) {
    let Some(event) = definitions.get_mut("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent") else { return };
    let whole = event["description"].as_str().unwrap_or_default().to_owned();
    let Some((ty, field)) = whole.split_once("\n\n") else { return };
    event["description"] = ty.into();
    event["properties"]["object"]["description"] = field.trim_end().into();
}

/// List kinds, which the crate has only as a generic type: one for each row of the table.
pub fn add_lists(definitions: &mut Map<String, Value>) {
    let rows = include_str!("../data/lists.tsv").lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    for row in rows {
        let fields: Vec<&str> = row.split('\t').collect();
        let name = fields[0];
        if !definitions.contains_key(name) {
            continue;
        }
        let text = |at: usize| -> Value { serde_json::from_str(fields[at]).expect("texts in lists.tsv are JSON") };
        let list = json!({
            "description": text(1),
            "type": "object",
            "properties": {
                "apiVersion": definitions[name]["properties"]["apiVersion"],
                "kind": definitions[name]["properties"]["kind"],
                "metadata": {
                    "$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
                    "description": text(3),
                },
                "items": {
                    "description": text(2),
                    "type": "array",
                    "items": { "$ref": format!("#/$defs/{name}") },
                },
            },
            "required": ["items"],
        });
        definitions.insert(format!("{name}List"), list);
    }
}
