//! Rules for names (`k8s.io/apimachinery/pkg/util/validation`, `…/pkg/api/validate/content`). Each check returns
//! upstream's messages; none means valid.

/// Longest DNS-1123 label, in bytes.
pub const LABEL_MAX_BYTES: usize = 63;
/// Longest DNS-1123 subdomain, in bytes.
pub const SUBDOMAIN_MAX_BYTES: usize = 253;
/// Longest value of a label and longest name part of a qualified name, in bytes.
pub const LABEL_VALUE_MAX_BYTES: usize = 63;
/// Longest port name, in bytes.
pub const PORT_NAME_MAX_BYTES: usize = 15;
/// How much of `generateName` is used: the longest label less the generated suffix, in bytes.
pub const GENERATE_NAME_MAX_BYTES: usize = LABEL_MAX_BYTES - 5;

const LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_REGEX: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// `must be no more than N characters`.
pub fn max_length_message(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `must be no more than N bytes`.
pub fn max_bytes_message(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `must be between MIN and MAX, inclusive`.
pub fn range_message(min: i64, max: i64) -> String {
    format!("must be between {min} and {max}, inclusive")
}

/// Upstream's `RegexError`.
pub fn regex_message(message: &str, regex: &str, examples: &[&str]) -> String {
    let shown: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    if shown.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    format!("{message} (e.g. {}regex used for validation is '{regex}')", shown.join(" or "))
}

fn lower_alnum(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Non-empty, `inner` throughout, `edge` at both ends.
fn framed(value: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    edge(*first) && edge(*last) && bytes.iter().all(|c| inner(*c))
}

fn is_label(value: &str) -> bool {
    framed(value, lower_alnum, |c| lower_alnum(c) || c == b'-')
}

fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

/// `IsDNS1123Label`.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX_BYTES {
        errors.push(max_length_message(LABEL_MAX_BYTES));
    }
    if !is_label(value) {
        errors.push(if is_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                LABEL_REGEX,
                &["my-name", "123-abc"],
            )
        });
    }
    errors
}

/// `IsDNS1123Subdomain`.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX_BYTES {
        errors.push(max_length_message(SUBDOMAIN_MAX_BYTES));
    }
    if !is_subdomain(value) {
        errors.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            SUBDOMAIN_REGEX,
            &["example.com"],
        ));
    }
    errors
}

/// `IsDNS1123SubdomainWithUnderscore`.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let is_part = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        framed(part, lower_alnum, |c| lower_alnum(c) || c == b'-' || c == b'_')
    };
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX_BYTES {
        errors.push(max_length_message(SUBDOMAIN_MAX_BYTES));
    }
    if !value.split('.').all(is_part) {
        errors.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    errors
}

/// `IsDNS1035Label`.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX_BYTES {
        errors.push(max_length_message(LABEL_MAX_BYTES));
    }
    if !(is_label(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        errors.push(regex_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// `IsWildcardDNS1123Subdomain`.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX_BYTES {
        errors.push(max_length_message(SUBDOMAIN_MAX_BYTES));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain) {
        errors.push(regex_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
             of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_REGEX}"),
            &["*.example.com"],
        ));
    }
    errors
}

fn qualified_char(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')
}

