//! What an expression may cost, from the sizes that its variables' types allow: cel-go's `checker.Cost` with the
//! estimates of Kubernetes' libraries. Only bounds; what is unknown counts as large as a request can be.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Call, Expr, Fold, FoldOp, Kind};
use crate::types::Type;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub min: u64,
    pub max: u64,
}

impl Estimate {
    const fn fixed(cost: u64) -> Self {
        Self { min: cost, max: cost }
    }

    const fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }

    #[must_use]
    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    #[must_use]
    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    #[must_use]
    fn either(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    #[must_use]
    fn factor(self, factor: f64) -> Self {
        let scale = |x: u64| if x == u64::MAX { x } else { (x as f64 * factor).ceil() as u64 };
        Self { min: scale(self.min), max: scale(self.max) }
    }
}

/// Costs and the bound of the result's size.
#[derive(Clone, Copy)]
struct Known {
    cost: Estimate,
    size: Estimate,
}

const TRAVERSAL: f64 = 0.1;
const PATTERN: f64 = 0.25;
/// Characters of what `string()` makes of anything but a text.
const SCALAR_TEXT_MAX: u64 = 64;

pub fn estimate(expr: &Expr) -> Estimate {
    Estimator { sizes: HashMap::new() }.expr(expr).cost
}

struct Estimator {
    /// Sizes of what macros' variables stand for, where types do not tell.
    sizes: HashMap<Arc<str>, Estimate>,
}

/// What a type allows. Without a bound anything is possible.
fn size_of(ty: &Type) -> Estimate {
    match (ty, ty.base()) {
        (Type::Sized(_, max), _) => Estimate::up_to(*max),
        (_, Type::String | Type::Bytes | Type::List(_) | Type::Map(..) | Type::Dyn) => Estimate::up_to(u64::MAX),
        _ => Estimate::fixed(1),
    }
}

impl Estimator {
    fn expr(&mut self, expr: &Expr) -> Known {
        let sized = |cost| Known { cost, size: size_of(&expr.ty) };
        match &expr.kind {
            Kind::Const(value) => Known { cost: Estimate::fixed(0), size: Estimate::fixed(value.size()) },
            Kind::Ident(name) => {
                let size = self.sizes.get(name).copied();
                Known { cost: Estimate::fixed(1), size: size.unwrap_or_else(|| size_of(&expr.ty)) }
            }
            Kind::Select(select) => {
                let operand = self.expr(&select.operand);
                sized(operand.cost.plus(Estimate::fixed(u64::from(!select.test))))
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::List(items) => {
                let cost = self.sum(items.iter().map(|(item, _)| item), 10);
                Known { cost, size: Estimate::fixed(items.len() as u64) }
            }
            Kind::Map(entries) => {
                let cost = self.sum(entries.iter().flat_map(|entry| [&entry.key, &entry.value]), 30);
                Known { cost, size: Estimate::fixed(entries.len() as u64) }
            }
            Kind::Struct(_, fields) => sized(self.sum(fields.iter().map(|field| &field.value), 40)),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind(map) => {
                let (operand, body) = (self.expr(&map.operand), self.expr(&map.body));
                sized(operand.cost.plus(Estimate { min: 0, ..body.cost }))
            }
        }
    }

    fn sum<'a>(&mut self, exprs: impl Iterator<Item = &'a Expr>, base: u64) -> Estimate {
        exprs.fold(Estimate::fixed(base), |cost, expr| cost.plus(self.expr(expr).cost))
    }

