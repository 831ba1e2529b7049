//! What the client needs to know of an object type: where it is served and its identity. Every `k8s-openapi` type is
//! an [`Object`]; consumers that hold many objects implement it for a *projection*, a struct with only the fields they
//! read, decoded straight from the wire; [`crate::projection!`] does that.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ::api::meta::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Revision;

/// Identity fields every metadata type has.
pub trait Metadata: Send + Sync {
    fn name(&self) -> &str;
    /// Empty for cluster-scoped objects.
    fn namespace(&self) -> &str;
    fn uid(&self) -> &str;
    fn resource_version(&self) -> &str;
    /// Marked for deletion.
    fn is_deleting(&self) -> bool;
}

/// A served object type.
pub trait Object: DeserializeOwned + Clone + Send + Sync + 'static {
    const GROUP: &'static str;
    const VERSION: &'static str;
    const KIND: &'static str;
    const PLURAL: &'static str;
    const NAMESPACED: bool;

    /// `k8s-openapi`'s `ObjectMeta`, or [`Meta`] in projections.
    type Meta: Metadata;

    fn metadata(&self) -> &Self::Meta;

    /// Drops what no reader of a cache needs, before the object is kept. Writes are patches, so nothing is lost.
    fn trim(&mut self) {}

    fn key(&self) -> ObjectKey {
        ObjectKey::new(self.metadata().namespace(), self.metadata().name())
    }

    fn revision(&self) -> Revision {
        Revision::parse(self.metadata().resource_version())
    }

    fn api_version() -> String {
        ::api::meta::api_version(Self::GROUP, Self::VERSION)
    }
}

/// Where a resource is served. Built from an [`Object`]'s constants, or at run time from discovery.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupVersionResource {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    /// The plural name, as in the path.
    pub resource: Cow<'static, str>,
    pub namespaced: bool,
}

impl GroupVersionResource {
    pub fn of<T: Object>() -> Self {
        Self {
            group: Cow::Borrowed(T::GROUP),
            version: Cow::Borrowed(T::VERSION),
            resource: Cow::Borrowed(T::PLURAL),
            namespaced: T::NAMESPACED,
        }
    }

    /// `pods` or `deployments.apps`.
    pub fn qualified(&self) -> String {
        ::api::status::qualified(&self.group, &self.resource)
    }
}

/// Whether a `k8s-openapi` scope has namespaces.
pub trait Scope {
    const NAMESPACED: bool;
}
impl Scope for k8s_openapi::NamespaceResourceScope {
    const NAMESPACED: bool = true;
}
impl Scope for k8s_openapi::ClusterResourceScope {
    const NAMESPACED: bool = false;
}

impl<T, S> Object for T
where
    S: Scope,
    T: k8s_openapi::Metadata<Ty = meta_v1::ObjectMeta, Scope = S>,
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    const GROUP: &'static str = <T as k8s_openapi::Resource>::GROUP;
    const VERSION: &'static str = <T as k8s_openapi::Resource>::VERSION;
    const KIND: &'static str = <T as k8s_openapi::Resource>::KIND;
    const PLURAL: &'static str = <T as k8s_openapi::Resource>::URL_PATH_SEGMENT;
    const NAMESPACED: bool = S::NAMESPACED;

    type Meta = meta_v1::ObjectMeta;

    fn metadata(&self) -> &meta_v1::ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }

    fn trim(&mut self) {
        k8s_openapi::Metadata::metadata_mut(self).managed_fields = None;
    }
}

/// Makes a struct with a `metadata` field a projection of a resource: `projection!(Pod as core::v1::Pod)`. Where the
/// resource is served is stated once, by the type after `as` (any [`Object`], as a rule `k8s-openapi`'s). A metadata
/// type other than [`Meta`] follows after a comma, and a `trim` function after that.
#[macro_export]
macro_rules! projection {
    ($of:ty as $resource:ty) => {
        $crate::projection!($of as $resource, $crate::Meta);
    };
    ($of:ty as $resource:ty, $meta:ty $(, trim = $trim:expr)?) => {
        impl $crate::Object for $of {
            const GROUP: &'static str = <$resource as $crate::Object>::GROUP;
            const VERSION: &'static str = <$resource as $crate::Object>::VERSION;
            const KIND: &'static str = <$resource as $crate::Object>::KIND;
            const PLURAL: &'static str = <$resource as $crate::Object>::PLURAL;
            const NAMESPACED: bool = <$resource as $crate::Object>::NAMESPACED;
            type Meta = $meta;

            fn metadata(&self) -> &Self::Meta {
                &self.metadata
            }
            $(
                fn trim(&mut self) {
                    let trim: fn(&mut Self) = $trim;
                    trim(self);
                }
            )?
        }
    };
}

impl Metadata for meta_v1::ObjectMeta {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
    fn uid(&self) -> &str {
        self.uid.as_deref().unwrap_or_default()
    }
    fn resource_version(&self) -> &str {
        self.resource_version.as_deref().unwrap_or_default()
    }
    fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// An owner reference, with absent booleans as false.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub controller: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub block_owner_deletion: bool,
}

/// The metadata of a projection: what controllers read of `ObjectMeta`, absent as empty. `A` is a struct of the
/// annotations it reads, since all others would only take memory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "A: Default + Deserialize<'de>"))]
pub struct Meta<A = NoAnnotations> {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub labels: BTreeMap<String, String>,
    pub annotations: A,
    pub owner_references: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub creation_timestamp: Option<Timestamp>,
    pub deletion_timestamp: Option<Timestamp>,
    pub deletion_grace_period_seconds: Option<i64>,
}

/// For a field of a projection that upstream writes as `null` when it is empty, such as the endpoints of an
/// EndpointSlice: `#[serde(default, deserialize_with = "api_client::nullable")]`.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads no annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NoAnnotations {}

impl<A> Meta<A> {
    /// The owner reference with `controller: true` (`metav1.GetControllerOf`).
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|o| o.controller)
    }

    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace.as_str(), self.name.as_str())
    }
}

impl<A: Send + Sync> Metadata for Meta<A> {
    fn name(&self) -> &str {
        &self.name
    }
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn uid(&self) -> &str {
        &self.uid
    }
    fn resource_version(&self) -> &str {
        &self.resource_version
    }
    fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// Any object reduced to its metadata (`PartialObjectMetadata`). Its constants name the wire type; reach a resource
/// with it through [`crate::Client::metadata_api`], which takes the resource at run time.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PartialObject {
    pub metadata: Meta,
}

impl Object for PartialObject {
    const GROUP: &'static str = "meta.k8s.io";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "PartialObjectMetadata";
    const PLURAL: &'static str = "";
    const NAMESPACED: bool = true;
    type Meta = Meta;

    fn metadata(&self) -> &Meta {
        &self.metadata
    }
}
