//! `"...".format([...])`: verbs s, d, f, e, b, o, x, X with a precision.

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::functions::convert;
use crate::value::Value;

/// Digits after the point where none are asked for.
const PRECISION: usize = 6;
/// The largest precision there is.
const PRECISION_MAX: usize = 100;

pub fn format(text: &str, args: &[Value]) -> Outcome {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let wanted: usize = digits.parse().map_err(|_| Error::other("could not parse precision"))?;
            precision = Some(wanted.min(PRECISION_MAX));
        }
        let verb = chars.next().ok_or_else(|| Error::other("unexpected end of string"))?;
        let arg = args.next().ok_or_else(|| Error::other("index out of range: not enough arguments to format()"))?;
        out.push_str(&clause(verb, precision, arg)?);
    }
    Ok(Value::text(out))
}

fn clause(verb: char, precision: Option<usize>, arg: &Value) -> Result<String, Error> {
    let refused = || {
        let name = arg.type_name();
        Error::other(format!("error during formatting: verb {verb} does not take values of type {name}"))
    };
    let digits = precision.unwrap_or(PRECISION);
    Ok(match (verb, arg) {
        ('s', value) => shown(value),
        ('d', Value::Int(i)) => i.to_string(),
        ('d', Value::Uint(u)) => u.to_string(),
        ('d', Value::Double(d)) => convert::double_text(*d),
        ('f', value) => format!("{:.digits$}", number(value).ok_or_else(refused)?),
        ('e', value) => exponent(number(value).ok_or_else(refused)?, digits),
        ('b', Value::Bool(b)) => u8::from(*b).to_string(),
        ('b', Value::Int(i)) => signed(*i, |magnitude| format!("{magnitude:b}")),
        ('b', Value::Uint(u)) => format!("{u:b}"),
        ('o', Value::Int(i)) => signed(*i, |magnitude| format!("{magnitude:o}")),
        ('o', Value::Uint(u)) => format!("{u:o}"),
        ('x', Value::Int(i)) => signed(*i, |magnitude| format!("{magnitude:x}")),
        ('x', Value::Uint(u)) => format!("{u:x}"),
        ('x', Value::String(text)) => hex(text.as_bytes()),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', _) => clause('x', precision, arg)?.to_uppercase(),
        ('d' | 'b' | 'o' | 'x', _) => return Err(refused()),
        _ => {
            return Err(Error::other(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            )));
        }
    })
}

fn signed(number: i64, text: fn(u64) -> String) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, text(number.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Double(d) => Some(*d),
        Value::Int(i) => Some(*i as f64),
        Value::Uint(u) => Some(*u as f64),
        _ => None,
    }
}

fn exponent(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, magnitude) = exponent.strip_prefix('-').map_or(("+", exponent), |magnitude| ("-", magnitude));
    format!("{mantissa}e{sign}{magnitude:0>2}")
}

/// A value of any type as text.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.to_string(),
        Value::List(list) => {
            format!("[{}]", list.items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        Value::Map(map) => {
            let entries: Vec<String> =
                map.entries.iter().map(|(key, value)| format!("{key}: {}", shown(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => match convert::to_text(other) {
            Some(text) => text,
            None => other.type_name().to_owned(),
        },
    }
}
