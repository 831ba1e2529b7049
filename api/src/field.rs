//! Validation errors by field path, with upstream's reasons (`k8s.io/apimachinery/pkg/util/validation/field`).

use serde_json::Value;

/// Upstream's `field.ErrorType`; the text is the `reason` of a `Status` cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    Required,
    Invalid,
    /// An object or list is wrong as a whole: its value is not shown (`OmitValueType`).
    InvalidWhole,
    NotSupported,
    Duplicate,
    Forbidden,
    TooLong,
    TooMany,
    NotFound,
    Internal,
    TypeInvalid,
}

impl ErrorKind {
    /// The `reason` in `status.details.causes`, such as `FieldValueRequired`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid | Self::InvalidWhole => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::InvalidWhole | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One rejected field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorKind,
    /// Path such as `spec.containers[0].name` or `metadata.labels`; empty for the object itself.
    pub path: String,
    /// The refused value, shown in the message where upstream shows it.
    pub value: Value,
    pub detail: String,
}

impl Error {
    pub fn new(kind: ErrorKind, path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind, path: path.into(), value: value.into(), detail: detail.into() }
    }
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, Value::Null, detail)
    }
    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, value, detail)
    }
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, Value::Null, detail)
    }
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::Duplicate, path, value, "")
    }
    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let listed: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        Self::new(ErrorKind::NotSupported, path, value, format!("supported values: {}", listed.join(", ")))
    }

    /// The cause message without the path: kind, value where it helps, detail.
    pub fn body(&self) -> String {
        let shows_value = !matches!(
            self.kind,
            ErrorKind::Required
                | ErrorKind::InvalidWhole
                | ErrorKind::Forbidden
                | ErrorKind::TooLong
                | ErrorKind::TooMany
                | ErrorKind::Internal
        );
        let mut out = self.kind.text().to_owned();
        if shows_value {
            out = format!("{out}: {}", self.value);
        }
        if !self.detail.is_empty() {
            out = format!("{out}: {}", self.detail);
        }
        out
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}
