//! The macros that go over lists and maps. Each turn pays for what upstream's loop reads and keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Expr, Fold, FoldOp};
use crate::budget::Budget;
use crate::error::Error;
use crate::evaluate::{Outcome, Scope, truth, value};
use crate::operators;
use crate::value::{Key, Map, Value};

/// Of a turn, beside its body: the accumulator is read and the condition looked at.
const TURN_COST: u64 = 2;
/// Of keeping an element: a list of one is made and added.
const KEEP_COST: u64 = 11;

struct Run<'a> {
    fold: &'a Fold,
    scope: &'a Scope<'a>,
}

pub fn run(fold: &Fold, scope: &Scope<'_>, budget: &mut Budget) -> Outcome {
    let range = value(&fold.range, scope, budget)?;
    budget.pay(1)?;
    let run = Run { fold, scope };
    match fold.op {
        FoldOp::All => run.decide(&range, false, budget),
        FoldOp::Exists => run.decide(&range, true, budget),
        FoldOp::ExistsOne => run.exactly_one(&range, budget),
        FoldOp::Filter | FoldOp::List => run.list(&range, budget),
        FoldOp::Map | FoldOp::MapEntry => run.map(&range, budget),
        FoldOp::SortBy => run.sort_by(&range, budget),
    }
}

/// Index or key, and element, one by one.
fn each(range: &Value, visit: &mut dyn FnMut(Value, &Value) -> Result<bool, Error>) -> Result<(), Error> {
    match range {
        Value::List(list) => {
            for (index, item) in list.items.iter().enumerate() {
                if !visit(Value::Int(index as i64), item)? {
                    break;
                }
            }
        }
        Value::Map(map) => {
            for (key, item) in &map.entries {
                if !visit(key.value(), item)? {
                    break;
                }
            }
        }
        _ => return Err(Error::NoSuchOverload),
    }
    Ok(())
}

impl Run<'_> {
    fn within(&self, body: &Expr, range: &Value, key: &Value, item: &Value, budget: &mut Budget) -> Outcome {
        let fold = self.fold;
        match &fold.second {
            Some(second) => {
                let names = [(&*fold.first, key), (&**second, item)];
                value(body, &Scope::inner(self.scope, &names), budget)
            }
            None => {
                let only = if matches!(range, Value::Map(_)) { key } else { item };
                value(body, &Scope::inner(self.scope, &[(&*fold.first, only)]), budget)
            }
        }
    }

    /// `all` and `exists`: the first decisive turn ends it; an error counts only if none is.
    fn decide(&self, range: &Value, decisive: bool, budget: &mut Budget) -> Outcome {
        let (mut decided, mut failed) = (false, None);
        each(range, &mut |key, item| {
            budget.pay(TURN_COST)?;
            match truth(self.within(&self.fold.body, range, &key, item, budget)) {
                Err(Error::CostExceeded) => return Err(Error::CostExceeded),
                Err(error) => drop(failed.get_or_insert(error)),
                Ok(truth) => decided = truth == decisive,
            }
            Ok(!decided)
        })?;
        match failed {
            Some(error) if !decided => Err(error),
            _ => Ok(Value::Bool(decided == decisive)),
        }
    }

    fn exactly_one(&self, range: &Value, budget: &mut Budget) -> Outcome {
        let mut count = 0;
        each(range, &mut |key, item| {
            budget.pay(TURN_COST)?;
            count += usize::from(truth(self.within(&self.fold.body, range, &key, item, budget))?);
            Ok(true)
        })?;
        Ok(Value::Bool(count == 1))
    }

    fn passes(&self, range: &Value, key: &Value, item: &Value, budget: &mut Budget) -> Result<bool, Error> {
        match &self.fold.filter {
            Some(filter) => truth(self.within(filter, range, key, item, budget)),
            None => Ok(true),
        }
    }

    fn list(&self, range: &Value, budget: &mut Budget) -> Outcome {
        let mut out = Vec::new();
        each(range, &mut |key, item| {
            budget.pay(TURN_COST)?;
            if self.fold.op == FoldOp::Filter {
                if truth(self.within(&self.fold.body, range, &key, item, budget))? {
                    budget.pay(KEEP_COST)?;
                    out.push(if matches!(range, Value::Map(_)) { key } else { item.clone() });
                }
            } else if self.passes(range, &key, item, budget)? {
                budget.pay(KEEP_COST)?;
                out.push(self.within(&self.fold.body, range, &key, item, budget)?);
            }
            Ok(true)
        })?;
        Ok(Value::list(out))
    }

    fn map(&self, range: &Value, budget: &mut Budget) -> Outcome {
        let mut out: BTreeMap<Key, Value> = BTreeMap::new();
        each(range, &mut |key, item| {
            budget.pay(TURN_COST)?;
            if !self.passes(range, &key, item, budget)? {
                return Ok(true);
            }
            budget.pay(KEEP_COST)?;
            let result = self.within(&self.fold.body, range, &key, item, budget)?;
            if self.fold.op == FoldOp::Map {
                out.insert(Key::of(&key).ok_or(Error::NoSuchOverload)?, result);
                return Ok(true);
            }
            let Value::Map(entry) = result else { return Err(Error::NoSuchOverload) };
            for (key, value) in &entry.entries {
                if out.insert(key.clone(), value.clone()).is_some() {
                    return Err(Error::other(format!("insert failed: key {key} already exists")));
                }
            }
            Ok(true)
        })?;
        Ok(Value::Map(Arc::new(Map { entries: out, type_name: None, default: None })))
    }

    fn sort_by(&self, range: &Value, budget: &mut Budget) -> Outcome {
        let mut keyed = Vec::new();
        each(range, &mut |key, item| {
            budget.pay(TURN_COST + KEEP_COST)?;
            keyed.push((self.within(&self.fold.body, range, &key, item, budget)?, item.clone()));
            Ok(true)
        })?;
        let mut incomparable = false;
        keyed.sort_by(|(a, _), (b, _)| {
            operators::order(a, b).unwrap_or_else(|| {
                incomparable = true;
                std::cmp::Ordering::Equal
            })
        });
        if incomparable {
            return Err(Error::NoSuchOverload);
        }
        Ok(Value::list(keyed.into_iter().map(|(_, item)| item).collect()))
    }
}
