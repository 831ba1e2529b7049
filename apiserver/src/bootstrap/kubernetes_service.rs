//! The Service `default/kubernetes` and its endpoints: how pods find this server. The Service's address is the first of
//! the service range; the endpoint is the advertised address. Corrected at every start, as addresses change.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::data::Wanted;
use super::{Error, ensure, find, send};
use crate::server::Server;
use crate::service::Range;

const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";
const HTTPS: u16 = 443;

pub async fn reconcile(server: &Arc<Server>) -> Result<(), Error> {
    let advertised = server.options.advertise_address.unwrap_or_else(host_address);
    let port = server.options.bind.port();
    let service_address = Range::parse(&server.options.service_cidr).ok().and_then(|range| range.address(1));
    ensure(server, Wanted { group: "", resource: "services", object: service(service_address) }).await?;
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "namespace": NAMESPACE, "name": NAME,
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{ "addresses": [{ "ip": advertised.to_string() }],
                      "ports": [{ "name": "https", "port": port, "protocol": "TCP" }] }],
    });
    put(server, "", "endpoints", endpoints, "subsets").await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "namespace": NAMESPACE, "name": NAME, "labels": { "kubernetes.io/service-name": NAME } },
        "addressType": if advertised.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [advertised.to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
    });
    put(server, "discovery.k8s.io", "endpointslices", slice, "endpoints").await
}

fn service(address: Option<IpAddr>) -> Value {
    let mut spec = json!({
        "type": "ClusterIP", "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack",
        "ports": [{ "name": "https", "port": HTTPS, "targetPort": 6443, "protocol": "TCP" }],
    });
    if let Some(address) = address {
        spec["clusterIP"] = address.to_string().into();
        spec["clusterIPs"] = json!([address.to_string()]);
        spec["ipFamilies"] = json!([if address.is_ipv4() { "IPv4" } else { "IPv6" }]);
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "namespace": NAMESPACE, "name": NAME,
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": spec,
    })
}

/// Creates the object, or replaces it when `field` or the ports differ from what is wanted.
async fn put(
    server: &Arc<Server>,
    group: &'static str,
    resource: &'static str,
    object: Value,
    field: &str,
) -> Result<(), Error> {
    let Some(found) = find(server, group, resource, &format!("{NAMESPACE}/{NAME}")) else {
        return ensure(server, Wanted { group, resource, object }).await;
    };
    if found.get(field) == object.get(field) && found.get("ports") == object.get("ports") {
        return Ok(());
    }
    let mut next = found;
    for part in [field, "ports"] {
        if let Some(value) = object.get(part) {
            next[part] = value.clone();
        }
    }
    let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let path = format!("{root}/namespaces/{NAMESPACE}/{resource}/{NAME}");
    match send(server, Method::PUT, &path, Some(&next)).await {
        Err(Error::Refused { code: 409, .. }) => Ok(()),
        other => other.map(drop),
    }
}

/// The address this host would use to reach others; loopback when it has none. No packet is sent: connecting a
/// datagram socket only asks the routing table.
pub fn host_address() -> IpAddr {
    let ask = || -> std::io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    ask().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}
