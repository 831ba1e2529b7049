//! The text form of label selectors: `key`, `!key`, `key=value`, `key!=value`, `key in (a,b)`, `key notin (a)`,
//! `key>1`, joined by commas. Refusals are worded as upstream's parser words them.

use super::Error;
use super::label::{Operator, Requirement};
use crate::name;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Error,
    End,
    Close,
    Open,
    Comma,
    Not,
    Operator(Operator),
    /// `in` and `notin`, which are identifiers where a key or value is expected.
    Word(Operator),
    Identifier,
}

struct Token {
    kind: Kind,
    text: String,
}

fn is_special(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The longest symbol at the start of `text`.
fn symbol(text: &str) -> Option<(Kind, usize)> {
    let by_start = |start: &str| text.starts_with(start);
    Some(match () {
        () if by_start("==") => (Kind::Operator(Operator::Equals), 2),
        () if by_start("!=") => (Kind::Operator(Operator::NotEquals), 2),
        () if by_start("=") => (Kind::Operator(Operator::Equals), 1),
        () if by_start("!") => (Kind::Not, 1),
        () if by_start("(") => (Kind::Open, 1),
        () if by_start(")") => (Kind::Close, 1),
        () if by_start(",") => (Kind::Comma, 1),
        () if by_start(">") => (Kind::Operator(Operator::GreaterThan), 1),
        () if by_start("<") => (Kind::Operator(Operator::LessThan), 1),
        () => return None,
    })
}

fn tokens(text: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (kind, len) = match symbol(rest) {
            Some(found) => found,
            None => {
                let len = rest.find(|c| is_special(c) || is_space(c)).unwrap_or(rest.len());
                let kind = match &rest[..len] {
                    "in" => Kind::Word(Operator::In),
                    "notin" => Kind::Word(Operator::NotIn),
                    _ => Kind::Identifier,
                };
                (kind, len)
            }
        };
        out.push(Token { kind, text: rest[..len].to_owned() });
        rest = rest[len..].trim_start_matches(is_space);
    }
    out.push(Token { kind: Kind::End, text: String::new() });
    out
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

/// Parses a whole selector.
pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, Error> {
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            Kind::Identifier | Kind::Not => {}
            Kind::End => return Ok(requirements),
            _ => return Err(parser.found("expected: !, identifier, or 'end of string'")),
        }
        let requirement = parser.requirement().map_err(|e| Error(format!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        match parser.peek() {
            Kind::End => return Ok(requirements),
            Kind::Comma => parser.at += 1,
            _ => return Err(parser.found("expected: ',' or 'end of string'")),
        }
        if !matches!(parser.peek(), Kind::Identifier | Kind::Not) {
            return Err(parser.found("expected: identifier after ','"));
        }
    }
}

impl Parser {
    /// The next token, where a key or value is expected: `in` and `notin` are plain words there.
    fn peek(&self) -> Kind {
        match self.raw() {
            Kind::Word(_) => Kind::Identifier,
            kind => kind,
        }
    }

    fn raw(&self) -> Kind {
        self.tokens.get(self.at).map_or(Kind::Error, |t| t.kind)
    }

    fn text(&self) -> &str {
        self.tokens.get(self.at).map_or("", |t| t.text.as_str())
    }

    fn take(&mut self) -> String {
        let text = self.text().to_owned();
        self.at += 1;
        text
    }

    fn found(&self, expected: &str) -> Error {
        Error(format!("found '{}', {expected}", self.text()))
    }

    fn requirement(&mut self) -> Result<Requirement, Error> {
        let negated = self.peek() == Kind::Not;
        if negated {
            self.at += 1;
        }
        if self.peek() != Kind::Identifier {
            return Err(self.found("expected: identifier"));
        }
        let key = self.take();
        let problems = name::qualified_name(&key);
        if !problems.is_empty() {
            return Err(Error(format!("<nil>: Invalid value: {key:?}: {}", problems.join("; "))));
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        let operator = match self.raw() {
            Kind::End | Kind::Comma => return Requirement::new(&key, Operator::Exists, Vec::new()),
            Kind::Operator(operator) | Kind::Word(operator) => operator,
            _ => return Err(self.found("expected: in, notin, =, ==, !=, gt, lt")),
        };
        self.at += 1;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(&key, operator, values)
    }

    fn exact_value(&mut self) -> Result<String, Error> {
        match self.peek() {
            Kind::End | Kind::Comma => Ok(String::new()),
            Kind::Identifier => Ok(self.take()),
            _ => Err(self.found("expected: identifier")),
        }
    }

    /// `(a,b)`; an empty place between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, Error> {
        if self.peek() != Kind::Open {
            return Err(Error(format!("found '{}' expected: '('", self.text())));
        }
        self.at += 1;
        if !matches!(self.peek(), Kind::Identifier | Kind::Comma | Kind::Close) {
            return Err(self.found("expected: ',', ')' or identifier"));
        }
        let mut values = Vec::new();
        loop {
            let value = if self.peek() == Kind::Identifier { self.take() } else { String::new() };
            let was_named = !value.is_empty();
            if !values.contains(&value) {
                values.push(value);
            }
            match self.peek() {
                Kind::Comma => self.at += 1,
                Kind::Close => {
                    self.at += 1;
                    return Ok(values);
                }
                _ if was_named => return Err(self.found("expected: ',' or ')'")),
                _ => return Err(self.found("expected: ',', or identifier")),
            }
        }
    }
}
