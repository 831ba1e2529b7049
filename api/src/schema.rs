//! Schemas in a compact arena. Built-in types are compiled at build time from the `k8s-openapi` crate and the
//! project's merge-rule table; a CustomResourceDefinition's schema is compiled into the same form at run time.
//! A [`Schema`] is a cheap copyable handle to one node.

/// How a list is merged by server-side apply (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// What values a node admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Named fields; see [`Schema::fields`].
    Object,
    /// String keys, values of [`Schema::values`].
    Map,
    /// Items of [`Schema::items`].
    List,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`; also quantities, which accept a number or a string.
    IntOrString,
    /// Anything: raw extensions, `x-kubernetes-preserve-unknown-fields`, JSON.
    Any,
}
