//! Literals that can be known to fail: patterns, times and durations (cel-go's `ValidateRegexLiterals` and others).

use crate::ast::{Call, Expr, Kind};
use crate::error::Issue;
use crate::functions::{convert, regex};
use crate::value::Value;

pub fn check(expr: &Expr) -> Vec<Issue> {
    let mut out = Vec::new();
    walk(expr, &mut out);
    out
}

fn walk(expr: &Expr, out: &mut Vec<Issue>) {
    match &expr.kind {
        Kind::Const(_) | Kind::Ident(_) => {}
        Kind::Select(select) => walk(&select.operand, out),
        Kind::Call(call) => {
            literal(call, out);
            call.args.iter().for_each(|arg| walk(arg, out));
        }
        Kind::List(items) => items.iter().for_each(|(item, _)| walk(item, out)),
        Kind::Map(entries) => entries.iter().for_each(|entry| {
            walk(&entry.key, out);
            walk(&entry.value, out);
        }),
        Kind::Struct(_, fields) => fields.iter().for_each(|field| walk(&field.value, out)),
        Kind::Fold(fold) => {
            walk(&fold.range, out);
            fold.filter.iter().for_each(|filter| walk(filter, out));
            walk(&fold.body, out);
        }
        Kind::Bind(map) => {
            walk(&map.operand, out);
            walk(&map.body, out);
        }
    }
}

fn literal(call: &Call, out: &mut Vec<Issue>) {
    let (what, arg) = match (&*call.function, call.args.as_slice()) {
        ("matches" | "find" | "findAll", [_, pattern, ..]) => ("matches", pattern),
        ("timestamp", [text]) => ("timestamp", text),
        ("duration", [text]) => ("duration", text),
        _ => return,
    };
    let Kind::Const(Value::String(text)) = &arg.kind else { return };
    let wrong = match what {
        "matches" => regex::compile(text).is_err(),
        "timestamp" => convert::parse_timestamp(text).is_err(),
        _ => convert::parse_duration(text).is_err(),
    };
    if wrong {
        out.push(Issue::new(arg.at, format!("invalid {what} argument")));
    }
}
