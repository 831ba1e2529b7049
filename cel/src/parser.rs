//! Tokens to a tree. Depth and length are bounded, so that neither parsing nor anything that walks the tree can run out
//! of stack. Chains of `&&` and `||` become balanced trees for the same reason.

use std::sync::Arc;

use crate::ast::{Call, Entry, Expr, Field, Kind, Select};
use crate::error::Issue;
use crate::lexer::{Placed, Token, tokens};
use crate::macros;
use crate::value::Value;

/// Code points of an expression (cel-go's `expressionSizeCodePointLimit`).
const CODE_POINTS_MAX: usize = 100_000;
/// Depth of an expression, where a bracket weighs more than a link of a chain, as it takes more stack: 250 links
/// (cel-go's `maxRecursionDepth`) or 100 brackets.
const DEPTH_MAX: u32 = 500;
const BRACKET: u32 = 5;
const LINK: u32 = 2;

/// Words that no identifier may be.
pub const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub fn parse(source: &str) -> Result<Expr, Issue> {
    let chars: Vec<char> = source.chars().collect();
    if chars.len() > CODE_POINTS_MAX {
        let message =
            format!("expression code point size exceeds limit: size: {}, limit {CODE_POINTS_MAX}", chars.len());
        return Err(Issue::new(0, message));
    }
    let mut parser = Parser { tokens: tokens(&chars)?, at: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    depth: u32,
}

/// How strongly a binary operator binds, and the function it stands for.
fn binary(sign: &Token) -> Option<(u8, &'static str)> {
    Some(match sign {
        Token::Sign("||") => (1, "_||_"),
        Token::Sign("&&") => (2, "_&&_"),
        Token::Sign("<") => (3, "_<_"),
        Token::Sign("<=") => (3, "_<=_"),
        Token::Sign(">") => (3, "_>_"),
        Token::Sign(">=") => (3, "_>=_"),
        Token::Sign("==") => (3, "_==_"),
        Token::Sign("!=") => (3, "_!=_"),
        Token::Ident(word) if &**word == "in" => (3, "@in"),
        Token::Sign("+") => (4, "_+_"),
        Token::Sign("-") => (4, "_-_"),
        Token::Sign("*") => (5, "_*_"),
        Token::Sign("/") => (5, "_/_"),
        Token::Sign("%") => (5, "_%_"),
        _ => return None,
    })
}

fn call(at: u32, function: &str, args: Vec<Expr>) -> Expr {
    Expr::new(at, Kind::Call(Call { function: function.into(), member: false, args }))
}

/// A chain of one logical operator as a balanced tree.
fn balance(function: &str, mut terms: Vec<(u32, Expr)>) -> Expr {
    if terms.len() == 1 {
        return terms.remove(0).1;
    }
    let right = terms.split_off(terms.len() / 2);
    let at = right[0].0;
    call(at, function, vec![balance(function, terms), balance(function, right)])
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn position(&self) -> u32 {
        self.tokens[self.at].at
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].token.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn take(&mut self, sign: &'static str) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Issue> {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    fn unexpected(&self, expected: &str) -> Issue {
        let found = &self.tokens[self.at];
        Issue::new(found.at, format!("Syntax error: mismatched input '{}' expecting {expected}", found.text))
    }

    /// Runs one level deeper.
    fn deeper<T>(&mut self, weight: u32, run: impl FnOnce(&mut Self) -> Result<T, Issue>) -> Result<T, Issue> {
        self.descend(weight)?;
        let result = run(self);
        self.depth -= weight;
        result
    }

    fn descend(&mut self, weight: u32) -> Result<(), Issue> {
        self.depth += weight;
        if self.depth > DEPTH_MAX {
            let limit = DEPTH_MAX / LINK;
            return Err(Issue::new(self.position(), format!("expression recursion limit exceeded: {limit}")));
        }
        Ok(())
    }

    fn expr(&mut self) -> Result<Expr, Issue> {
        self.deeper(BRACKET, |parser| {
            let condition = parser.operators(1)?;
            let at = parser.position();
            if !parser.take("?") {
                return Ok(condition);
            }
            let then = parser.operators(1)?;
            parser.expect(":")?;
            let otherwise = parser.expr()?;
            Ok(call(at, "_?_:_", vec![condition, then, otherwise]))
        })
    }

    /// Operators that bind at least as strongly as `least`.
    fn operators(&mut self, least: u8) -> Result<Expr, Issue> {
        let mut left = self.unary()?;
        let entered = self.depth;
        while let Some((strength, function)) = binary(self.peek()).filter(|(strength, _)| *strength >= least) {
            let at = self.position();
            if strength <= 2 {
                left = self.logical(strength, function, left)?;
                continue;
            }
            // Each link of a chain is one level of the tree.
            self.descend(LINK)?;
            self.next();
            let right = self.operators(strength + 1)?;
            left = call(at, function, vec![left, right]);
        }
        self.depth = entered;
        Ok(left)
    }

    fn logical(&mut self, strength: u8, function: &str, first: Expr) -> Result<Expr, Issue> {
        let mut terms = vec![(first.at, first)];
        while binary(self.peek()).is_some_and(|(found, _)| found == strength) {
            let at = self.position();
            self.next();
            terms.push((at, self.operators(strength + 1)?));
        }
        Ok(balance(function, terms))
    }

    fn unary(&mut self) -> Result<Expr, Issue> {
        let at = self.position();
        if self.take("!") {
            let operand = self.deeper(LINK, Self::unary)?;
            return Ok(call(at, "!_", vec![operand]));
        }
        if *self.peek() != Token::Sign("-") {
            return self.member();
        }
        // A sign belongs to the number behind it.
        let number = match &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token {
            Token::Int(number) => Some(Value::Int(-number)),
            Token::IntMin => Some(Value::Int(i64::MIN)),
            Token::Double(number) => Some(Value::Double(-number)),
            _ => None,
        };
        self.next();
        if let Some(number) = number {
            self.next();
            return self.members(Expr::new(at, Kind::Const(number)));
        }
        let operand = self.deeper(LINK, Self::unary)?;
        Ok(call(at, "-_", vec![operand]))
    }

    fn member(&mut self) -> Result<Expr, Issue> {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut expr: Expr) -> Result<Expr, Issue> {
        let entered = self.depth;
        loop {
            let at = self.position();
            if self.take(".") {
                self.descend(LINK)?;
                let optional = self.take("?");
                let field = self.field_name()?;
                let at_call = self.position();
                expr = if !optional && self.take("(") {
                    let args = self.arguments(")")?;
                    macros::member(at_call, expr, &field, args)?
                } else {
                    Expr::new(at, Kind::Select(Select { operand: Box::new(expr), field, test: false, optional }))
                };
            } else if self.take("[") {
                self.descend(LINK)?;
                let function = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                expr = call(at, function, vec![expr, index]);
            } else if *self.peek() == Token::Sign("{") {
                let Some(name) = qualified(&expr) else { break };
                self.next();
                expr = self.fields(expr.at, name.into())?;
            } else {
                break;
            }
        }
        self.depth = entered;
        Ok(expr)
    }

    fn field_name(&mut self) -> Result<Arc<str>, Issue> {
        match self.peek().clone() {
            Token::Ident(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    /// Comma-separated expressions up to a closing bracket.
    fn arguments(&mut self, close: &'static str) -> Result<Vec<Expr>, Issue> {
        let mut out = Vec::new();
        while !self.take(close) {
            if !out.is_empty() {
                self.expect(",")?;
            }
            out.push(self.expr()?);
        }
        Ok(out)
    }

    fn primary(&mut self) -> Result<Expr, Issue> {
        let at = self.position();
        let constant = |value| Ok(Expr::new(at, Kind::Const(value)));
        match self.next() {
            Token::Int(number) => constant(Value::Int(number)),
            Token::Uint(number) => constant(Value::Uint(number)),
            Token::Double(number) => constant(Value::Double(number)),
            Token::String(text) => constant(Value::String(text)),
            Token::Bytes(bytes) => constant(Value::Bytes(bytes)),
            Token::Ident(word) => self.word(at, word),
            Token::Sign(".") => {
                let name = self.field_name()?;
                self.word(at, name)
            }
            Token::Sign("(") => {
                let expr = self.expr()?;
                self.expect(")")?;
                Ok(expr)
            }
            Token::Sign("[") => self.list(at),
            Token::Sign("{") => self.map(at),
            _ => {
                self.at = self.at.saturating_sub(usize::from(self.tokens[self.at].at != at));
                Err(self.unexpected("an expression"))
            }
        }
    }

    fn word(&mut self, at: u32, word: Arc<str>) -> Result<Expr, Issue> {
        let constant = |value| Ok(Expr::new(at, Kind::Const(value)));
        match &*word {
            "true" => return constant(Value::Bool(true)),
            "false" => return constant(Value::Bool(false)),
            "null" => return constant(Value::Null),
            "in" => return Err(Issue::new(at, "Syntax error: mismatched input 'in' expecting an expression")),
            _ => {}
        }
        if RESERVED.contains(&&*word) {
            return Err(Issue::new(at, format!("reserved identifier: {word}")));
        }
        let at_call = self.position();
        if self.take("(") {
            let args = self.arguments(")")?;
            return macros::global(at_call, &word, args);
        }
        Ok(Expr::new(at, Kind::Ident(word)))
    }

    fn list(&mut self, at: u32) -> Result<Expr, Issue> {
        let items = self.literal("]", |parser, optional| Ok((parser.expr()?, optional)))?;
        Ok(Expr::new(at, Kind::List(items)))
    }

    fn map(&mut self, at: u32) -> Result<Expr, Issue> {
        let entries = self.literal("}", |parser, optional| {
            let key = parser.expr()?;
            parser.expect(":")?;
            Ok(Entry { key, value: parser.expr()?, optional })
        })?;
        Ok(Expr::new(at, Kind::Map(entries)))
    }

    fn fields(&mut self, at: u32, name: Arc<str>) -> Result<Expr, Issue> {
        let fields = self.literal("}", |parser, optional| {
            let at = parser.position();
            let name = parser.field_name()?;
            parser.expect(":")?;
            Ok(Field { name, value: parser.expr()?, optional, at })
        })?;
        Ok(Expr::new(at, Kind::Struct(name, fields)))
    }

    /// Comma-separated parts of a literal up to its closing bracket: each may be optional (`?`), a comma may end them.
    fn literal<T>(
        &mut self,
        close: &'static str,
        mut part: impl FnMut(&mut Self, bool) -> Result<T, Issue>,
    ) -> Result<Vec<T>, Issue> {
        let mut parts = Vec::new();
        while !self.take(close) {
            if !parts.is_empty() {
                self.expect(",")?;
                if self.take(close) {
                    break;
                }
            }
            let optional = self.take("?");
            parts.push(part(self, optional)?);
        }
        Ok(parts)
    }
}

/// `a.b.c` as one name.
pub fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select(select) if !select.test && !select.optional => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}
