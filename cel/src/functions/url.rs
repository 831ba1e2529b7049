//! Absolute URLs and absolute paths, as Go's `url.ParseRequestURI` takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::{Key, Value};

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    /// As it was written.
    path: String,
    query: String,
}

pub fn parse(text: &str) -> Result<Url, Error> {
    let refused =
        |why: &str| Error::other(format!("URL parse error during conversion from string: parse \"{text}\": {why}"));
    if text.is_empty() {
        return Err(refused("empty url"));
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err(refused("net/url: invalid control character in URL"));
    }
    let (scheme, rest) = scheme(text);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None if rest.starts_with('/') => ("", rest),
        // Opaque (`mailto:x`) counts as an absolute URI.
        None if !scheme.is_empty() && !rest.is_empty() => ("", ""),
        None => return Err(refused("invalid URI for request")),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    valid_host(host).map_err(|why| refused(&why))?;
    if !valid_escapes(path) || !valid_escapes(host) {
        return Err(refused("invalid URL escape"));
    }
    let owned = str::to_owned;
    Ok(Url { scheme: scheme.to_ascii_lowercase(), host: owned(host), path: escaped(path), query: owned(query) })
}

fn scheme(text: &str) -> (&str, &str) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    match text.split_once(':') {
        Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(legal) => {
            (scheme, rest)
        }
        _ => ("", text),
    }
}

fn valid_host(host: &str) -> Result<(), String> {
    let (name, port) = split_port(host);
    if host.starts_with('[') && !name.ends_with(']') {
        return Err("missing ']' in host".to_owned());
    }
    if !port.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("invalid port \":{port}\" after host"));
    }
    match name.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(c) => Err(format!("invalid character \"{c}\" in host name")),
        None => Ok(()),
    }
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

fn valid_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|c| c.is_ascii_hexdigit()))
}

/// Characters that a path may not hold as they are.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = || std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok().and_then(|t| u8::from_str_radix(t, 16).ok());
        match (bytes[at], code()) {
            (b'%', Some(code)) => {
                out.push(code);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn query(url: &Url) -> Value {
    let mut out: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        out.entry(Key::from(unescape(name).as_str())).or_default().push(Value::text(unescape(value)));
    }
    Value::map(out.into_iter().map(|(name, values)| (name, Value::list(values))))
}

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (function, args) {
        ("isURL", [Value::String(text)]) => Ok(Value::Bool(parse(text).is_ok())),
        ("url", [Value::String(text)]) => parse(text).map(|url| Value::Url(Arc::new(url))),
        ("getScheme", [Value::Url(url)]) => Ok(Value::text(url.scheme.as_str())),
        ("getHost", [Value::Url(url)]) => Ok(Value::text(url.host.as_str())),
        ("getHostname", [Value::Url(url)]) => {
            Ok(Value::text(split_port(&url.host).0.trim_start_matches('[').trim_end_matches(']')))
        }
        ("getPort", [Value::Url(url)]) => Ok(Value::text(split_port(&url.host).1)),
        ("getEscapedPath", [Value::Url(url)]) => Ok(Value::text(url.path.as_str())),
        ("getQuery", [Value::Url(url)]) => Ok(query(url)),
        _ => return None,
    })
}
