//! Evaluation: a walk over the checked tree. Each node pays before it works, as upstream's cost tracker counts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Bind, BindOp, Call, Entry, Expr, Field, Kind, Select};
use crate::budget::Budget;
use crate::env::Program;
use crate::error::Error;
use crate::value::{Key, Map, Value};
use crate::{fold, functions, operators};

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

/// Names and their values; an inner scope hides names of the outer one.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    outer: Option<&'a Scope<'a>>,
    names: &'a [(&'a str, &'a Value)],
}

impl<'a> Scope<'a> {
    pub fn new(names: &'a [(&'a str, &'a Value)]) -> Self {
        Self { outer: None, names }
    }

    pub(crate) fn inner(outer: &'a Scope<'a>, names: &'a [(&'a str, &'a Value)]) -> Self {
        Self { outer: Some(outer), names }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        match self.names.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => Some(value),
            None => self.outer?.get(name),
        }
    }
}

pub type Outcome = Result<Value, Error>;

impl Program {
    pub fn evaluate(&self, scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
        value(&self.expr, scope, budget)
    }
}

pub fn value(expr: &Expr, scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    match &expr.kind {
        Kind::Const(value) => Ok(value.clone()),
        Kind::Ident(name) => {
            budget.pay(1)?;
            scope.get(name).cloned().ok_or_else(|| Error::other(format!("no such attribute(s): {name}")))
        }
        Kind::Select(select) => self::select(select, scope, budget),
        Kind::Call(call) => self::call(call, scope, budget),
        Kind::List(items) => list(items, scope, budget),
        Kind::Map(entries) => map(entries, scope, budget),
        Kind::Struct(name, fields) => construct(name, fields, scope, budget),
        Kind::Fold(fold) => fold::run(fold, scope, budget),
        Kind::Bind(map) => bind(map, scope, budget),
    }
}

fn select(select: &Select, scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    let operand = value(&select.operand, scope, budget)?;
    if !select.test {
        budget.pay(1)?;
    }
    let (operand, through_optional) = match operand {
        Value::Optional(None) if select.test => return Ok(Value::Bool(false)),
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => ((*inner).clone(), true),
        other => (other, false),
    };
    let found = member(&operand, &select.field, select.test || select.optional || through_optional, budget)?;
    if select.test {
        return Ok(Value::Bool(found.is_some()));
    }
    if select.optional || through_optional {
        return Ok(Value::Optional(found.map(Arc::new)));
    }
    found.ok_or_else(|| Error::NoSuchKey(select.field.to_string()))
}

/// A field of an object or entry of a map. `stored` asks for what is there, without defaults.
fn member(operand: &Value, name: &Arc<str>, stored: bool, budget: &mut Budget) -> Result<Option<Value>, Error> {
    match operand {
        Value::Map(map) => {
            let found = map.entries.get(&Key::String(Arc::clone(name))).cloned();
            Ok(found.or_else(|| map.default.clone().filter(|_| !stored)))
        }
        Value::Host(host) => host.field(name, budget).transpose(),
        _ => Err(Error::NoSuchOverload),
    }
}

fn call(call: &Call, scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    match (&*call.function, call.args.as_slice()) {
        ("_&&_", [left, right]) => logical(left, right, false, scope, budget),
        ("_||_", [left, right]) => logical(left, right, true, scope, budget),
        ("_?_:_", [condition, then, otherwise]) => match value(condition, scope, budget)? {
            Value::Bool(true) => value(then, scope, budget),
            Value::Bool(false) => value(otherwise, scope, budget),
            _ => Err(Error::NoSuchOverload),
        },
        ("or" | "orValue", [target, other]) if call.member => match value(target, scope, budget)? {
            Value::Optional(None) => value(other, scope, budget),
            Value::Optional(Some(inner)) if &*call.function == "orValue" => Ok((*inner).clone()),
            found @ Value::Optional(_) => Ok(found),
            _ => Err(Error::NoSuchOverload),
        },
        (function, args) => {
            let args = args.iter().map(|arg| value(arg, scope, budget)).collect::<Result<Vec<_>, _>>()?;
            // Paid before the work, as far as the arguments tell.
            budget.pay(functions::cost(function, &args))?;
            match operators::call(function, &args) {
                Some(result) => result,
                None => functions::call(function, &args),
            }
        }
    }
}

/// One side that decides outweighs an error of the other.
fn logical(left: &Expr, right: &Expr, decisive: bool, scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    let left = truth(value(left, scope, budget));
    if matches!(left, Err(Error::CostExceeded)) || left == Ok(decisive) {
        return left.map(Value::Bool);
    }
    let right = truth(value(right, scope, budget));
    if matches!(right, Err(Error::CostExceeded)) || right == Ok(decisive) {
        return right.map(Value::Bool);
    }
    left?;
    right.map(Value::Bool)
}

pub fn truth(outcome: Outcome) -> Result<bool, Error> {
    match outcome? {
        Value::Bool(truth) => Ok(truth),
        _ => Err(Error::NoSuchOverload),
    }
}

/// What an optional item, entry or field adds.
fn optional(outcome: Value, is_optional: bool) -> Result<Option<Value>, Error> {
    match outcome {
        Value::Optional(inner) if is_optional => Ok(inner.map(|inner| (*inner).clone())),
        _ if is_optional => Err(Error::NoSuchOverload),
        value => Ok(Some(value)),
    }
}

fn list(items: &[(Expr, bool)], scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    budget.pay(LIST_COST)?;
    let mut out = Vec::with_capacity(items.len());
    for (item, is_optional) in items {
        out.extend(optional(value(item, scope, budget)?, *is_optional)?);
    }
    Ok(Value::list(out))
}

fn map(entries: &[Entry], scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    budget.pay(MAP_COST)?;
    let mut out = BTreeMap::new();
    for entry in entries {
        let key = value(&entry.key, scope, budget)?;
        let key = Key::of(&key).ok_or_else(|| Error::other(format!("unsupported key type: {}", key.type_name())))?;
        let Some(found) = optional(value(&entry.value, scope, budget)?, entry.optional)? else { continue };
        if let Some(_double) = out.insert(key.clone(), found) {
            return Err(Error::other(format!("Failed with repeated key: {key}")));
        }
    }
    Ok(Value::Map(Arc::new(Map { entries: out, type_name: None, default: None })))
}

fn construct(name: &Arc<str>, fields: &[Field], scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    budget.pay(STRUCT_COST)?;
    let mut out = BTreeMap::new();
    for field in fields {
        if let Some(found) = optional(value(&field.value, scope, budget)?, field.optional)? {
            out.insert(Key::String(Arc::clone(&field.name)), found);
        }
    }
    Ok(Value::Map(Arc::new(Map { entries: out, type_name: Some(Arc::clone(name)), default: None })))
}

fn bind(map: &Bind, scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    let inner = match value(&map.operand, scope, budget)? {
        plain if map.op == BindOp::Plain => Arc::new(plain),
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => inner,
        _ => return Err(Error::NoSuchOverload),
    };
    let names = [(&*map.variable, &*inner)];
    let result = value(&map.body, &Scope::inner(scope, &names), budget)?;
    Ok(if map.op == BindOp::Optional { Value::some(result) } else { result })
}
