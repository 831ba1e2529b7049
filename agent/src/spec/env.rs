//! A container's environment. The objects it refers to are fetched by the caller; everything else is pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, ResourceFieldSelector, Secret};

use crate::pod::resources::Resources;

/// A Service as environment variables show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    pub namespace: String,
    pub name: String,
    pub cluster_ip: IpAddr,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Option<String>,
    pub protocol: String,
    pub port: i32,
}

/// The Service of the API server, whose variables every pod gets.
const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// Each is the message of `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{kind} {name:?} not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("env {name}: unsupported field path {path:?}")]
    FieldPath { name: String, path: String },
    #[error("env {name}: unsupported container resource {resource:?}")]
    Resource { name: String, resource: String },
}

/// Names of the objects a container's environment refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

pub fn references(container: &Container) -> References {
    let mut found = References::default();
    for source in container.env_from.iter().flatten() {
        found.config_maps.extend(source.config_map_ref.as_ref().map(|reference| reference.name.clone()));
        found.secrets.extend(source.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        found.config_maps.extend(source.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
        found.secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
    }
    found
}

/// What a container's environment is made from, beside the container.
pub struct Sources<'a> {
    pub pod: &'a Pod,
    pub node_name: &'a str,
    pub pod_ips: &'a [IpAddr],
    pub host_ips: &'a [IpAddr],
    /// What a limit is when none is set.
    pub node_cpu_milli: i64,
    pub node_memory_bytes: i64,
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub secrets: BTreeMap<String, Arc<Secret>>,
    pub services: &'a [ServiceAddress],
}

/// Variables in the order they are set; later ones may refer to earlier ones as `$(NAME)`.
pub fn build(container: &Container, sources: &Sources<'_>) -> Result<Vec<(String, String)>, Error> {
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or("default");
    let links = sources.pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = service_variables(sources.services, namespace, links);
    let mut variables = Variables::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match sources.config_maps.get(&reference.name) {
                Some(map) => map
                    .data
                    .iter()
                    .flatten()
                    .for_each(|(key, value)| variables.set(format!("{prefix}{key}"), value.clone())),
                None if reference.optional.unwrap_or(false) => {}
                None => return Err(Error::NoObject { kind: "configmap", name: reference.name.clone() }),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match sources.secrets.get(&reference.name) {
                Some(secret) => secret.data.iter().flatten().for_each(|(key, value)| {
                    variables.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                }),
                None if reference.optional.unwrap_or(false) => {}
                None => return Err(Error::NoObject { kind: "secret", name: reference.name.clone() }),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                let known = |name: &str| variables.get(name).or_else(|| services.get(name).map(String::as_str));
                Some(expand(value, known))
            }
            (_, Some(source)) => from_source(variable, source, container, sources)?,
            (value, None) => Some(value.clone().unwrap_or_default()),
        };
        if let Some(value) = value {
            variables.set(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if variables.get(&name).is_none() {
            variables.set(name, value);
        }
    }
    Ok(variables.0)
}

/// Keeps the order of first appearance.
#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// `None` leaves the variable out (an optional source that is missing).
fn from_source(
    variable: &EnvVar,
    source: &EnvVarSource,
    container: &Container,
    sources: &Sources<'_>,
) -> Result<Option<String>, Error> {
    let namespace = || sources.pod.metadata.namespace.clone().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        let unknown = || Error::FieldPath { name: variable.name.clone(), path: field.field_path.clone() };
        return pod_field(&field.field_path, sources).map(Some).ok_or_else(unknown);
    }
    if let Some(selector) = &source.resource_field_ref {
        let owner = containers(sources.pod).find(|other| Some(&other.name) == selector.container_name.as_ref());
        let value = resource_field(selector, owner.unwrap_or(container), sources);
        return value
            .map(Some)
            .ok_or_else(|| Error::Resource { name: variable.name.clone(), resource: selector.resource.clone() });
    }
    if let Some(reference) = &source.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let (kind, name, key) = ("configmap", &reference.name, &reference.key);
        return match sources.config_maps.get(name) {
            Some(map) => match map.data.as_ref().and_then(|data| data.get(key)) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => {
                    let (name, key) = (name.clone(), key.clone());
                    Err(Error::NoKey { kind: "ConfigMap", namespace: namespace(), name, key })
                }
            },
            None if optional => Ok(None),
            None => Err(Error::NoObject { kind, name: name.clone() }),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let (kind, name, key) = ("secret", &reference.name, &reference.key);
        return match sources.secrets.get(name) {
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(key)) {
                Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
                None if optional => Ok(None),
                None => {
                    let (name, key) = (name.clone(), key.clone());
                    Err(Error::NoKey { kind: "Secret", namespace: namespace(), name, key })
                }
            },
            None if optional => Ok(None),
            None => Err(Error::NoObject { kind, name: name.clone() }),
        };
    }
    Ok(Some(String::new()))
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

