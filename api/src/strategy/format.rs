//! What texts may look like. Each rule lists what is wrong with a text, in upstream's words; an empty list means that
//! it is fine. [`check`] reports them at a place.

use serde_json::Value;

use super::metadata;
use super::place::{Errors, Place};
pub use crate::name::{
    config_map_key, dns1035_label as label_1035, dns1123_label as label, dns1123_subdomain as subdomain,
    dns1123_subdomain_with_underscore as subdomain_with_underscore, http_header_name, label_value, path_segment,
    port_name, port_number, qualified_name, relaxed_env_var_name as env_name,
    wildcard_dns1123_subdomain as wildcard_subdomain,
};

/// Reports every complaint of `rule` about the text at `place`.
pub fn check(place: &Place, rule: impl Fn(&str) -> Vec<String>, errors: &mut Errors) {
    errors.extend(rule(place.str()).into_iter().map(|problem| place.invalid(problem)));
}

/// A port by number or by name (`ValidatePortNumOrName`).
pub fn port(place: &Place, errors: &mut Errors) {
    match place.value {
        Value::String(name) => errors.extend(port_name(name).into_iter().map(|p| place.invalid(p))),
        _ => number_port(place, errors),
    }
}

/// A port number; absent counts as 0, which is none.
pub fn number_port(place: &Place, errors: &mut Errors) {
    errors.extend(port_number(place.int().unwrap_or(0)).into_iter().map(|p| place.invalid(p)));
}

/// `ValidateLabelSelector`.
pub fn label_selector(selector: &Place, errors: &mut Errors) {
    metadata::labels(&selector.field("matchLabels"), errors);
    for expression in selector.field("matchExpressions").items() {
        let (operator, values) = (expression.field("operator"), expression.field("values"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(operator.invalid("not a valid selector operator")),
        }
        check(&expression.field("key"), qualified_name, errors);
        for value in values.items() {
            check(&value, label_value, errors);
        }
    }
}

/// `ValidateSignerName`: `domain/path`.
pub fn signer_name(name: &str) -> Vec<String> {
    let Some((domain, path)) = name.split_once('/') else {
        return vec!["must be a fully qualified domain and path of the form 'example.com/signer-name'".to_owned()];
    };
    let mut problems: Vec<String> = Vec::new();
    problems.extend(subdomain(domain).into_iter().map(|p| format!("validating label {domain:?}: {p}")));
    if domain.split('.').count() < 2 {
        problems.push("should be a domain with at least two segments separated by dots".to_owned());
    }
    if path.is_empty() {
        problems.push("must have a path after the domain".to_owned());
    }
    problems.extend(path.split('.').filter(|l| !l.is_empty()).flat_map(label));
    problems
}

/// `IsDomainPrefixedPath`: `domain/path`.
pub fn domain_prefixed_path(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["must be a non-empty string".to_owned()];
    }
    let Some((domain, path)) = text.split_once('/').filter(|(d, p)| !d.is_empty() && !p.is_empty()) else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()];
    };
    let mut problems = subdomain(domain);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !path.bytes().all(allowed) {
        problems.push("Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')".to_owned());
    }
    problems
}

/// `isValidConditionReason`.
pub fn condition_reason(reason: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = reason.as_bytes();
    let fine = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|&b| word(b) || b == b',' || b == b':')
        && bytes.last().is_some_and(|&b| word(b));
    if fine {
        return Vec::new();
    }
    vec![
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name', regex used for \
         validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"
            .to_owned(),
    ]
}

/// A user or group id (`IsValidUserID`, `IsValidGroupID`).
pub fn id(place: &Place, errors: &mut Errors) {
    place.in_range(0, i64::from(i32::MAX), errors);
}
