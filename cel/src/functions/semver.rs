//! Semantic versions (2.0.0), and forgiving ones: a `v` before, parts left out, leading zeros.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::Value;

#[derive(Debug)]
pub struct Semver {
    numbers: [u64; 3],
    before: Vec<String>,
    build: String,
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.order(other).is_eq()
    }
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.before.is_empty() {
            write!(f, "-{}", self.before.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

impl Semver {
    fn order(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let parts = self.before.iter().zip(&other.before).map(|(a, b)| identifier_order(a, b));
                parts.fold(Ordering::Equal, Ordering::then).then(self.before.len().cmp(&other.before.len()))
            }
        })
    }
}

fn identifier_order(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        _ => a.cmp(b),
    }
}

fn parse(text: &str, forgiving: bool) -> Result<Semver, Error> {
    let refused = || Error::other(format!("parse error during conversion from string: invalid version \"{text}\""));
    let text = if forgiving { text.strip_prefix('v').unwrap_or(text) } else { text };
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let parts: Vec<&str> = core.split('.').collect();
    let few = parts.len() < 3 && (!forgiving || before.is_some() || build.is_some());
    if parts.len() > 3 || few {
        return Err(refused());
    }
    let mut numbers = [0; 3];
    for (number, part) in numbers.iter_mut().zip(parts) {
        let legal = part.bytes().all(|c| c.is_ascii_digit()) && (forgiving || part == "0" || !part.starts_with('0'));
        *number = part.parse().ok().filter(|_| legal).ok_or_else(refused)?;
    }
    let identifiers = |text: &str| -> Option<Vec<String>> {
        let legal = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        text.split('.').map(|part| legal(part).then(|| part.to_owned())).collect()
    };
    let before = before.map_or(Some(Vec::new()), identifiers).ok_or_else(refused)?;
    if before.iter().any(|part| part.len() > 1 && part.starts_with('0') && part.bytes().all(|c| c.is_ascii_digit())) {
        return Err(refused());
    }
    let build = build.map_or(Some(Vec::new()), identifiers).ok_or_else(refused)?.join(".");
    Ok(Semver { numbers, before, build })
}

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    let make = |text: &str, forgiving| parse(text, forgiving).map(|version| Value::Semver(Arc::new(version)));
    Some(match (function, args) {
        ("isSemver", [Value::String(text)]) => Ok(Value::Bool(parse(text, false).is_ok())),
        ("isSemver", [Value::String(text), Value::Bool(b)]) => Ok(Value::Bool(parse(text, *b).is_ok())),
        ("semver", [Value::String(text)]) => make(text, false),
        ("semver", [Value::String(text), Value::Bool(forgiving)]) => make(text, *forgiving),
        ("major", [Value::Semver(version)]) => Ok(Value::Int(version.numbers[0] as i64)),
        ("minor", [Value::Semver(version)]) => Ok(Value::Int(version.numbers[1] as i64)),
        ("patch", [Value::Semver(version)]) => Ok(Value::Int(version.numbers[2] as i64)),
        ("isGreaterThan", [Value::Semver(a), Value::Semver(b)]) => Ok(Value::Bool(a.order(b).is_gt())),
        ("isLessThan", [Value::Semver(a), Value::Semver(b)]) => Ok(Value::Bool(a.order(b).is_lt())),
        ("compareTo", [Value::Semver(a), Value::Semver(b)]) => Ok(Value::Int(a.order(b) as i64)),
        _ => return None,
    })
}
