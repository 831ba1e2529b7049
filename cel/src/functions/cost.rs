//! What a call costs by the sizes of its arguments: cel-go's cost tracker and Kubernetes' `CostEstimator.CallCost`.

use crate::value::Value;

/// Of going once over a text, per character.
const TRAVERSAL: f64 = 0.1;
/// Of a pattern, per character of it.
const PATTERN: f64 = 0.25;
/// Of an authorization check: two fit into an expression.
const CHECK_COST: u64 = 350_000;

fn traverse(size: u64, times: f64) -> u64 {
    (size as f64 * times * TRAVERSAL).ceil() as u64
}

fn size(args: &[Value], index: usize) -> u64 {
    args.get(index).map_or(0, Value::size)
}

/// All that a list holds, for what compares or copies its elements.
fn deep(value: &Value) -> u64 {
    match value {
        Value::List(list) => list.items.iter().map(|item| 1 + element(item)).sum(),
        other => traverse(other.size(), 1.0),
    }
}

fn element(value: &Value) -> u64 {
    match value {
        Value::String(_) | Value::Bytes(_) => traverse(value.size(), 1.0),
        Value::List(_) | Value::Map(_) => deep(value),
        _ => 0,
    }
}

fn matching(text: u64, pattern: u64) -> u64 {
    traverse(text + 1, 1.0).saturating_mul((pattern as f64 * PATTERN).ceil() as u64)
}

pub fn cost(function: &str, args: &[Value]) -> u64 {
    let sizes = (size(args, 0), size(args, 1));
    match function {
        "check" => CHECK_COST,
        "startsWith"
        | "endsWith"
        | "bytes"
        | "strings.quote"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "url"
        | "isURL"
        | "ip"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "jsonpatch.escapeKey"
        | "duration"
        | "timestamp"
        | "format" => traverse(sizes.0, 1.0).max(1),
        "string" => args.first().map_or(1, |arg| traverse(arg.size(), 1.0).max(1)),
        "replace" | "split" | "ip.isCanonical" => traverse(sizes.0, 2.0),
        "join" => args.first().map_or(0, joined),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => match args {
            // Lists and maps are compared all through, which upstream's count by their length alone leaves out.
            [a @ (Value::List(_) | Value::Map(_)), b] => deep(a).min(deep(b)).max(1),
            _ => traverse(sizes.0.min(sizes.1), 1.0),
        },
        "_+_" => match args.first() {
            Some(Value::String(_) | Value::Bytes(_)) => traverse(sizes.0 + sizes.1, 1.0),
            Some(Value::List(_)) => 1 + (sizes.0 + sizes.1) / 100,
            _ => 1,
        },
        "@in" => match args.get(1) {
            Some(Value::List(_)) => sizes.1.max(1),
            _ => 1,
        },
        "contains" => match args.first() {
            Some(Value::String(_)) => traverse(sizes.0, 1.0).max(1).saturating_mul(traverse(sizes.1, 1.0).max(1)),
            _ => 1,
        },
        "matches" | "find" | "findAll" => matching(sizes.0, sizes.1),
        "validate" => match args.first() {
            Some(Value::Format(format)) => matching(sizes.1, format.pattern_size),
            _ => 1,
        },
        "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" | "reverse" | "slice" | "flatten" => {
            args.first().map_or(1, deep).max(1)
        }
        "sort" => args.first().map_or(1, deep).saturating_mul(1 + u64::from(sizes.0.max(1).ilog2())),
        "distinct" => args.first().map_or(1, deep).saturating_mul(sizes.0.max(1)),
        "lists.range" => match args.first() {
            Some(Value::Int(count)) => u64::try_from(*count).unwrap_or(0).saturating_add(1),
            _ => 1,
        },
        "sets.contains" | "sets.equivalent" | "sets.intersects" => sizes.0.saturating_mul(sizes.1).max(1),
        "containsIP" | "containsCIDR" => 1 + traverse(sizes.1, 1.0),
        _ => 1,
    }
}

fn joined(list: &Value) -> u64 {
    match list {
        Value::List(list) => list.items.iter().map(|item| traverse(item.size(), 2.0)).sum::<u64>().max(1),
        _ => 1,
    }
}
