//! `WWW-Authenticate`: how a registry wants to be asked. Pure.

use http::{HeaderMap, header};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer(Bearer),
}

/// A token has to be fetched from `realm` first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    pub realm: String,
    pub service: String,
    pub scope: String,
    /// Why the token that was sent is not good enough.
    pub error: String,
}

impl Challenge {
    pub fn is_bearer(&self) -> bool {
        matches!(self, Challenge::Bearer(_))
    }
}

/// All challenges of an answer; kinds unknown here are left out.
pub fn parse_all(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    values.filter_map(|value| parse(value.to_str().ok()?)).collect()
}

/// One challenge per header line, as all registries send them.
fn parse(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut bearer = Bearer::default();
    for (name, value) in parameters(rest) {
        match name.as_str() {
            "realm" => bearer.realm = value,
            "service" => bearer.service = value,
            "scope" => bearer.scope = value,
            "error" => bearer.error = value,
            _ => {}
        }
    }
    (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
}

/// `name=value` and `name="value, with commas"`, separated by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((name, value));
        rest = after;
    }
    found
}

/// Up to the closing quote; a backslash takes the next letter as it is.
fn quoted_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, next)| next)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::{Bearer, Challenge, parse};

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let expected = Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: "registry.docker.io".into(),
            scope: "repository:a/b:pull,push".into(),
            error: String::new(),
        };
        assert_eq!(parse(text), Some(Challenge::Bearer(expected)));
        assert_eq!(parse("Basic realm=\"Registry\""), Some(Challenge::Basic));
        assert_eq!(parse("basic"), Some(Challenge::Basic));
        let plain = Bearer { realm: "https://a/\"t".into(), error: "insufficient_scope".into(), ..Bearer::default() };
        let text = "bearer realm=\"https://a/\\\"t\", error=insufficient_scope";
        assert_eq!(parse(text), Some(Challenge::Bearer(plain)));
        assert_eq!(parse("Bearer service=\"x\""), None);
        assert_eq!(parse("Negotiate abc"), None);
    }
}
