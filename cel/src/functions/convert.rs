//! Conversions between types; those that lose something fail.

use std::sync::Arc;

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::value::Value;

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    let [arg] = args else { return None };
    Some(match function {
        "int" => int(arg),
        "uint" => uint(arg),
        "double" => double(arg),
        "string" => to_text(arg).map(Value::text).ok_or(Error::NoSuchOverload),
        "bytes" => match arg {
            Value::Bytes(_) => Ok(arg.clone()),
            Value::String(text) => Ok(Value::Bytes(Arc::from(text.as_bytes()))),
            _ => Err(Error::NoSuchOverload),
        },
        "bool" => truth(arg),
        "duration" => match arg {
            Value::Duration(_) => Ok(arg.clone()),
            Value::Int(seconds) => seconds.checked_mul(SECOND).map(Value::Duration).ok_or_else(range),
            Value::String(text) => parse_duration(text).map(Value::Duration),
            _ => Err(Error::NoSuchOverload),
        },
        "timestamp" => match arg {
            Value::Timestamp(_) => Ok(arg.clone()),
            Value::Int(seconds) => jiff::Timestamp::from_second(*seconds).map(Value::Timestamp).map_err(|_| range()),
            Value::String(text) => parse_timestamp(text).map(Value::Timestamp),
            _ => Err(Error::NoSuchOverload),
        },
        "dyn" => Ok(arg.clone()),
        "type" => Ok(Value::Type(arg.type_name().into())),
        _ => return None,
    })
}

fn range() -> Error {
    Error::other("range error")
}

fn unconvertible(text: &str, to: &str) -> Error {
    Error::other(format!("type conversion error from 'string' to '{to}': {text}"))
}

fn int(arg: &Value) -> Outcome {
    match arg {
        Value::Int(_) => Ok(arg.clone()),
        Value::Uint(u) => i64::try_from(*u).map(Value::Int).map_err(|_| Error::other("integer overflow")),
        Value::Double(d) if d.abs() < 9_223_372_036_854_775_808.0 => Ok(Value::Int(*d as i64)),
        Value::Double(_) => Err(Error::other("integer overflow")),
        Value::String(text) => text.parse().map(Value::Int).map_err(|_| unconvertible(text, "int")),
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        Value::Duration(nanos) => Ok(Value::Int(*nanos)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn uint(arg: &Value) -> Outcome {
    let overflow = || Error::other("unsigned integer overflow");
    match arg {
        Value::Uint(_) => Ok(arg.clone()),
        Value::Int(i) => u64::try_from(*i).map(Value::Uint).map_err(|_| overflow()),
        Value::Double(d) if (0.0..18_446_744_073_709_551_616.0).contains(d) => Ok(Value::Uint(*d as u64)),
        Value::Double(_) => Err(overflow()),
        Value::String(text) => text.parse().map(Value::Uint).map_err(|_| unconvertible(text, "uint")),
        _ => Err(Error::NoSuchOverload),
    }
}

fn double(arg: &Value) -> Outcome {
    match arg {
        Value::Double(_) => Ok(arg.clone()),
        Value::Int(i) => Ok(Value::Double(*i as f64)),
        Value::Uint(u) => Ok(Value::Double(*u as f64)),
        Value::String(text) => text.parse().map(Value::Double).map_err(|_| unconvertible(text, "double")),
        _ => Err(Error::NoSuchOverload),
    }
}

fn truth(arg: &Value) -> Outcome {
    match arg {
        Value::Bool(_) => Ok(arg.clone()),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => Err(unconvertible(other, "bool")),
        },
        _ => Err(Error::NoSuchOverload),
    }
}

/// What `string()` makes of a value.
pub fn to_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Uint(u) => u.to_string(),
        Value::Double(d) => double_text(*d),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Value::Duration(nanos) => duration_text(*nanos),
        Value::Timestamp(time) => time.to_string(),
        Value::Type(name) => name.to_string(),
        Value::Ip(address) => address.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        Value::Quantity(quantity) => quantity.to_string(),
        Value::Semver(version) => version.to_string(),
        _ => return None,
    })
}

/// As Go's `%g` with the shortest digits: an exponent below 1e-4 and from 1e21 on.
pub fn double_text(d: f64) -> String {
    if d.is_nan() {
        return "NaN".to_owned();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if d != 0.0 && !(1e-4..1e21).contains(&d.abs()) {
        let text = format!("{d:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, magnitude) = exponent.strip_prefix('-').map_or(("+", exponent), |m| ("-", m));
        return format!("{mantissa}e{sign}{magnitude:0>2}");
    }
    format!("{d}")
}

const SECOND: i64 = 1_000_000_000;

/// Seconds with a fraction, as `string(duration)` writes it.
pub fn duration_text(nanos: i64) -> String {
    let (whole, rest) = (nanos.unsigned_abs() / SECOND as u64, nanos.unsigned_abs() % SECOND as u64);
    let sign = if nanos < 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{whole}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

/// Go's `ParseDuration`.
pub fn parse_duration(text: &str) -> Result<i64, Error> {
    let bad = || Error::other(format!("invalid duration \"{text}\""));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        rest = behind;
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || fraction.contains('.') {
            return Err(bad());
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        nanos += whole * unit;
        let digits = &fraction[..fraction.len().min(15)];
        if !digits.is_empty() {
            nanos += digits.parse::<i128>().map_err(|_| bad())? * unit / 10_i128.pow(digits.len() as u32);
        }
        if nanos > i128::from(i64::MAX) {
            return Err(bad());
        }
    }
    i64::try_from(if negative { -nanos } else { nanos }).map_err(|_| bad())
}

/// RFC 3339.
pub fn parse_timestamp(text: &str) -> Result<jiff::Timestamp, Error> {
    // The parser takes more than the standard: a space instead of the T, an hour alone.
    let strict = text.as_bytes().get(10) == Some(&b'T') && text.len() >= 20;
    let parsed = if strict { text.parse().ok() } else { None };
    parsed.ok_or_else(|| Error::other(format!("invalid timestamp \"{text}\"")))
}
