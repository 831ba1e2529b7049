//! What a server serves: its resources, each in the version the server prefers. Asks for the aggregated form, which is
//! two requests, and reads the plain form where a server has only that.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::{Client, Error, GroupVersionResource, request};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One resource in its preferred version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub gvr: GroupVersionResource,
    pub kind: String,
    /// Empty where the server does not say.
    pub singular: String,
    pub short_names: Vec<String>,
    pub verbs: Vec<String>,
}

impl Served {
    pub fn has_verbs(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|v| v == verb))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    pub resources: Vec<Served>,
    /// Group versions that the server knows of but can't describe now (an aggregated API server is away).
    pub failed: Vec<String>,
}

impl Discovery {
    /// The resource of a kind, whatever version it is asked for in.
    pub fn of_kind(&self, group: &str, kind: &str) -> Option<&Served> {
        self.resources.iter().find(|r| r.gvr.group == group && r.kind == kind)
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Group {
    metadata: GroupMeta,
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupMeta {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version {
    version: String,
    freshness: String,
    resources: Vec<Resource>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resource {
    resource: String,
    singular_resource: String,
    short_names: Vec<String>,
    response_kind: Option<Kind>,
    scope: String,
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    kind: String,
}

/// Reads everything.
pub async fn read(client: &Client) -> Result<Discovery, Error> {
    let mut discovery = Discovery::default();
    for path in ["/api", "/apis"] {
        let document = get(client, path).await?;
        if document["kind"] == "APIGroupDiscoveryList" {
            let groups = decode::<Vec<Group>>(path, document["items"].clone())?;
            groups.into_iter().for_each(|group| add_group(&mut discovery, group));
        } else {
            read_plain(client, path, &document, &mut discovery).await?;
        }
    }
    Ok(discovery)
}

async fn get(client: &Client, path: &str) -> Result<Value, Error> {
    let request = request::build(Method::GET, path.to_owned(), AGGREGATED, None, Bytes::new())?;
    let body = client.call(request).await?;
    serde_json::from_slice(&body).map_err(|source| Error::Decode { attempted: format!("GET {path}"), source })
}

fn decode<T: serde::de::DeserializeOwned>(path: &str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|source| Error::Decode { attempted: format!("GET {path}"), source })
}

/// Versions come in the order of preference; a resource counts in the first that has it.
fn add_group(discovery: &mut Discovery, group: Group) {
    let name = group.metadata.name;
    for version in group.versions {
        if version.freshness == "Stale" {
            discovery.failed.push(api_version(&name, &version.version));
            continue;
        }
        for resource in version.resources {
            let kind = resource.response_kind.unwrap_or_default().kind;
            let namespaced = resource.scope == "Namespaced";
            let gvr = gvr(&name, &version.version, resource.resource, namespaced);
            let (singular, short_names) = (resource.singular_resource, resource.short_names);
            add(discovery, Served { gvr, kind, singular, short_names, verbs: resource.verbs });
        }
    }
}

fn gvr(group: &str, version: &str, resource: String, namespaced: bool) -> GroupVersionResource {
    GroupVersionResource {
        group: Cow::Owned(group.to_owned()),
        version: Cow::Owned(version.to_owned()),
        resource: Cow::Owned(resource),
        namespaced,
    }
}

fn add(discovery: &mut Discovery, served: Served) {
    let resource = &served.gvr;
    let known =
        discovery.resources.iter().any(|r| r.gvr.group == resource.group && r.gvr.resource == resource.resource);
    if !known && !resource.resource.contains('/') {
        discovery.resources.push(served);
    }
}

fn api_version(group: &str, version: &str) -> String {
    ::api::meta::api_version(group, version)
}

/// `APIVersions` or `APIGroupList`, then one `APIResourceList` per group version.
async fn read_plain(client: &Client, path: &str, document: &Value, discovery: &mut Discovery) -> Result<(), Error> {
    let mut versions: Vec<String> = strings(&document["versions"]);
    for group in document["groups"].as_array().into_iter().flatten() {
        let preferred = group["preferredVersion"]["groupVersion"].as_str().map(str::to_owned);
        let all = group["versions"].as_array().into_iter().flatten();
        let others = all.filter_map(|v| v["groupVersion"].as_str()).map(str::to_owned);
        let others: Vec<String> = others.filter(|v| Some(v) != preferred.as_ref()).collect();
        versions.extend(preferred.into_iter().chain(others));
    }
    for group_version in versions {
        let Ok(list) = client.get_path::<Value>(&format!("{path}/{group_version}")).await else {
            discovery.failed.push(group_version);
            continue;
        };
        let (group, version) = ::api::meta::split_api_version(&group_version);
        for resource in list["resources"].as_array().into_iter().flatten() {
            let text = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
            let gvr = gvr(group, version, text("name"), resource["namespaced"] == true);
            let (kind, singular) = (text("kind"), text("singularName"));
            let (short_names, verbs) = (strings(&resource["shortNames"]), strings(&resource["verbs"]));
            add(discovery, Served { gvr, kind, singular, short_names, verbs });
        }
    }
    Ok(())
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_counts_in_its_first_version() {
        let group = json!({"metadata": {"name": "example.com"}, "versions": [
            {"version": "v2", "resources": [
                {"resource": "things", "responseKind": {"kind": "Thing"}, "scope": "Namespaced", "verbs": ["list", "delete"]},
            ]},
            {"version": "v1", "resources": [
                {"resource": "things", "responseKind": {"kind": "Thing"}, "scope": "Namespaced", "verbs": ["list"]},
                {"resource": "olds", "responseKind": {"kind": "Old"}, "scope": "Cluster", "verbs": ["list"]},
            ]},
            {"version": "v0", "freshness": "Stale", "resources": []},
        ]});
        let mut discovery = Discovery::default();
        add_group(&mut discovery, serde_json::from_value(group).unwrap());
        let names: Vec<String> = discovery
            .resources
            .iter()
            .map(|r| format!("{}/{} {}", r.gvr.version, r.gvr.resource, r.gvr.namespaced))
            .collect();
        assert_eq!(names, ["v2/things true", "v1/olds false"]);
        assert_eq!(discovery.failed, ["example.com/v0"]);
        assert!(discovery.of_kind("example.com", "Thing").is_some_and(|r| r.has_verbs(&["list", "delete"])));
    }
}
