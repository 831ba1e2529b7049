//! Label selectors (`k8s.io/apimachinery/pkg/labels`) and field selectors (`…/pkg/fields`).

/// Why a selector is refused; the text is upstream's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);