    fn fold(&mut self, fold: &Fold) -> Known {
        let range = self.expr(&fold.range);
        let filter = fold.filter.as_ref().map(|filter| self.expr(filter).cost);
        let body = self.expr(&fold.body).cost;
        // Of one turn: condition and accumulator; keeping an element makes a list of one.
        let turn = match fold.op {
            FoldOp::All | FoldOp::Exists => Estimate::fixed(2).plus(body),
            FoldOp::ExistsOne => Estimate { min: 0, max: 2 }.plus(body),
            _ => {
                let kept = Estimate { min: 0, max: 12 };
                match filter {
                    Some(filter) => filter.plus(kept).plus(Estimate { min: 0, ..body }),
                    None => kept.plus(body),
                }
            }
        };
        // The first turn may decide.
        let turns = match fold.op {
            FoldOp::All | FoldOp::Exists => Estimate { min: range.size.min.min(1), max: range.size.max },
            _ => range.size,
        };
        let size = match fold.op {
            FoldOp::Filter => Estimate { min: 0, max: range.size.max },
            FoldOp::List if fold.filter.is_some() => Estimate { min: 0, max: range.size.max },
            FoldOp::List | FoldOp::SortBy | FoldOp::Map => range.size,
            FoldOp::MapEntry => Estimate::up_to(u64::MAX),
            _ => Estimate::fixed(1),
        };
        Known { cost: range.cost.plus(turns.times(turn)).plus(Estimate::fixed(1)), size }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Known {
        let args: Vec<Known> = call.args.iter().map(|arg| self.expr(arg)).collect();
        let all = args.iter().fold(Estimate::fixed(0), |cost, arg| cost.plus(arg.cost));
        match (&*call.function, args.as_slice()) {
            // What is behind the operator may not be reached.
            ("_&&_" | "_||_", [left, right]) => {
                let cost = Estimate { min: left.cost.min, max: left.cost.plus(right.cost).max };
                Known { cost, size: Estimate::fixed(1) }
            }
            ("_?_:_", [condition, then, otherwise]) => Known {
                cost: condition.cost.plus(then.cost.either(otherwise.cost)),
                size: then.size.either(otherwise.size),
            },
            (function, args) => {
                let (cost, size) = function_cost(function, call, args);
                Known { cost: all.plus(cost), size: size.unwrap_or_else(|| size_of(&expr.ty)) }
            }
        }
    }
}

fn is_text(expr: Option<&Expr>) -> bool {
    expr.is_some_and(|expr| matches!(expr.ty.base(), Type::String | Type::Bytes))
}

/// The call's own cost, and the size of its result where its type does not bound it.
fn function_cost(function: &str, call: &Call, args: &[Known]) -> (Estimate, Option<Estimate>) {
    let size = |index: usize| args.get(index).map_or(Estimate::fixed(0), |arg| arg.size);
    let (first, second) = (size(0), size(1));
    let one = Estimate::fixed(1);
    let traverse = |size: Estimate, times: f64| size.factor(TRAVERSAL * times);
    match function {
        "check" => (Estimate::fixed(350_000), None),
        "startsWith" | "endsWith" => (traverse(second, 1.0), None),
        "contains" if is_text(call.args.first()) => (traverse(first, 1.0).times(traverse(second, 1.0)), None),
        "matches" => (traverse(first.plus(one), 1.0).times(second.factor(PATTERN)), None),
        "find" | "findAll" => {
            let cost = traverse(first.plus(one), 1.0).times(second.factor(PATTERN));
            (cost, Some(Estimate::up_to(first.max)))
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" | "url" | "bytes" | "jsonpatch.escapeKey" => {
            (traverse(first, 1.0), Some(first))
        }
        "string" if is_text(call.args.first()) => (traverse(first, 1.0), Some(first)),
        // Numbers, truth values, times and the like have short texts.
        "string" => (one, Some(Estimate::up_to(SCALAR_TEXT_MAX))),
        "replace" => (traverse(first, 2.0), Some(Estimate::up_to(first.max.saturating_mul(size(2).max.max(1))))),
        "split" => (traverse(first, 2.0), Some(Estimate::up_to(first.max))),
        "join" => {
            let element = match call.args.first().map(|arg| arg.ty.base()) {
                Some(Type::List(items)) => size_of(items),
                _ => Estimate::up_to(u64::MAX),
            };
            let joined = first.times(element.plus(second));
            (traverse(joined, 1.0), Some(joined))
        }
        "ip" | "cidr" | "isIP" | "isCIDR" | "isURL" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            (traverse(first, 1.0), None)
        }
        "validate" => (traverse(second.plus(one), 1.0).times(Estimate::fixed(276)), None),
        "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" | "distinct" | "sort" | "reverse"
        | "flatten" | "slice" => match call.args.first().map(|arg| arg.ty.base()) {
            Some(Type::List(items)) => {
                let element = if is_text_type(items) { one.plus(traverse(size_of(items), 1.0)) } else { one };
                let turns = if function == "distinct" { first.times(first) } else { first };
                (turns.times(element), Some(Estimate::up_to(first.max)))
            }
            _ => (traverse(first, 1.0), None),
        },
        "sets.contains" | "sets.equivalent" | "sets.intersects" => (first.times(second).factor(1.0), None),
        "@in" if matches!(call.args.get(1).map(|arg| arg.ty.base()), Some(Type::List(_))) => (second, None),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => {
            let least = Estimate { min: first.min.min(second.min), max: first.max.min(second.max) };
            (traverse(least, 1.0), None)
        }
        "_+_" => match call.args.first().map(|arg| arg.ty.base()) {
            Some(Type::String | Type::Bytes) => (traverse(first.plus(second), 1.0), Some(first.plus(second))),
            Some(Type::List(_)) => (one, Some(first.plus(second))),
            _ => (one, None),
        },
        _ => (one, None),
    }
}

fn is_text_type(ty: &Type) -> bool {
    matches!(ty.base(), Type::String | Type::Bytes)
}
