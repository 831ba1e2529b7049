//! Schemas in a compact arena. Built-in types are compiled at build time from the `k8s-openapi` crate and the
//! project's merge-rule table; a CustomResourceDefinition's schema is compiled into the same form at run time.
//! A [`Schema`] is a cheap copyable handle to one node.
//!
//! The arena is two flat buffers (words and text) that are read in place: the built-in one lies in the binary's
//! read-only data, costs nothing to open and is paged in as it is used.

mod arena;
mod compile;
pub mod encode;
mod formats;
mod rules;
mod validate;

use std::borrow::Cow;
use std::sync::{Arc, LazyLock, OnceLock};

use serde_json::Value;
use sha2::{Digest, Sha256};

pub use compile::Error;
pub use encode::{ListType, Shape, Zero};
pub use validate::validate;

use rules::Rules;

/// A set of schemas: an arena of nodes and an index of named types.
#[derive(Debug)]
pub struct Schemas {
    words: Cow<'static, [u8]>,
    text: Cow<'static, str>,
    /// What few nodes have beside their record.
    extras: Vec<Extra>,
    /// Compiled from a CustomResourceDefinition: values are what was sent, not what Go types make of it.
    structural: bool,
    digest: OnceLock<[u8; 32]>,
}

/// A node's default, and what a custom resource's schema demands beyond shapes.
#[derive(Debug, Default)]
struct Extra {
    default: Option<Value>,
    rules: Option<Box<Rules>>,
}

/// A handle to one node. Nodes are per use: a field that refers to a named type has a node of its own, which shares
/// the type's fields and carries the field's description and merge rules.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    schemas: &'a Schemas,
    node: u32,
}

/// How strategic merge patch treats a field (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategies {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

impl Schemas {
    /// The schemas of every built-in type.
    pub fn builtin() -> &'static Arc<Schemas> {
        static BUILTIN: LazyLock<Arc<Schemas>> = LazyLock::new(|| {
            let defaults: Vec<Value> = serde_json::from_str(include_str!(concat!(env!("OUT_DIR"), "/defaults.json")))
                .expect("the build script wrote a list of JSON values");
            Arc::new(Schemas {
                words: Cow::Borrowed(include_bytes!(concat!(env!("OUT_DIR"), "/schemas.bin"))),
                text: Cow::Borrowed(include_str!(concat!(env!("OUT_DIR"), "/schemas.txt"))),
                extras: defaults.into_iter().map(|d| Extra { default: Some(d), rules: None }).collect(),
                structural: false,
                digest: OnceLock::new(),
            })
        });
        &BUILTIN
    }

    /// The node of a named type, such as `io.k8s.api.core.v1.Pod`.
    pub fn type_named(&self, name: &str) -> Option<Schema<'_>> {
        self.find_type(name).map(|node| Schema { schemas: self, node })
    }

    /// All named types in the order of their names.
    pub fn types(&self) -> impl Iterator<Item = (&str, Schema<'_>)> {
        self.type_entries().map(|(name, node)| (name, Schema { schemas: self, node }))
    }

    /// A digest of everything in the set.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| {
            let mut digest = Sha256::new();
            digest.update(&self.words);
            digest.update(self.text.as_bytes());
            for extra in &self.extras {
                let stated = extra.rules.as_ref().map(|r| &r.stated);
                digest.update(format!("{:?} {stated:?}", extra.default));
            }
            digest.finalize().into()
        })
    }

    /// A handle to a node id as [`Schema::id`] gave it out for this same set.
    pub fn node(&self, id: u32) -> Schema<'_> {
        Schema { schemas: self, node: id }
    }
}