/// `IsQualifiedName`: keys of labels and annotations, resource names.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let message = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                   alphanumeric character";
    let examples = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            let what = regex_message(
                "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character",
                QUALIFIED_REGEX,
                &examples,
            );
            errors.push(format!(
                "a valid label key {what} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
            return errors;
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_VALUE_MAX_BYTES {
        errors.push(format!("name part {}", max_bytes_message(LABEL_VALUE_MAX_BYTES)));
    }
    if !framed(name, |c| c.is_ascii_alphanumeric(), qualified_char) {
        errors.push(regex_message(message, QUALIFIED_REGEX, &examples));
    }
    errors
}

/// `IsValidLabelValue`.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_VALUE_MAX_BYTES {
        errors.push(max_bytes_message(LABEL_VALUE_MAX_BYTES));
    }
    if !value.is_empty() && !framed(value, |c| c.is_ascii_alphanumeric(), qualified_char) {
        errors.push(regex_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// `IsPathSegmentName`: what may be one segment of a URL path (RBAC names and the like).
pub fn path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|bad| value.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
}

/// `IsValidPortName`.
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > PORT_NAME_MAX_BYTES {
        errors.push(max_length_message(PORT_NAME_MAX_BYTES));
    }
    if value.is_empty() || !value.bytes().all(|c| lower_alnum(c) || c == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|c| c.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// `IsValidPortNum`.
pub fn port_number(value: i64) -> Vec<String> {
    in_range(value, 1, 65535)
}

/// `IsInRange`, also for user and group ids.
pub fn in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&value) { Vec::new() } else { vec![range_message(min, max)] }
}

/// `IsValidPercent`.
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_message(message, "[0-9]+%", &["1%", "93%"])]
}

/// `IsCIdentifier`.
pub fn c_identifier(value: &str) -> Vec<String> {
    let starts = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                   alphanumeric characters or '_'";
    vec![regex_message(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// `IsHTTPHeaderName`.
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_message(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// `IsEnvVarName`.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.is_empty() || value.as_bytes()[0].is_ascii_digit() || !value.bytes().all(qualified_char) {
        errors.push(regex_message(
            "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and \
             must not start with a digit",
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    errors.extend(dot_names(value));
    errors
}

/// `IsRelaxedEnvVarName`: what pods may use since v1.32.
pub fn relaxed_env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    errors
}

/// `IsConfigMapKey`: keys of ConfigMaps and Secrets.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX_BYTES {
        errors.push(max_length_message(SUBDOMAIN_MAX_BYTES));
    }
    if value.is_empty() || !value.bytes().all(qualified_char) {
        errors.push(regex_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    errors.extend(dot_names(value));
    errors
}

/// `hasChDirPrefix`.
fn dot_names(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// `IsFullyQualifiedName`, less the empty name: a subdomain of at least three segments.
pub fn fully_qualified_name(value: &str) -> Vec<String> {
    let errors = dns1123_subdomain(value);
    if !errors.is_empty() {
        return vec![errors.join(",")];
    }
    if value.split('.').count() < 3 {
        return vec!["should be a domain with at least three segments separated by dots".to_owned()];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_valid() {
        assert!(dns1123_label("a-1").is_empty());
        assert!(dns1123_subdomain("a.b-c.1").is_empty());
        assert!(dns1035_label("a1").is_empty());
        assert!(wildcard_dns1123_subdomain("*.a.b").is_empty());
        assert!(qualified_name("example.com/My_Name").is_empty() && qualified_name("a").is_empty());
        assert!(label_value("").is_empty() && label_value("A_b.c-1").is_empty());
        assert!(port_name("http-1").is_empty() && percent("12%").is_empty() && c_identifier("_a1").is_empty());
        assert!(config_map_key("a.b_c").is_empty() && env_var_name("-a.b").is_empty());
        assert!(relaxed_env_var_name("1 a").is_empty() && path_segment("system:node").is_empty());
        assert!(dns1123_subdomain_with_underscore("_a_b.c").is_empty());
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
              end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(
            qualified_name("-x"),
            ["name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
              alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
              '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"]
        );
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(path_segment("a/%"), ["may not contain '/'", "may not contain '%'"]);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert_eq!(config_map_key("..a"), ["must not start with '..'"]);
    }

    #[test]
    fn empty_names_are_refused_where_upstream_refuses_them() {
        for check in [dns1123_label, dns1123_subdomain, dns1035_label, port_name, percent, c_identifier] {
            assert!(!check("").is_empty());
        }
        assert_eq!(qualified_name("").len(), 2);
    }
}
