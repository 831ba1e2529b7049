//! Text. Positions count code points.

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::functions::text_format;
use crate::value::Value;

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    let truth = |b: bool| Ok(Value::Bool(b));
    Some(match (function, args) {
        ("size", [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))]) => {
            Ok(Value::Int(value.size() as i64))
        }
        ("contains", [Value::String(text), Value::String(part)]) => truth(text.contains(&**part)),
        ("startsWith", [Value::String(text), Value::String(part)]) => truth(text.starts_with(&**part)),
        ("endsWith", [Value::String(text), Value::String(part)]) => truth(text.ends_with(&**part)),
        ("charAt", [Value::String(text), Value::Int(at)]) => char_at(text, *at),
        ("indexOf", [Value::String(text), Value::String(part)]) => Ok(index_of(text, part, 0)),
        ("indexOf", [Value::String(text), Value::String(part), Value::Int(from)]) => {
            within(text, *from).map(|from| index_of(text, part, from))
        }
        ("lastIndexOf", [Value::String(text), Value::String(part)]) => Ok(last_index_of(text, part, usize::MAX)),
        ("lastIndexOf", [Value::String(text), Value::String(part), Value::Int(to)]) => {
            within(text, *to).map(|to| last_index_of(text, part, to))
        }
        ("lowerAscii", [Value::String(text)]) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", [Value::String(text)]) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", [Value::String(text)]) => Ok(Value::text(text.trim())),
        ("replace", [Value::String(text), Value::String(from), Value::String(to)]) => replace(text, from, to, -1),
        ("replace", [Value::String(text), Value::String(from), Value::String(to), Value::Int(times)]) => {
            replace(text, from, to, *times)
        }
        ("split", [Value::String(text), Value::String(by)]) => Ok(split(text, by, -1)),
        ("split", [Value::String(text), Value::String(by), Value::Int(times)]) => Ok(split(text, by, *times)),
        ("substring", [Value::String(text), Value::Int(from)]) => substring(text, *from, text.chars().count() as i64),
        ("substring", [Value::String(text), Value::Int(from), Value::Int(to)]) => substring(text, *from, *to),
        ("join", [Value::List(list)]) => join(&list.items, ""),
        ("join", [Value::List(list), Value::String(by)]) => join(&list.items, by),
        ("format", [Value::String(text), Value::List(list)]) => text_format::format(text, &list.items),
        ("strings.quote", [Value::String(text)]) => Ok(Value::text(quote(text))),
        ("jsonpatch.escapeKey", [Value::String(text)]) => Ok(Value::text(text.replace('~', "~0").replace('/', "~1"))),
        _ => return None,
    })
}

fn out_of_range(at: i64) -> Error {
    Error::other(format!("index out of range: {at}"))
}

fn within(text: &str, at: i64) -> Result<usize, Error> {
    let length = text.chars().count();
    usize::try_from(at).ok().filter(|at| *at <= length).ok_or_else(|| out_of_range(at))
}

fn char_at(text: &str, at: i64) -> Outcome {
    let at = within(text, at)?;
    Ok(Value::text(text.chars().nth(at).map(String::from).unwrap_or_default()))
}

fn byte_offset(text: &str, chars: usize) -> usize {
    text.char_indices().nth(chars).map_or(text.len(), |(offset, _)| offset)
}

fn index_of(text: &str, part: &str, from: usize) -> Value {
    let start = byte_offset(text, from);
    match text[start..].find(part) {
        Some(offset) => Value::Int((from + text[start..start + offset].chars().count()) as i64),
        None => Value::Int(-1),
    }
}

fn last_index_of(text: &str, part: &str, to: usize) -> Value {
    if part.is_empty() {
        return Value::Int(text.chars().count().min(to) as i64);
    }
    // The match may begin at `to` at the latest.
    let end = if to == usize::MAX { text.len() } else { (byte_offset(text, to) + part.len()).min(text.len()) };
    let end = (0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    match text[..end].rfind(part) {
        Some(offset) => Value::Int(text[..offset].chars().count() as i64),
        None => Value::Int(-1),
    }
}

/// Bytes a replacement may make.
const TEXT_BYTES_MAX: usize = 16 << 20;

fn replace(text: &str, from: &str, to: &str, times: i64) -> Outcome {
    let count = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    let count = usize::try_from(times).map_or(count, |times| count.min(times));
    if text.len().saturating_add(count.saturating_mul(to.len())) > TEXT_BYTES_MAX {
        return Err(Error::other("the result is too long"));
    }
    Ok(Value::text(if times < 0 { text.replace(from, to) } else { text.replacen(from, to, count) }))
}

fn split(text: &str, by: &str, times: i64) -> Value {
    let part = |part: &str| Value::text(part);
    let parts = match times {
        0 => Vec::new(),
        1 => vec![part(text)],
        _ if by.is_empty() => {
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let keep = usize::try_from(times).map_or(chars.len(), |times| times.min(chars.len()));
            let mut parts: Vec<String> = chars[..keep].to_vec();
            if let Some(last) = parts.last_mut() {
                last.push_str(&chars[keep..].concat());
            }
            parts.into_iter().map(Value::text).collect()
        }
        _ if times < 0 => text.split(by).map(part).collect(),
        _ => text.splitn(usize::try_from(times).unwrap_or(usize::MAX), by).map(part).collect(),
    };
    Value::list(parts)
}

fn substring(text: &str, from: i64, to: i64) -> Outcome {
    let (start, end) = (within(text, from)?, within(text, to)?);
    if start > end {
        return Err(Error::other(format!("invalid substring range. start: {from}, end: {to}")));
    }
    Ok(Value::text(text.chars().skip(start).take(end - start).collect::<String>()))
}

fn join(items: &[Value], by: &str) -> Outcome {
    let parts: Option<Vec<&str>> = items.iter().map(Value::as_text).collect();
    parts.map(|parts| Value::text(parts.join(by))).ok_or(Error::NoSuchOverload)
}

pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