impl<'a> Schema<'a> {
    /// The node's number within its [`Schemas`]; see [`Schemas::node`].
    pub fn id(self) -> u32 {
        self.node
    }
    /// Part of a custom resource's schema rather than of a built-in type.
    pub fn is_structural(self) -> bool {
        self.schemas.structural
    }
    pub fn shape(self) -> Shape {
        Shape::from_bits(self.flags())
    }
    /// The schema of a named field of an object.
    pub fn field(self, name: &str) -> Option<Schema<'a>> {
        let (start, len) = self.field_range();
        self.schemas.find_field(start, len, name).map(|node| Schema { node, ..self })
    }
    /// The named fields, in the order of their names.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        let (start, len) = self.field_range();
        self.schemas.field_entries(start, len).map(move |(name, node)| (name, Schema { node, ..self }))
    }
    /// Items of a list.
    pub fn items(self) -> Option<Schema<'a>> {
        if self.shape() == Shape::List { self.child() } else { None }
    }
    /// Values of a map: of [`Shape::Map`], or the additional properties of an object.
    pub fn values(self) -> Option<Schema<'a>> {
        if self.shape() == Shape::List { None } else { self.child() }
    }
    fn child(self) -> Option<Schema<'a>> {
        self.child_node().map(|node| Schema { node, ..self })
    }
    /// The field called `name`, or the values' schema when it is not a named field.
    pub fn member(self, name: &str) -> Option<Schema<'a>> {
        self.field(name).or_else(|| self.values())
    }
    pub fn is_required(self, name: &str) -> bool {
        self.required().any(|r| r == name)
    }
    pub fn required(self) -> impl Iterator<Item = &'a str> {
        self.schemas.text_list(self.required_list())
    }
    pub fn list_type(self) -> ListType {
        ListType::from_bits(self.flags())
    }
    /// Keys of a list of type [`ListType::Map`].
    pub fn list_map_keys(self) -> impl Iterator<Item = &'a str> {
        self.schemas.text_list(self.key_list())
    }
    /// Defaults of the map keys and of other fields are in [`Schema::default`] of the item's field.
    pub fn map_is_atomic(self) -> bool {
        self.flags() & encode::ATOMIC != 0
    }
    pub fn patch_strategies(self) -> PatchStrategies {
        let flags = self.flags();
        PatchStrategies {
            merge: flags & encode::PATCH_MERGE != 0,
            replace: flags & encode::PATCH_REPLACE != 0,
            retain_keys: flags & encode::PATCH_RETAIN_KEYS != 0,
        }
    }
    pub fn patch_merge_key(self) -> Option<&'a str> {
        Some(self.merge_key()).filter(|k| !k.is_empty())
    }
    /// Unknown fields are kept here: raw extensions, JSON, `x-kubernetes-preserve-unknown-fields`.
    pub fn preserves_unknown(self) -> bool {
        self.flags() & encode::PRESERVES_UNKNOWN != 0
    }
    /// `x-kubernetes-embedded-resource`: an object with apiVersion, kind and metadata of its own.
    pub fn is_embedded_resource(self) -> bool {
        self.flags() & encode::EMBEDDED != 0
    }
    pub fn nullable(self) -> bool {
        self.flags() & encode::NULLABLE != 0
    }
    /// What upstream's round trip through its types does with a zero value or an absence here.
    pub fn zero(self) -> Zero {
        Zero::from_bits(self.flags())
    }
    pub fn default(self) -> Option<&'a Value> {
        self.extra()?.default.as_ref()
    }
    fn extra(self) -> Option<&'a Extra> {
        self.extra_index().and_then(|i| self.schemas.extras.get(i))
    }
    fn rules(self) -> Option<&'a Rules> {
        self.extra()?.rules.as_deref()
    }
    /// Keywords of a custom resource's schema that say what values it admits beyond their shape, as they were written.
    pub fn stated_rules(self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.rules().into_iter().flat_map(|r| &r.stated)
    }
    /// The type this node is or refers to, such as `io.k8s.api.core.v1.Pod`.
    pub fn type_name(self) -> Option<&'a str> {
        Some(self.type_text()).filter(|n| !n.is_empty())
    }
    /// The field's description, or the type's for a type.
    pub fn description(self) -> &'a str {
        self.description_text()
    }
    pub fn format(self) -> Option<&'a str> {
        Some(self.format_text()).filter(|f| !f.is_empty())
    }
    /// Whether list type or map type are stated rather than left to the default.
    pub fn states_merge_type(self) -> bool {
        self.flags() & encode::MERGE_TYPE_STATED != 0
    }
    /// Raw JSON that must be an object, such as a raw extension; other raw JSON may be anything.
    pub fn is_raw_object(self) -> bool {
        self.flags() & encode::RAW_OBJECT != 0
    }
    /// Field numbers of the protobuf form, packed as [`encode::AT_NUMBERS`] says; 0 where there is none.
    pub fn protobuf_numbers(self) -> u32 {
        self.numbers_word()
    }
    /// A resource quantity: decoding brings it to its canonical form.
    pub fn is_quantity(self) -> bool {
        self.flags() & encode::QUANTITY != 0
    }
}

impl std::fmt::Debug for Schema<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schema({} {:?} {})", self.node, self.shape(), self.type_name().unwrap_or_default())
    }
}

#[cfg(test)]
mod custom_tests;
#[cfg(test)]
mod tests;
