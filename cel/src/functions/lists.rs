//! Lists and sets.

use std::sync::Arc;

use crate::error::Error;
use crate::evaluate::Outcome;
use crate::operators;
use crate::value::{List, Value};

/// Items that `lists.range` and `flatten` may make.
const ITEMS_MAX: usize = 1 << 20;

pub fn call(function: &str, args: &[Value]) -> Option<Outcome> {
    if let ("lists.range", [Value::Int(count)]) = (function, args) {
        return Some(range(*count));
    }
    let Some((Value::List(list), rest)) = args.split_first() else { return None };
    let items = &list.items;
    Some(match (function, rest) {
        ("isSorted", []) => {
            let sorted = items.windows(2).map(|pair| ordered(&pair[0], &pair[1])).collect::<Result<Vec<_>, _>>();
            sorted.map(|pairs| Value::Bool(pairs.into_iter().all(std::cmp::Ordering::is_le)))
        }
        ("sum", []) => sum(items),
        ("min", []) => extreme(items, "min", std::cmp::Ordering::is_lt),
        ("max", []) => extreme(items, "max", std::cmp::Ordering::is_gt),
        ("indexOf", [item]) => Ok(index(items.iter().position(|found| found == item))),
        ("lastIndexOf", [item]) => Ok(index(items.iter().rposition(|found| found == item))),
        ("first", []) => Ok(Value::Optional(items.first().cloned().map(Arc::new))),
        ("last", []) => Ok(Value::Optional(items.last().cloned().map(Arc::new))),
        ("reverse", []) => Ok(Value::list(items.iter().rev().cloned().collect())),
        ("slice", [Value::Int(from), Value::Int(to)]) => slice(items, *from, *to),
        ("flatten", []) => flatten(items, 1),
        ("flatten", [Value::Int(depth)]) => flatten(items, *depth),
        ("distinct", []) => Ok(distinct(items)),
        ("sort", []) => sort(items),
        ("sets.contains", [Value::List(other)]) => Ok(Value::Bool(other.items.iter().all(|item| items.contains(item)))),
        ("sets.intersects", [Value::List(other)]) => {
            Ok(Value::Bool(other.items.iter().any(|item| items.contains(item))))
        }
        ("sets.equivalent", [Value::List(other)]) => {
            let within = |a: &List, b: &List| a.items.iter().all(|item| b.items.contains(item));
            Ok(Value::Bool(within(list, other) && within(other, list)))
        }
        _ => return None,
    })
}

fn index(found: Option<usize>) -> Value {
    Value::Int(found.map_or(-1, |index| index as i64))
}

fn ordered(a: &Value, b: &Value) -> Result<std::cmp::Ordering, Error> {
    operators::order(a, b).ok_or(Error::NoSuchOverload)
}

fn sum(items: &[Value]) -> Outcome {
    let Some((first, rest)) = items.split_first() else { return Ok(Value::Int(0)) };
    rest.iter().try_fold(first.clone(), |sum, item| {
        operators::call("_+_", &[sum, item.clone()]).unwrap_or(Err(Error::NoSuchOverload))
    })
}

fn extreme(items: &[Value], name: &str, better: fn(std::cmp::Ordering) -> bool) -> Outcome {
    let Some((first, rest)) = items.split_first() else {
        return Err(Error::other(format!("{name} called on empty list")));
    };
    let mut best = first;
    for item in rest {
        if better(ordered(item, best)?) {
            best = item;
        }
    }
    Ok(best.clone())
}

fn range(count: i64) -> Outcome {
    let count = usize::try_from(count).unwrap_or(0);
    if count > ITEMS_MAX {
        return Err(Error::other(format!("lists.range of more than {ITEMS_MAX} items")));
    }
    Ok(Value::list((0..count as i64).map(Value::Int).collect()))
}

fn slice(items: &[Value], from: i64, to: i64) -> Outcome {
    let refused = |why: String| Err(Error::other(why));
    let (Ok(start), Ok(end)) = (usize::try_from(from), usize::try_from(to)) else {
        return refused(format!("cannot slice({from}, {to}), negative indexes not supported"));
    };
    if start > end {
        return refused(format!("cannot slice({from}, {to}), start index must be less than or equal to end index"));
    }
    if end > items.len() {
        return refused(format!("cannot slice({from}, {to}), list is length {}", items.len()));
    }
    Ok(Value::list(items[start..end].to_vec()))
}

fn flatten(items: &[Value], depth: i64) -> Outcome {
    if depth < 0 {
        return Err(Error::other("level must be non-negative"));
    }
    let mut out = Vec::new();
    for item in items {
        match item {
            Value::List(inner) if depth > 0 => match flatten(&inner.items, depth - 1)? {
                Value::List(flat) => out.extend(flat.items.iter().cloned()),
                other => out.push(other),
            },
            other => out.push(other.clone()),
        }
        if out.len() > ITEMS_MAX {
            return Err(Error::other("the result is too long"));
        }
    }
    Ok(Value::list(out))
}

fn distinct(items: &[Value]) -> Value {
    let mut out: Vec<Value> = Vec::new();
    for item in items {
        if !out.contains(item) {
            out.push(item.clone());
        }
    }
    Value::list(out)
}

fn sort(items: &[Value]) -> Outcome {
    for pair in items.windows(2) {
        ordered(&pair[0], &pair[1])?;
    }
    let mut sorted = items.to_vec();
    sorted.sort_by(|a, b| operators::order(a, b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Value::list(sorted))
}
