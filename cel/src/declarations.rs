//! The functions there are, by signature: CEL's standard ones and those of Kubernetes v1.36's base environment. The text
//! is read once. Capital letters stand for any type.

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::types::Type;

/// One way to call a function. A member function's receiver is its first parameter.
#[derive(Debug)]
pub struct Overload {
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
}

const TEXT: &str = include_str!("declarations.txt");

/// Names of library types in the text, and as messages have them.
const NAMED: &[(&str, &str)] = &[
    ("Quantity", "kubernetes.Quantity"),
    ("URL", "kubernetes.URL"),
    ("IP", "net.IP"),
    ("CIDR", "net.CIDR"),
    ("Semver", "kubernetes.Semver"),
    ("Format", "kubernetes.NamedFormat"),
    ("Authorizer", "kubernetes.authorization.Authorizer"),
    ("PathCheck", "kubernetes.authorization.PathCheck"),
    ("GroupCheck", "kubernetes.authorization.GroupCheck"),
    ("ResourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("Decision", "kubernetes.authorization.Decision"),
];

pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";

pub fn functions() -> &'static HashMap<&'static str, Vec<Overload>> {
    static FUNCTIONS: OnceLock<HashMap<&'static str, Vec<Overload>>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut out: HashMap<&'static str, Vec<Overload>> = HashMap::new();
        for line in TEXT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, overload) = signature(line).expect("declarations.txt holds signatures");
            out.entry(name).or_default().push(overload);
        }
        out
    })
}

/// `RECEIVER NAME(PARAMS) RESULT`, without the receiver for a global function.
fn signature(line: &'static str) -> Option<(&'static str, Overload)> {
    let (head, result) = line.split_once(" -> ")?;
    let (receiver, call) = match head.split_once(" . ") {
        Some((receiver, call)) => (Some(receiver), call),
        None => (None, head),
    };
    // The name of an operator may hold brackets, but not this one.
    let open = call.find('(')?;
    let name = &call[..open];
    let inner = call[open + 1..].strip_suffix(')')?;
    let mut params: Vec<Type> = receiver.map(parse_type).into_iter().collect::<Option<_>>()?;
    for param in split(inner) {
        params.push(parse_type(param)?);
    }
    Some((name, Overload { member: receiver.is_some(), params, result: parse_type(result)? }))
}

/// At commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        out.push(text[start..].trim());
    }
    out
}

fn parse_type(text: &str) -> Option<Type> {
    if let Some((outer, inner)) = text.split_once('(') {
        let inner = split(inner.strip_suffix(')')?);
        let mut inner = inner.into_iter().map(parse_type);
        let first = inner.next()??;
        return Some(match outer {
            "list" => Type::list(first),
            "map" => Type::map(first, inner.next()??),
            "optional" => Type::optional(first),
            _ => return None,
        });
    }
    Some(match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "A" => Type::Param(0),
        "B" => Type::Param(1),
        _ => {
            let (_, name) = NAMED.iter().find(|(short, _)| *short == text)?;
            Type::named(name)
        }
    })
}
