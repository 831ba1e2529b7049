//! CreateOptions, UpdateOptions and PatchOptions from query parameters, with upstream's checks.

use api::decode::FieldValidation;
use api::field;
use api::status::Status;
use serde_json::{Value, json};

use crate::request::Query;

/// Longest field manager, in bytes (`FieldManagerMaxLength`).
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// Options common to writes other than delete.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Empty when not given.
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Of apply: take fields over from other managers.
    pub force: bool,
    field_validation_text: String,
}

impl WriteOptions {
    pub fn create(query: &Query) -> Result<Self, Status> {
        Self::parse(query, "CreateOptions", Vec::new())
    }

    pub fn update(query: &Query) -> Result<Self, Status> {
        Self::parse(query, "UpdateOptions", Vec::new())
    }

    pub fn patch(query: &Query, apply: bool) -> Result<Self, Status> {
        let mut errors = Vec::new();
        if apply && query.get("fieldManager").unwrap_or_default().is_empty() {
            errors.push(field::Error::required("fieldManager", "is required for apply patch"));
        }
        if !apply && query.get("force").is_some() {
            errors.push(field::Error::forbidden("force", "may not be specified for non-apply patch"));
        }
        Self::parse(query, "PatchOptions", errors)
    }

    fn parse(query: &Query, kind: &str, mut errors: Vec<field::Error>) -> Result<Self, Status> {
        let manager = query.get("fieldManager").unwrap_or_default();
        errors.extend(manager_errors(manager));
        errors.extend(dry_run_errors(query.all("dryRun")));
        let validation = query.get("fieldValidation").unwrap_or_default();
        let field_validation = match validation {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.push(field::Error::not_supported("fieldValidation", other, &["", "Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", &errors));
        }
        Ok(Self {
            dry_run: query.all("dryRun").next().is_some(),
            field_manager: manager.to_owned(),
            field_validation,
            force: query.flag("force"),
            field_validation_text: validation.to_owned(),
        })
    }

    /// The options as an object of `kind`, for admission.
    pub fn to_value(&self, kind: &str) -> Value {
        let mut value = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            value["dryRun"] = json!(["All"]);
        }
        if !self.field_manager.is_empty() {
            value["fieldManager"] = self.field_manager.as_str().into();
        }
        if !self.field_validation_text.is_empty() {
            value["fieldValidation"] = self.field_validation_text.as_str().into();
        }
        value
    }
}

/// `ValidateDryRun`.
pub(super) fn dry_run_errors<'a>(values: impl Iterator<Item = &'a str>) -> Vec<field::Error> {
    let values: Vec<&str> = values.collect();
    if values.iter().all(|value| *value == "All") {
        return Vec::new();
    }
    vec![field::Error::not_supported("dryRun", json!(values), &["All"])]
}

/// `ValidateFieldManager`.
fn manager_errors(manager: &str) -> Vec<field::Error> {
    let mut errors = Vec::new();
    if manager.len() > FIELD_MANAGER_BYTES_MAX {
        let why = format!("may not be more than {FIELD_MANAGER_BYTES_MAX} bytes");
        errors.push(field::Error::new(field::ErrorKind::TooLong, "fieldManager", Value::Null, why));
    }
    for (position, character) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {position})", u32::from(character));
        errors.push(field::Error::invalid("fieldManager", manager, why));
    }
    errors
}