/// A pod's field by downward API path; whole maps as lines of `key="value"`.
pub fn pod_field(path: &str, sources: &Sources<'_>) -> Option<String> {
    let meta = &sources.pod.metadata;
    let spec = sources.pod.spec.as_ref();
    let text = |value: &Option<String>| Some(value.clone().unwrap_or_default());
    let list = |ips: &[IpAddr]| Some(ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(","));
    let first = |ips: &[IpAddr]| Some(ips.first().map(IpAddr::to_string).unwrap_or_default());
    match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        "spec.nodeName" => Some(sources.node_name.to_owned()),
        "spec.serviceAccountName" => text(&spec?.service_account_name),
        "status.podIP" => first(sources.pod_ips),
        "status.podIPs" => list(sources.pod_ips),
        "status.hostIP" => first(sources.host_ips),
        "status.hostIPs" => list(sources.host_ips),
        _ => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match map {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return None,
            };
            Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
        }
    }
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A container's request or limit, divided and rounded up; without a limit it is what the node has.
pub fn resource_field(
    selector: &ResourceFieldSelector,
    container: &Container,
    sources: &Sources<'_>,
) -> Option<String> {
    let own = Resources::of(container.resources.as_ref());
    let milli = match selector.resource.as_str() {
        "limits.cpu" => own.cpu_limit_milli.unwrap_or(sources.node_cpu_milli),
        "requests.cpu" => own.cpu_request_milli.unwrap_or(0),
        "limits.memory" => own.memory_limit_bytes.unwrap_or(sources.node_memory_bytes).checked_mul(1000)?,
        "requests.memory" => own.memory_request_bytes.unwrap_or(0).checked_mul(1000)?,
        other => {
            let (list, name) = other.split_once('.')?;
            let resources = container.resources.as_ref()?;
            let list = match list {
                "limits" => resources.limits.as_ref(),
                "requests" => resources.requests.as_ref(),
                _ => return None,
            };
            Quantity::parse(&list?.get(name)?.0).ok()?.milli_value()
        }
    };
    let divisor = selector.divisor.as_ref().and_then(|text| Quantity::parse(&text.0).ok()).map(Quantity::milli_value);
    let divisor = divisor.filter(|divisor| *divisor > 0).unwrap_or(1000);
    Some((milli.max(0) as u64).div_ceil(divisor as u64).to_string())
}

