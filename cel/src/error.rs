//! What can be wrong with an expression: issues with positions when it is compiled, errors when it is evaluated.

use std::fmt;

/// One thing wrong with an expression's text. `at` counts code points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub at: u32,
    pub message: String,
}

impl Issue {
    pub fn new(at: u32, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// An expression that does not compile. Its text has upstream's form: the place, the line, a mark below.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CompileError {
    pub text: String,
    pub issues: Vec<Issue>,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let (line, column, text) = place(&self.text, issue.at as usize);
            let dots = ".".repeat(column);
            write!(f, "ERROR: <input>:{line}:{}: {}\n | {text}\n | {dots}^", column + 1, issue.message)?;
        }
        Ok(())
    }
}

fn place(source: &str, at: usize) -> (usize, usize, &str) {
    let mut start = 0;
    let mut last = (1, 0, "");
    for (index, line) in source.split('\n').enumerate() {
        let length = line.chars().count();
        if at <= start + length {
            return (index + 1, at - start, line);
        }
        start += length + 1;
        last = (index + 1, length, line);
    }
    last
}

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("operation cancelled: actual cost limit exceeded")]
    CostExceeded,
    #[error("no such key: {0}")]
    NoSuchKey(String),
    #[error("no such overload")]
    NoSuchOverload,
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub fn other(message: impl Into<String>) -> Self {
        Self::Other(message.into())
    }
}
