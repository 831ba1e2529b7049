//! Projections of what names are made from: Services, EndpointSlices and this node's pods. Every node holds all
//! Services and slices, so they have the fields that answers need and nothing else.

use std::collections::BTreeMap;

use api_client::{Index, Metadata, NoAnnotations};
use serde::{Deserialize, Serialize, Serializer};

/// `discovery.k8s.io/v1`: the label that names an EndpointSlice's Service (`discovery.LabelServiceName`).
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Slices by their Service's name.
pub const BY_SERVICE: Index<EndpointSlice> =
    Index { name: "service", of: |s| s.metadata.labels.get(SERVICE_NAME_LABEL).map_or("", String::as_str) };
/// Slices that have an endpoint with a host name of its own: the only ones that reverse lookups look into.
pub const NAMED: Index<EndpointSlice> =
    Index { name: "named", of: |s| if s.endpoints.iter().any(|e| !e.hostname.is_empty()) { NAMED_VALUE } else { "" } };
pub const NAMED_VALUE: &str = "yes";
/// Services by their first and second cluster address.
pub const BY_ADDRESS: Index<Service> = Index { name: "address", of: |s| s.address(0) };
pub const BY_SECOND_ADDRESS: Index<Service> = Index { name: "second address", of: |s| s.address(1) };
/// This node's pods by their address.
pub const BY_POD_IP: Index<Pod> =
    Index { name: "pod address", of: |p| if p.spec.host_network { "" } else { &p.status.pod_ip } };

pub type Meta = api_client::Meta<NoAnnotations>;

/// What is kept of an object's metadata on disk: enough to tell it and its version.
fn identity<S: Serializer>(meta: &Meta, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Identity<'a> {
        name: &'a str,
        namespace: &'a str,
        uid: &'a str,
        resource_version: &'a str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<&'a str, &'a str>,
    }
    let service = meta.labels.get_key_value(SERVICE_NAME_LABEL);
    let identity = Identity {
        name: &meta.name,
        namespace: &meta.namespace,
        uid: &meta.uid,
        resource_version: &meta.resource_version,
        labels: service.into_iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
    };
    identity.serialize(serializer)
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Service {
    #[serde(serialize_with = "identity")]
    pub metadata: Meta,
    #[serde(default)]
    pub spec: ServiceSpec,
}

api_client::projection!(Service as k8s_openapi::api::core::v1::Service);

impl Service {
    fn address(&self, nth: usize) -> &str {
        self.spec.cluster_ips.get(nth).map_or("", |a| if a == HEADLESS { "" } else { a })
    }

    /// Has no address of its own: its name stands for its endpoints.
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ips.first().is_some_and(|a| a == HEADLESS)
    }

    pub fn is_external(&self) -> bool {
        self.spec.kind == "ExternalName"
    }
}

/// `core.ClusterIPNone`
const HEADLESS: &str = "None";

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    pub external_name: String,
    pub ports: Vec<Port>,
}

/// A port of a Service or of an EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub port: Option<u16>,
}

impl Port {
    /// The label of SRV names, `_tcp` where the API says `TCP` or nothing.
    pub fn protocol_label(&self) -> &'static str {
        match self.protocol.as_str() {
            "UDP" => "_udp",
            "SCTP" => "_sctp",
            _ => "_tcp",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    #[serde(serialize_with = "identity")]
    pub metadata: Meta,
    #[serde(default, deserialize_with = "api_client::nullable")]
    pub endpoints: Vec<Endpoint>,
    #[serde(default, deserialize_with = "api_client::nullable")]
    pub ports: Vec<Port>,
}

api_client::projection!(EndpointSlice as k8s_openapi::api::discovery::v1::EndpointSlice);

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Endpoint {
    pub addresses: Vec<String>,
    pub hostname: String,
    pub conditions: Conditions,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Conditions {
    /// Absent means ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Pod {
    #[serde(serialize_with = "identity")]
    pub metadata: Meta,
    #[serde(default)]
    pub spec: PodSpec,
    #[serde(default)]
    pub status: PodStatus,
}

api_client::projection!(
    Pod as k8s_openapi::api::core::v1::Pod,
    Meta,
    trim = |pod| {
        pod.metadata.labels = BTreeMap::new();
        pod.metadata.owner_references = Vec::new();
    }
);

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    #[serde(rename = "podIP")]
    pub pod_ip: String,
}

impl Pod {
    pub fn namespace(&self) -> &str {
        Metadata::namespace(&self.metadata)
    }
}
