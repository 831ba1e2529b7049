//! YAML text to a value, with the types that `sigs.k8s.io/yaml` gives plain scalars (YAML 1.1 booleans, octal
//! numbers), merge keys, and bounded aliases. Only the first document is read.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Number, Value};

use super::{Error, MAX_DEPTH_LEVELS};

/// Most nodes that aliases may add to a document.
const MAX_ALIAS_NODES: usize = 100_000;
/// Most bytes of text that aliases may add to a document.
const MAX_ALIAS_BYTES: usize = 8 << 20;

pub(super) struct Document {
    pub value: Value,
    /// `line 5: key "name" already set in map`, in the order of the text.
    pub duplicates: Vec<String>,
}

struct Loader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Value>,
    alias_nodes: usize,
    alias_bytes: usize,
    duplicates: Vec<String>,
}

/// Reads the first document; an empty text is null.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("control characters are not allowed"))?;
    let mut loader = Loader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        alias_nodes: 0,
        alias_bytes: 0,
        duplicates: Vec::new(),
    };
    let value = loop {
        match loader.next()? {
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            (Event::StreamEnd | Event::DocumentEnd, _) => break Value::Null,
            (event, span) => break loader.node(event, span, 0)?,
        }
    };
    Ok(Document { value, duplicates: loader.duplicates })
}

fn refuse(what: &str) -> Error {
    Error::Syntax(format!("error converting YAML to JSON: yaml: {what}"))
}

/// Nodes and bytes of text in a value.
fn size(value: &Value) -> (usize, usize) {
    match value {
        Value::Array(items) => items.iter().map(size).fold((1, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        Value::Object(map) => {
            map.iter().map(|(k, v)| (size(v), k.len())).fold((1, 0), |a, ((n, b), k)| (a.0 + n, a.1 + b + k))
        }
        Value::String(text) => (1, text.len()),
        _ => (1, 0),
    }
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Error> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => return Err(refuse(&format!("line {}: {}", error.marker().line(), error.info()))),
                None => return Err(refuse("unexpected end of document")),
            }
        }
    }

    /// The node that starts with `event`.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Value, Error> {
        if depth >= MAX_DEPTH_LEVELS {
            return Err(refuse("exceeded max depth"));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(&text, style, tag.as_deref())?),
            Event::SequenceStart(_, anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(anchor) => return self.alias(anchor),
            _ => return Err(refuse(&format!("line {}: unexpected content", span.start.line()))),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize) -> Result<Value, Error> {
        let value = self.anchors.get(&anchor).ok_or_else(|| refuse("anchor value contains itself"))?;
        let (nodes, bytes) = size(value);
        self.alias_nodes += nodes;
        self.alias_bytes += bytes;
        if self.alias_nodes > MAX_ALIAS_NODES || self.alias_bytes > MAX_ALIAS_BYTES {
            return Err(refuse("document contains excessive aliasing"));
        }
        Ok(value.clone())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Error> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Error> {
        let mut map = Map::new();
        let mut merged: Vec<Value> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let line = span.start.line();
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if is_merge {
                merged.push(value);
                continue;
            }
            let (key, shown) = key_text(key)?;
            if map.contains_key(&key) {
                self.duplicates.push(format!("line {line}: key {shown} already set in map"));
            }
            map.insert(key, value);
        }
        for source in merged {
            merge(&mut map, source)?;
        }
        Ok(Value::Object(map))
    }
}

/// Adds what a merge key brings and the mapping does not have.
fn merge(map: &mut Map<String, Value>, source: Value) -> Result<(), Error> {
    match source {
        Value::Object(entries) => {
            for (key, value) in entries {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(sources) => sources.into_iter().try_for_each(|source| merge(map, source)),
        _ => Err(refuse("map merge requires map or sequence of maps as the value")),
    }
}

/// A key as JSON has it, and as upstream shows it.
fn key_text(key: Value) -> Result<(String, String), Error> {
    match key {
        Value::String(text) => {
            let shown = format!("{text:?}");
            Ok((text, shown))
        }
        Value::Number(_) | Value::Bool(_) => Ok((key.to_string(), key.to_string())),
        _ => Err(refuse("unsupported map key")),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Error> {
    let as_text = || Value::String(text.to_owned());
    match tag.map(|t| if t.is_yaml_core_schema() || t.handle() == "tag:yaml.org,2002:" { t.suffix() } else { "" }) {
        Some("str" | "") => Ok(as_text()),
        Some("binary") => {
            let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, compact);
            let decoded = bytes.ok().and_then(|b| String::from_utf8(b).ok());
            decoded.map(Value::String).ok_or_else(|| refuse("!!binary value contains invalid base64 data"))
        }
        Some(_) => plain(text),
        None if style == ScalarStyle::Plain => plain(text),
        None => Ok(as_text()),
    }
}

/// The type of a plain scalar.
fn plain(text: &str) -> Result<Value, Error> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(Error::Syntax(format!("error converting YAML to JSON: json: unsupported value: {text}")));
    }
    if unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && let Some(number) = whole_number(text).or_else(|| fractional_number(text))
    {
        return Ok(Value::Number(number));
    }
    Ok(Value::String(text.to_owned()))
}

/// Whole numbers: decimal, `0x`, `0b`, `0o` and, as YAML 1.1 has it, octal with a leading zero.
fn whole_number(text: &str) -> Option<Number> {
    let compact = text.replace('_', "");
    let (negative, digits) = match compact.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, compact.strip_prefix('+').unwrap_or(&compact)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from)).ok()
}

/// `1.5`, `.5`, `1e3`. A whole value comes out whole, as Go writes it to JSON.
fn fractional_number(text: &str) -> Option<Number> {
    let is_number = text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-'));
    let value = text.parse::<f64>().ok().filter(|v| is_number && v.is_finite())?;
    match super::float(value) {
        Value::Number(number) => Some(number),
        _ => None,
    }
}
