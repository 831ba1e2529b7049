//! Named formats: `format.dns1123Label().validate(text)` gives the problems, or none.

use api::name;

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::functions::{convert, url};
use crate::json;
use crate::value::Value;

pub struct Format {
    pub name: &'static str,
    /// What its pattern counts for in costs.
    pub pattern_size: u64,
    problems: fn(&str) -> Vec<String>,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn row(name: &'static str, pattern_size: u64, problems: fn(&str) -> Vec<String>) -> Format {
    Format { name, pattern_size, problems }
}

static FORMATS: &[Format] = &[
    row("dns1123Label", 30, name::dns1123_label),
    row("dns1123Subdomain", 60, name::dns1123_subdomain),
    row("dns1035Label", 30, name::dns1035_label),
    row("qualifiedName", 60, name::qualified_name),
    row("dns1123LabelPrefix", 30, |text| name::dns1123_label(&masked(text))),
    row("dns1123SubdomainPrefix", 60, |text| name::dns1123_subdomain(&masked(text))),
    row("dns1035LabelPrefix", 30, |text| name::dns1035_label(&masked(text))),
    row("labelValue", 40, name::label_value),
    row("uri", 1103, |text| match url::parse(text) {
        Ok(_) => Vec::new(),
        Err(error) => vec![error.to_string()],
    }),
    row("uuid", 80, |text| unless(is_uuid(text), "does not match the UUID format")),
    row("byte", 84, |text| unless(json::from_base64(text).is_some(), "invalid base64")),
    row("date", 150, |text| unless(text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(), "invalid date")),
    row("datetime", 150, |text| unless(convert::parse_timestamp(text).is_ok(), "invalid datetime")),
];

/// A prefix may end in a dash (`maskTrailingDash`).
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.to_owned(),
    }
}

fn unless(fine: bool, problem: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![problem.to_owned()] }
}

/// With dashes at their places, or without any.
fn is_uuid(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    plain.len() == 32
        && plain.bytes().all(|c| c.is_ascii_hexdigit())
        && (dashes.is_empty() || dashes == [8, 13, 18, 23])
}

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    let named = |wanted: &str| FORMATS.iter().find(|format| format.name == wanted).map(Value::Format);
    match (function, args) {
        ("format.named", [Value::String(name)]) => Some(Ok(named(name).map_or(Value::Optional(None), Value::some))),
        ("validate", [Value::Format(format), Value::String(text)]) => {
            let problems = (format.problems)(text);
            let list = || Value::list(problems.iter().map(|problem| Value::text(problem.as_str())).collect());
            Some(Ok(if problems.is_empty() { Value::Optional(None) } else { Value::some(list()) }))
        }
        (_, []) => Some(named(function.strip_prefix("format.")?).ok_or(Error::NoSuchOverload)),
        _ => None,
    }
}
