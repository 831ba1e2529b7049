//! What texts may look like: names, label keys and values, addresses. Each function lists what is wrong with a text,
//! in upstream's words; an empty list means that it is fine.

use super::place::{Errors, Place};

/// Reports every complaint of `rule` about the text at `place`.
pub fn check(place: &Place, rule: impl Fn(&str) -> Vec<String>, errors: &mut Errors) {
    errors.extend(rule(place.str()).into_iter().map(|problem| place.invalid(problem)));
}

fn one(ok: bool, problem: impl Into<String>) -> Vec<String> {
    if ok { Vec::new() } else { vec![problem.into()] }
}

pub fn subdomain(_: &str) -> Vec<String> {
    Vec::new()
}
pub fn label(_: &str) -> Vec<String> {
    Vec::new()
}
pub fn label_1035(_: &str) -> Vec<String> {
    Vec::new()
}
pub fn qualified_name(_: &str) -> Vec<String> {
    Vec::new()
}
pub fn label_value(_: &str) -> Vec<String> {
    Vec::new()
}

/// `IsValidPathSegmentName`.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    let found = ["/", "%"].into_iter().filter(|c| name.contains(c));
    found.map(|c| format!("may not contain '{c}'")).collect()
}

/// `isValidConditionReason`.
pub fn condition_reason(reason: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = reason.as_bytes();
    let ok = bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|&b| word(b) || b == b',' || b == b':')
        && bytes.last().is_some_and(|&b| word(b));
    one(
        ok,
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name', regex used for \
         validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
    )
}