/// Variables of Services: all of the namespace with links, the API server's always.
fn service_variables(services: &[ServiceAddress], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let is_api = |service: &ServiceAddress| (service.namespace.as_str(), service.name.as_str()) == API_SERVICE;
    let mut variables = BTreeMap::new();
    // The namespace's own come last: one called `kubernetes` outweighs the API server's.
    let own = services.iter().filter(|service| service.namespace == namespace && links);
    for service in services.iter().filter(|service| is_api(service)).chain(own) {
        let Some(first) = service.ports.first() else { continue };
        let name = service.name.to_ascii_uppercase().replace('-', "_");
        let host = service.cluster_ip.to_string();
        variables.insert(format!("{name}_SERVICE_HOST"), host.clone());
        variables.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        let address = match service.cluster_ip {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let url = |port: &ServicePort| format!("{}://{address}:{}", port.protocol.to_ascii_lowercase(), port.port);
        variables.insert(format!("{name}_PORT"), url(first));
        for port in &service.ports {
            if let Some(port_name) = port.name.as_ref().filter(|name| !name.is_empty()) {
                let port_name = port_name.to_ascii_uppercase().replace('-', "_");
                variables.insert(format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let prefix = format!("{name}_PORT_{}_{}", port.port, port.protocol.to_ascii_uppercase());
            variables.insert(prefix.clone(), url(port));
            variables.insert(format!("{prefix}_PROTO"), port.protocol.to_ascii_lowercase());
            variables.insert(format!("{prefix}_PORT"), port.port.to_string());
            variables.insert(format!("{prefix}_ADDR"), host.clone());
        }
    }
    variables
}

/// Replaces `$(NAME)` of known variables; `$$` is a dollar sign; everything else stays as written.
pub fn expand<'a>(text: &str, known: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match known(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::{Container, Pod};
    use serde_json::{Value, json};

    use super::{ServiceAddress, ServicePort, Sources, build, expand, references};

    fn services() -> Vec<ServiceAddress> {
        let service = |namespace: &str, name: &str, ip: &str, port_name: Option<&str>| ServiceAddress {
            namespace: namespace.into(),
            name: name.into(),
            cluster_ip: ip.parse().unwrap(),
            ports: vec![ServicePort { name: port_name.map(Into::into), protocol: "TCP".into(), port: 443 }],
        };
        vec![
            service("default", "kubernetes", "10.96.0.1", Some("https")),
            service("shop", "my-db", "10.96.0.7", None),
            service("other", "hidden", "10.96.0.8", None),
        ]
    }

    fn check(container: Value, links: bool, expected: Expect) {
        let mut container = container;
        container["name"] = json!("c");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "labels": {"app": "web", "b": "2"}},
            "spec": {"containers": [container], "serviceAccountName": "robot", "enableServiceLinks": links},
        }))
        .unwrap();
        let container: Container = pod.spec.as_ref().unwrap().containers[0].clone();
        let config = json!({"data": {"color": "red", "size": "xl"}});
        let secret = json!({"data": {"password": "c2VjcmV0"}});
        let services = services();
        let sources = Sources {
            pod: &pod,
            node_name: "n1",
            pod_ips: &["10.244.0.5".parse().unwrap()],
            host_ips: &["192.168.0.2".parse().unwrap()],
            node_cpu_milli: 2000,
            node_memory_bytes: 1 << 30,
            config_maps: BTreeMap::from([("settings".into(), Arc::new(serde_json::from_value(config).unwrap()))]),
            secrets: BTreeMap::from([("login".into(), Arc::new(serde_json::from_value(secret).unwrap()))]),
            services: &services,
        };
        let text = match build(&container, &sources) {
            Ok(variables) => variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
            Err(error) => format!("error: {error}\n"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn values_come_from_everywhere_and_refer_to_earlier_ones() {
        check(
            json!({
                "envFrom": [{"prefix": "CFG_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "login"}}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "value": "$(A)-$(CFG_color)-$(KUBERNETES_SERVICE_HOST)-$(NONE)-$$(A)"},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                    {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                    {"name": "SIZE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "size"}}},
                    {"name": "MAYBE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "x", "optional": true}}},
                ],
            }),
            false,
            expect![[r"
                CFG_color=red
                CFG_size=xl
                password=secret
                A=1
                B=1-red-10.96.0.1-$(NONE)-$(A)
                POD=web
                LABEL=web
                IP=10.244.0.5
                CPU=2
                MEM=1024
                SIZE=xl
                KUBERNETES_PORT=tcp://10.96.0.1:443
                KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
                KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
                KUBERNETES_PORT_443_TCP_PORT=443
                KUBERNETES_PORT_443_TCP_PROTO=tcp
                KUBERNETES_SERVICE_HOST=10.96.0.1
                KUBERNETES_SERVICE_PORT=443
                KUBERNETES_SERVICE_PORT_HTTPS=443
            "]],
        );
    }

    #[test]
    fn links_add_the_services_of_the_namespace() {
        check(
            json!({"env": [{"name": "KUBERNETES_SERVICE_HOST", "value": "mine"}]}),
            true,
            expect![[r"
                KUBERNETES_SERVICE_HOST=mine
                KUBERNETES_PORT=tcp://10.96.0.1:443
                KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
                KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
                KUBERNETES_PORT_443_TCP_PORT=443
                KUBERNETES_PORT_443_TCP_PROTO=tcp
                KUBERNETES_SERVICE_PORT=443
                KUBERNETES_SERVICE_PORT_HTTPS=443
                MY_DB_PORT=tcp://10.96.0.7:443
                MY_DB_PORT_443_TCP=tcp://10.96.0.7:443
                MY_DB_PORT_443_TCP_ADDR=10.96.0.7
                MY_DB_PORT_443_TCP_PORT=443
                MY_DB_PORT_443_TCP_PROTO=tcp
                MY_DB_SERVICE_HOST=10.96.0.7
                MY_DB_SERVICE_PORT=443
            "]],
        );
    }

    #[test]
    fn missing_objects_and_keys_are_told() {
        check(
            json!({"envFrom": [{"configMapRef": {"name": "none"}}]}),
            false,
            expect![[r#"
                error: configmap "none" not found
            "#]],
        );
        check(
            json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "login", "key": "token"}}}]}),
            false,
            expect![[r"
                error: couldn't find key token in Secret shop/login
            "]],
        );
    }

    #[test]
    fn references_name_what_must_be_fetched() {
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "envFrom": [{"configMapRef": {"name": "a"}}],
            "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}],
        }))
        .unwrap();
        let found = references(&container);
        assert!(found.config_maps.contains("a") && found.secrets.contains("b"));
    }

    #[test]
    fn expansion_leaves_what_it_does_not_know() {
        let known = |name: &str| (name == "A").then_some("1");
        assert_eq!(expand("$(A) $(B) $$(A) $A $(A", known), "1 $(B) $(A) $A $(A");
    }
}
