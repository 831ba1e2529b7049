//! ListOptions from query parameters, with upstream's checks (`ValidateListOptions`), and what they select.

use std::borrow::Cow;

use api::catalogue::Resource;
use api::field;
use api::selector::{FieldSelector, LabelSelector};
use api::status::Status;
use serde_json::Value;

use crate::cache::{INDEXED_FIELD, Item};
use crate::request::Query;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Unset,
    Exact,
    NotOlderThan,
}

/// A decoded and checked list or watch request.
#[derive(Clone, Debug)]
pub struct ListOptions {
    pub selection: Selection,
    /// `None` for unset: the most recent state.
    pub resource_version: Option<u64>,
    pub matching: Match,
    pub limit: usize,
    pub continue_token: String,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

/// Which objects are meant.
#[derive(Clone, Debug)]
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object is meant. `key` is its cache key.
    pub fn matches(&self, resource: &Resource, key: &str, item: &Item) -> bool {
        if !self.labels.matches_with(|label| item.label(label)) {
            return false;
        }
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        if resource.custom && self.fields.terms.iter().any(|term| !term.field.starts_with("metadata.")) {
            return self.matches_custom(resource, namespace, name, &item.value());
        }
        self.fields.matches_with(|field| match field {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            other => item.field(&stored(canonical(other))),
        })
    }

    /// Custom resources have their selectable fields by path; they are read when they are asked for.
    fn matches_custom(&self, resource: &Resource, namespace: &str, name: &str, object: &Value) -> bool {
        let values: Vec<(&str, String)> =
            resource.selectable_fields.iter().map(|path| (path.as_str(), field_of(object, path))).collect();
        self.fields.matches_with(|field| match field {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            other => values.iter().find(|(path, _)| *path == other).map(|(_, value)| value.as_str()),
        })
    }

    /// The one name that can match.
    pub fn name(&self) -> Option<&str> {
        self.fields.required_value("metadata.name")
    }

    /// The one value of the indexed field that can match.
    pub fn indexed(&self) -> Option<&str> {
        self.fields.required_value(INDEXED_FIELD)
    }
}

/// The name under which a field is kept: events are stored in their core form, whose fields have other names
/// (`AddFieldLabelConversionsForEvent`).
fn stored(field: &str) -> Cow<'_, str> {
    match field.strip_prefix("regarding.") {
        Some(rest) => format!("involvedObject.{rest}").into(),
        None if field == "reportingController" => "reportingComponent".into(),
        None => field.into(),
    }
}

/// Old names of fields, which upstream still accepts.
fn canonical(field: &str) -> &str {
    if field == "spec.host" { INDEXED_FIELD } else { field }
}

impl ListOptions {
    pub fn parse(query: &Query, resource: &Resource, watch: bool) -> Result<Self, Status> {
        let bad = |e: api::selector::Error| Status::bad_request(e.0);
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default()).map_err(bad)?;
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default()).map_err(bad)?;
        let limit = integer(query, "limit")?.unwrap_or_default();
        let timeout = integer(query, "timeoutSeconds")?;
        let matching = query.get("resourceVersionMatch").unwrap_or_default();
        let version = query.get("resourceVersion").unwrap_or_default();
        let continue_token = query.get("continue").unwrap_or_default().to_owned();
        let initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let errors = if watch {
            watch_errors(matching, &continue_token, initial)
        } else {
            list_errors(matching, version, &continue_token, initial)
        };
        if !errors.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        check_fields(&fields, resource)?;
        Ok(Self {
            selection: Selection { labels, fields },
            resource_version: resource_version(version)?,
            matching: match matching {
                "Exact" => Match::Exact,
                "NotOlderThan" => Match::NotOlderThan,
                _ => Match::Unset,
            },
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token,
            timeout_seconds: timeout.and_then(|t| u64::try_from(t).ok()),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: initial,
        })
    }
}

fn integer(query: &Query, key: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
    }
}

/// A resourceVersion parameter: a number, or unset.
pub fn resource_version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Status::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))),
    }
}

fn check_fields(fields: &FieldSelector, resource: &Resource) -> Result<(), Status> {
    let known = |field: &str| {
        field == "metadata.name"
            || field == "metadata.namespace"
            || resource.selectable_fields.iter().any(|f| f == canonical(field))
    };
    match fields.terms.iter().find(|term| !known(&term.field)) {
        None => Ok(()),
        Some(term) if resource.custom || !resource.selectable_fields.is_empty() => {
            Err(Status::bad_request(format!("field label not supported: {}", term.field)))
        }
        Some(term) => Err(Status::bad_request(format!(
            "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            term.field
        ))),
    }
}

const MATCH: &str = "resourceVersionMatch";

fn list_errors(matching: &str, version: &str, continue_token: &str, initial: Option<bool>) -> Vec<field::Error> {
    let mut errors = Vec::new();
    if !matching.is_empty() {
        if version.is_empty() {
            errors.push(field::Error::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !continue_token.is_empty() {
            errors.push(field::Error::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if matching != "Exact" && matching != "NotOlderThan" {
            errors.push(field::Error::not_supported(MATCH, matching, &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == "0" {
            errors.push(field::Error::forbidden(
                MATCH,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if initial.is_some() {
        errors.push(field::Error::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    errors
}

fn watch_errors(matching: &str, continue_token: &str, initial: Option<bool>) -> Vec<field::Error> {
    let mut errors = Vec::new();
    if initial.is_some() && matching != "NotOlderThan" {
        errors.push(field::Error::forbidden(
            MATCH,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if !matching.is_empty() {
        if initial.is_none() {
            errors.push(field::Error::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if matching != "NotOlderThan" {
            errors.push(field::Error::not_supported(MATCH, matching, &["NotOlderThan"]));
        }
        if !continue_token.is_empty() {
            errors.push(field::Error::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    errors
}

/// The scalar at a dotted path, as text; empty when absent.
fn field_of(object: &Value, path: &str) -> String {
    let found = path.trim_start_matches('.').split('.').try_fold(object, |value, step| value.get(step));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}
