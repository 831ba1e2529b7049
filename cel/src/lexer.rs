//! Text to tokens. Positions count code points, as upstream's messages do; text that is no token is an error there.

use std::sync::Arc;

use crate::error::Issue;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Ident(Arc<str>),
    Int(i64),
    /// The magnitude of the least integer, which only a sign before it makes one.
    IntMin,
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// An operator or bracket.
    Sign(&'static str),
    End,
}

/// A token with its position and text.
#[derive(Clone, Debug)]
pub struct Placed {
    pub token: Token,
    pub at: u32,
    pub text: String,
}

/// Longer ones first.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

struct Lexer<'a> {
    text: &'a [char],
    at: usize,
}

pub fn tokens(source: &[char]) -> Result<Vec<Placed>, Issue> {
    let mut lexer = Lexer { text: source, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let token = lexer.token()?;
        let done = token == Token::End;
        let text = if done { "<EOF>".to_owned() } else { source[start..lexer.at].iter().collect() };
        out.push(Placed { token, at: start as u32, text });
        if done {
            return Ok(out);
        }
    }
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn starts(&self, sign: &str) -> bool {
        sign.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c))
    }

    fn skip_space(&mut self) {
        loop {
            while self.peek(0).is_some_and(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')) {
                self.at += 1;
            }
            if !self.starts("//") {
                return;
            }
            while self.peek(0).is_some_and(|c| c != '\n') {
                self.at += 1;
            }
        }
    }

    fn unrecognized(&self, at: usize, end: usize) -> Issue {
        let text: String = self.text[at..end.min(self.text.len())].iter().collect();
        Issue::new(at as u32, format!("Syntax error: token recognition error at: '{text}'"))
    }

    fn token(&mut self) -> Result<Token, Issue> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        if let Some(prefix) = self.literal_prefix() {
            return self.quoted(prefix);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            return Ok(Token::Ident(self.text[start..self.at].iter().collect::<String>().into()));
        }
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        match SIGNS.iter().find(|sign| self.starts(sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => Err(self.unrecognized(self.at, self.at + 2)),
        }
    }

    /// `r`, `b` and their combinations before a quote; how many letters.
    fn literal_prefix(&self) -> Option<usize> {
        let letter = |c: Option<char>| c.is_some_and(|c| matches!(c, 'r' | 'R' | 'b' | 'B'));
        let quote = |c: Option<char>| c.is_some_and(|c| matches!(c, '"' | '\''));
        (0..=2).find(|length| (0..*length).all(|i| letter(self.peek(i))) && quote(self.peek(*length)))
    }

    fn quoted(&mut self, prefix: usize) -> Result<Token, Issue> {
        let start = self.at;
        let has = |letter: char| (0..prefix).any(|i| self.peek(i).is_some_and(|c| c.eq_ignore_ascii_case(&letter)));
        let (raw, bytes) = (has('r'), has('b'));
        self.at += prefix;
        let quote = self.peek(0).unwrap_or('"');
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let mut text = Vec::new();
        loop {
            let Some(c) = self.peek(0) else { return Err(self.unrecognized(start, self.at)) };
            if (0..width).all(|i| self.peek(i) == Some(quote)) {
                self.at += width;
                break;
            }
            if !triple && matches!(c, '\n' | '\r') {
                return Err(self.unrecognized(start, self.at));
            }
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(&mut text, bytes, start)?;
            } else {
                if c == '\\' {
                    // A raw string may hold its quote behind a backslash.
                    if let Some(next) = self.peek(0).filter(|next| *next == quote || *next == '\\') {
                        push(&mut text, c);
                        self.at += 1;
                        push(&mut text, next);
                        continue;
                    }
                }
                push(&mut text, c);
            }
        }
        if bytes {
            return Ok(Token::Bytes(text.into()));
        }
        let text = String::from_utf8(text).map_err(|_| self.unrecognized(start, self.at))?;
        Ok(Token::String(text.into()))
    }

    fn escape(&mut self, out: &mut Vec<u8>, bytes: bool, start: usize) -> Result<(), Issue> {
        let Some(c) = self.peek(0) else { return Err(self.unrecognized(start, self.at)) };
        self.at += 1;
        let plain = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '?' | '"' | '\'' | '`' => c as u8,
            'x' | 'X' => return self.code(out, 2, 16, bytes, start),
            'u' => return self.code(out, 4, 16, false, start),
            'U' => return self.code(out, 8, 16, false, start),
            '0'..='3' => {
                self.at -= 1;
                return self.code(out, 3, 8, bytes, start);
            }
            _ => return Err(self.unrecognized(start, self.at)),
        };
        out.push(plain);
        Ok(())
    }

    fn code(&mut self, out: &mut Vec<u8>, digits: usize, radix: u32, byte: bool, start: usize) -> Result<(), Issue> {
        let text: String = (0..digits).filter_map(|i| self.peek(i)).collect();
        let code = u32::from_str_radix(&text, radix).ok().filter(|_| text.len() == digits);
        self.at = (self.at + digits).min(self.text.len());
        match code {
            Some(code) if byte => out.push(code as u8),
            Some(code) => match char::from_u32(code) {
                Some(c) => push(out, c),
                None => return Err(self.unrecognized(start, self.at)),
            },
            None => return Err(self.unrecognized(start, self.at)),
        }
        Ok(())
    }

    fn digits(&mut self, accept: fn(char) -> bool) {
        while self.peek(0).is_some_and(accept) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let start = self.at;
        if self.starts("0x") || self.starts("0X") {
            self.at += 2;
            self.digits(|c| c.is_ascii_hexdigit());
            let text: String = self.text[start + 2..self.at].iter().collect();
            return self.whole(&text, 16, start);
        }
        self.digits(|c| c.is_ascii_digit());
        let mut double = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            double = true;
            self.at += 1;
            self.digits(|c| c.is_ascii_digit());
        }
        if self.peek(0).is_some_and(|c| matches!(c, 'e' | 'E')) {
            let sign = usize::from(self.peek(1).is_some_and(|c| matches!(c, '+' | '-')));
            if self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                double = true;
                self.at += 1 + sign;
                self.digits(|c| c.is_ascii_digit());
            }
        }
        let text: String = self.text[start..self.at].iter().collect();
        if double {
            return text.parse().map(Token::Double).map_err(|_| Issue::new(start as u32, "invalid double literal"));
        }
        self.whole(&text, 10, start)
    }

    fn whole(&mut self, text: &str, radix: u32, start: usize) -> Result<Token, Issue> {
        let number = u64::from_str_radix(text, radix);
        if self.peek(0).is_some_and(|c| matches!(c, 'u' | 'U')) {
            self.at += 1;
            return number.map(Token::Uint).map_err(|_| Issue::new(start as u32, "invalid uint literal"));
        }
        match number {
            Ok(number) if number == 1 << 63 => Ok(Token::IntMin),
            Ok(number) if i64::try_from(number).is_ok() => Ok(Token::Int(number as i64)),
            _ => Err(Issue::new(start as u32, "invalid int literal")),
        }
    }
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
