//! Resource quantities (`k8s.io/apimachinery/pkg/api/resource.Quantity`): parsing, canonical text, comparison, sums.

/// A number with the kind of suffix it was written with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    /// In units of 10^-9.
    nanos: i128,
    format: Format,
}

/// Which suffixes the canonical text uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, ``, `k`, `M`, …
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `e3`, `e6`, …
    DecimalExponent,
}

/// Why text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}
