//! Which strategy serves which resource.

use super::{
    Strategy, admission, api_service, autoscaler, certificate, config_map, controller_revision, cron_job, custom,
    daemon_set, definition, deployment, device, endpoints, event, flow_control, job, lease, namespace, network, node,
    persistent_volume, persistent_volume_claim, pod, pod_template, policy, priority_class, quota, rbac, replica_set,
    replication_controller, runtime_class, secret, service, service_account, service_cidr, stateful_set, storage,
};

/// A built-in kind without rules of its own.
struct Plain;
impl Strategy for Plain {}

/// Groups of built-in kinds; any other group belongs to CustomResourceDefinitions.
const GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// The strategy of a resource (`deployments` of group `apps`).
pub fn of(group: &str, resource: &str) -> &'static dyn Strategy {
    match group {
        "" => core(resource),
        "apps" | "batch" | "autoscaling" | "policy" => workloads(resource),
        "networking.k8s.io" | "discovery.k8s.io" | "events.k8s.io" | "coordination.k8s.io" => network_kinds(resource),
        "storage.k8s.io" | "node.k8s.io" | "scheduling.k8s.io" | "resource.k8s.io" => node_kinds(resource),
        group if GROUPS.contains(&group) => access_kinds(resource),
        _ => &custom::Custom,
    }
}

fn core(resource: &str) -> &'static dyn Strategy {
    match resource {
        "configmaps" => &config_map::ConfigMap,
        "endpoints" => &endpoints::Endpoints,
        "events" => &event::Event { strict: false },
        "limitranges" => &quota::LimitRange,
        "namespaces" => &namespace::Namespace,
        "nodes" => &node::Node,
        "persistentvolumeclaims" => &persistent_volume_claim::PersistentVolumeClaim,
        "persistentvolumes" => &persistent_volume::PersistentVolume,
        "pods" => &pod::Pod,
        "podtemplates" => &pod_template::PodTemplate,
        "replicationcontrollers" => &replication_controller::ReplicationController,
        "resourcequotas" => &quota::ResourceQuota,
        "secrets" => &secret::Secret,
        "serviceaccounts" => &service_account::ServiceAccount,
        "services" => &service::Service,
        _ => &Plain,
    }
}

fn workloads(resource: &str) -> &'static dyn Strategy {
    match resource {
        "controllerrevisions" => &controller_revision::ControllerRevision,
        "cronjobs" => &cron_job::CronJob,
        "daemonsets" => &daemon_set::DaemonSet,
        "deployments" => &deployment::Deployment,
        "horizontalpodautoscalers" => &autoscaler::HorizontalPodAutoscaler,
        "jobs" => &job::Job,
        "poddisruptionbudgets" => &policy::PodDisruptionBudget,
        "replicasets" => &replica_set::ReplicaSet,
        "statefulsets" => &stateful_set::StatefulSet,
        _ => &Plain,
    }
}

fn network_kinds(resource: &str) -> &'static dyn Strategy {
    match resource {
        "endpointslices" => &endpoints::EndpointSlice,
        "events" => &event::Event { strict: true },
        "ingressclasses" => &network::IngressClass,
        "ingresses" => &network::Ingress,
        "leases" => &lease::Lease,
        "networkpolicies" => &network::NetworkPolicy,
        "ipaddresses" => &service_cidr::IpAddress,
        "servicecidrs" => &service_cidr::ServiceCidr,
        _ => &Plain,
    }
}

fn node_kinds(resource: &str) -> &'static dyn Strategy {
    match resource {
        "csidrivers" => &storage::CsiDriver,
        "csinodes" => &storage::CsiNode,
        "csistoragecapacities" => &storage::CsiStorageCapacity,
        "priorityclasses" => &priority_class::PriorityClass,
        "resourceclaims" => &device::ResourceClaim,
        "resourceclaimtemplates" => &device::ResourceClaimTemplate,
        "resourceslices" => &device::ResourceSlice,
        "deviceclasses" => &device::DeviceClass,
        "runtimeclasses" => &runtime_class::RuntimeClass,
        "storageclasses" => &storage::StorageClass,
        "volumeattachments" => &storage::VolumeAttachment,
        "volumeattributesclasses" => &storage::VolumeAttributesClass,
        _ => &Plain,
    }
}

fn access_kinds(resource: &str) -> &'static dyn Strategy {
    match resource {
        "apiservices" => &api_service::ApiService,
        "customresourcedefinitions" => &definition::CustomResourceDefinition,
        "certificatesigningrequests" => &certificate::CertificateSigningRequest,
        "clusterrolebindings" => &rbac::Binding { namespaced: false },
        "clusterroles" => &rbac::Role { namespaced: false },
        "flowschemas" => &flow_control::FlowSchema,
        "mutatingadmissionpolicies" => &admission::Policy { mutating: true },
        "mutatingadmissionpolicybindings" => &admission::PolicyBinding { mutating: true },
        "mutatingwebhookconfigurations" => &admission::WebhookConfiguration { mutating: true },
        "prioritylevelconfigurations" => &flow_control::PriorityLevelConfiguration,
        "rolebindings" => &rbac::Binding { namespaced: true },
        "roles" => &rbac::Role { namespaced: true },
        "validatingadmissionpolicies" => &admission::Policy { mutating: false },
        "validatingadmissionpolicybindings" => &admission::PolicyBinding { mutating: false },
        "validatingwebhookconfigurations" => &admission::WebhookConfiguration { mutating: false },
        _ => &Plain,
    }
}
