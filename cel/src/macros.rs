//! Calls that are macros: `has`, those that go over lists and maps, and those of optionals.

use std::sync::Arc;

use crate::ast::{Bind, BindOp, Call, Expr, Fold, FoldOp, Kind, Select};
use crate::error::Issue;

/// A call without a target.
pub fn global(at: u32, name: &Arc<str>, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    if &**name == "has" && args.len() == 1 {
        return match args.remove(0).kind {
            Kind::Select(select) if !select.test => Ok(Expr::new(at, Kind::Select(Select { test: true, ..select }))),
            _ => Err(Issue::new(at, "invalid argument to has() macro")),
        };
    }
    Ok(Expr::new(at, Kind::Call(Call { function: Arc::clone(name), member: false, args })))
}

/// A call on a target.
pub fn member(at: u32, target: Expr, name: &Arc<str>, args: Vec<Expr>) -> Result<Expr, Issue> {
    let op = match (&**name, args.len()) {
        ("optMap", 2) => Some(BindOp::Optional),
        ("optFlatMap", 2) => Some(BindOp::OptionalFlat),
        ("bind", 3) if matches!(&target.kind, Kind::Ident(name) if &**name == "cel") => Some(BindOp::Plain),
        _ => None,
    };
    if let Some(op) = op {
        let mut args = args.into_iter();
        let variable = variable(args.next(), name)?;
        let operand = if op == BindOp::Plain { args.next() } else { Some(target) };
        let (Some(operand), Some(body)) = (operand, args.next()) else {
            return Err(Issue::new(at, "macro without a body"));
        };
        return Ok(Expr::new(at, Kind::Bind(Box::new(Bind { op, operand, variable, body }))));
    }
    let Some((op, two, filters)) = fold(name, args.len()) else {
        let mut all = vec![target];
        all.extend(args);
        return Ok(Expr::new(at, Kind::Call(Call { function: Arc::clone(name), member: true, args: all })));
    };
    let mut args = args.into_iter();
    let first = variable(args.next(), name)?;
    let second = if two { Some(variable(args.next(), name)?) } else { None };
    if second.as_ref() == Some(&first) {
        return Err(Issue::new(at, format!("duplicate variable name: {first}")));
    }
    let filter = if filters { args.next() } else { None };
    let Some(body) = args.next() else { return Err(Issue::new(at, "macro without a body")) };
    Ok(Expr::new(at, Kind::Fold(Box::new(Fold { op, range: target, first, second, filter, body }))))
}

/// Which macro a name with so many arguments is, whether it has two variables, and a filter.
fn fold(name: &str, args: usize) -> Option<(FoldOp, bool, bool)> {
    Some(match (name, args) {
        ("all", 2 | 3) => (FoldOp::All, args == 3, false),
        ("exists", 2 | 3) => (FoldOp::Exists, args == 3, false),
        ("exists_one", 2) => (FoldOp::ExistsOne, false, false),
        ("existsOne", 2 | 3) => (FoldOp::ExistsOne, args == 3, false),
        ("filter", 2) => (FoldOp::Filter, false, false),
        ("map", 2 | 3) => (FoldOp::List, false, args == 3),
        ("sortBy", 2) => (FoldOp::SortBy, false, false),
        ("transformList", 3 | 4) => (FoldOp::List, true, args == 4),
        ("transformMap", 3 | 4) => (FoldOp::Map, true, args == 4),
        ("transformMapEntry", 3 | 4) => (FoldOp::MapEntry, true, args == 4),
        _ => return None,
    })
}

fn variable(arg: Option<Expr>, name: &str) -> Result<Arc<str>, Issue> {
    match arg {
        Some(Expr { kind: Kind::Ident(variable), .. }) => Ok(variable),
        Some(other) => Err(Issue::new(other.at, "argument must be a simple name")),
        None => Err(Issue::new(0, format!("{name}() macro without a variable"))),
    }
}
