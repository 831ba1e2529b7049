//! Label selectors (`k8s.io/apimachinery/pkg/labels`) and field selectors (`…/pkg/fields`).
//!
//! A parsed selector matches without allocation: labels are looked up by a function, fields by name.

mod field;
mod label;
mod parse;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector is refused; the text is upstream's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

#[cfg(test)]
mod tests;
