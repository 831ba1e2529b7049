//! Ownership: who controls an object, who might, and the compiled form of label selectors.

use std::collections::BTreeMap;

use api::selector::{LabelSelector, Operator, Requirement};
use api_client::Object;
use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta_v1;
use serde_json::{Value, json};

use super::Pod;

/// The controlling owner, as an object names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerRef<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
}

impl ControllerRef<'_> {
    /// Whether the owner is of this kind, in any version.
    pub fn is<K: Object>(&self) -> bool {
        self.kind == K::KIND && api::meta::split_api_version(self.api_version).0 == K::GROUP
    }
}

/// An object that a controller may own.
pub trait Owned: Object {
    fn controller(&self) -> Option<ControllerRef<'_>>;
    fn label(&self, name: &str) -> Option<&str>;
    /// Whether both have the same labels.
    fn has_labels_of(&self, other: &Self) -> bool;

    /// The uid of the controlling owner.
    fn controller_uid(&self) -> Option<&str> {
        self.controller().map(|o| o.uid)
    }
}

impl Owned for Pod {
    fn controller(&self) -> Option<ControllerRef<'_>> {
        let owner = self.metadata.controller()?;
        Some(ControllerRef { api_version: &owner.api_version, kind: &owner.kind, name: &owner.name, uid: &owner.uid })
    }
    fn label(&self, name: &str) -> Option<&str> {
        self.metadata.labels.get(name).map(String::as_str)
    }
    fn has_labels_of(&self, other: &Self) -> bool {
        self.metadata.labels == other.metadata.labels
    }
}

/// `metav1.GetControllerOf` for `k8s-openapi`'s metadata.
pub fn controller_of(metadata: &meta_v1::ObjectMeta) -> Option<&meta_v1::OwnerReference> {
    metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// `metadata.labels[name]`.
pub fn label_of<'a>(metadata: &'a meta_v1::ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// `metadata.annotations[name]`.
pub fn annotation_of<'a>(metadata: &'a meta_v1::ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

macro_rules! owned {
    ($($kind:ty),+ $(,)?) => {$(
        impl Owned for $kind {
            fn controller(&self) -> Option<ControllerRef<'_>> {
                let owner = controller_of(&self.metadata)?;
                let (api_version, kind) = (&owner.api_version, &owner.kind);
                Some(ControllerRef { api_version, kind, name: &owner.name, uid: &owner.uid })
            }
            fn label(&self, name: &str) -> Option<&str> {
                label_of(&self.metadata, name)
            }
            fn has_labels_of(&self, other: &Self) -> bool {
                self.metadata.labels == other.metadata.labels
            }
        }
    )+};
}
owned!(ReplicaSet, ControllerRevision, Job);

/// The owner that a controller enters into the objects it makes or adopts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub api_version: String,
    pub kind: &'static str,
    pub name: String,
    pub uid: String,
    pub deleting: bool,
    /// A finalizer that owned objects carry: given when adopted, taken away when released.
    pub finalizer: Option<&'static str>,
}

impl Owner {
    pub fn of<T: Object>(object: &T) -> Self {
        use api_client::Metadata;
        let metadata = object.metadata();
        Self {
            api_version: T::api_version(),
            kind: T::KIND,
            name: metadata.name().to_owned(),
            uid: metadata.uid().to_owned(),
            deleting: metadata.is_deleting(),
            finalizer: None,
        }
    }

    pub fn with_finalizer(self, finalizer: &'static str) -> Self {
        Self { finalizer: Some(finalizer), ..self }
    }

    /// The controller reference (`metav1.NewControllerRef`).
    pub fn reference(&self) -> Value {
        json!({
            "apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid,
            "controller": true, "blockOwnerDeletion": true,
        })
    }
}

/// A selector object, compiled. One that can't be compiled selects nothing, as an absent one does.
pub fn compile(selector: Option<&meta_v1::LabelSelector>) -> LabelSelector {
    try_compile(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

fn try_compile(selector: Option<&meta_v1::LabelSelector>) -> Result<LabelSelector, api::selector::Error> {
    let Some(selector) = selector else { return Ok(LabelSelector::nothing()) };
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        requirements.push(Requirement::new(key, Operator::In, vec![value.clone()])?);
    }
    for expression in selector.match_expressions.iter().flatten() {
        let operator = match expression.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(api::selector::Error(format!("{other:?} is not a valid label selector operator"))),
        };
        let values = expression.values.clone().unwrap_or_default();
        requirements.push(Requirement::new(&expression.key, operator, values)?);
    }
    Ok(LabelSelector::new(requirements))
}

/// Whether `selector` matches an object's labels.
pub fn selects(selector: &LabelSelector, object: &impl Owned) -> bool {
    selector.matches_with(|key| object.label(key))
}

/// Whether all of `wanted` are among an object's labels (a selector of a set; an empty set matches everything).
pub fn has_labels(object: &impl Owned, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| object.label(key) == Some(value))
}
