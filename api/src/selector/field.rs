//! Field selectors: `path=value`, `path==value`, `path!=value`, joined by commas; `\` escapes `,`, `=` and itself.

use super::Error;

/// One condition on a field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldTerm {
    /// `metadata.name`, `spec.nodeName`, …
    pub field: String,
    pub value: String,
    pub negated: bool,
}

/// Terms that must all hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

/// Splits at unescaped commas.
fn split_terms(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn unescape(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => {
                    return Err(Error(format!("invalid field selector: invalid escape sequence: \\{other}")));
                }
                None => return Err(Error("invalid field selector: invalid escape sequence: \\".to_owned())),
            },
            ',' | '=' => return Err(Error(format!("invalid field selector: unescaped character in value: {c}"))),
            _ => out.push(c),
        }
    }
    Ok(out)
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

impl FieldSelector {
    /// Text as in the `fieldSelector` query parameter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut terms = Vec::new();
        for term in split_terms(text).into_iter().filter(|t| !t.is_empty()) {
            let wrong = || Error(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let at = term.char_indices().find(|(at, _)| {
                let rest = &term[*at..];
                rest.starts_with("!=") || rest.starts_with('=')
            });
            let (at, _) = at.ok_or_else(wrong)?;
            let (field, rest) = term.split_at(at);
            let (negated, value) = match rest.strip_prefix("!=") {
                Some(value) => (true, value),
                None => (false, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or(rest)),
            };
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, negated });
        }
        Ok(Self { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether fields, looked up by path, match; a field that isn't there reads as empty.
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (lookup(&t.field).unwrap_or_default() == t.value) != t.negated)
    }

    /// The value a field must have for an object to match, if there is one.
    pub fn required_value(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.field == field && !t.negated).map(|t| t.value.as_str())
    }
}

impl std::fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |t: &FieldTerm| format!("{}{}{}", t.field, if t.negated { "!=" } else { "=" }, escape(&t.value));
        f.write_str(&self.terms.iter().map(shown).collect::<Vec<_>>().join(","))
    }
}
