//! The Kubernetes object model as values: resource rows, schemas, selectors, quantities, patches, apply,
//! per-kind strategies, tables and OpenAPI. No I/O, no clock, no async: values in, values out.
//!
//! An object in flight is a [`serde_json::Value`]; what it may contain is said by a [`schema::Schema`], what it
//! means beyond that by a [`strategy::Strategy`]. Everything generic about a resource is a [`catalogue::Resource`] row.

pub mod apply;
pub mod catalogue;
pub mod cidr;
pub mod conversion;
pub mod cron;
pub mod decode;
pub mod field;
pub mod meta;
pub mod name;
pub mod openapi;
pub mod patch;
pub mod placement;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod table;

/// The release whose API this is, as every component reports it.
pub const KUBERNETES_VERSION: &str =
    concat!("v1.36.2+keelson", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
