//! Which variables an expression reads.

use crate::ast::{Expr, Kind};

/// Whether `name` is read where no macro's variable hides it.
pub fn reads(expr: &Expr, name: &str) -> bool {
    match &expr.kind {
        Kind::Const(_) => false,
        Kind::Ident(found) => &**found == name,
        Kind::Select(select) => reads(&select.operand, name),
        Kind::Call(call) => call.args.iter().any(|arg| reads(arg, name)),
        Kind::List(items) => items.iter().any(|(item, _)| reads(item, name)),
        Kind::Map(entries) => entries.iter().any(|entry| reads(&entry.key, name) || reads(&entry.value, name)),
        Kind::Struct(_, fields) => fields.iter().any(|field| reads(&field.value, name)),
        Kind::Fold(fold) => {
            let hidden = &*fold.first == name || fold.second.as_deref() == Some(name);
            let inner = || fold.filter.as_ref().is_some_and(|f| reads(f, name)) || reads(&fold.body, name);
            reads(&fold.range, name) || (!hidden && inner())
        }
        Kind::Bind(map) => reads(&map.operand, name) || (&*map.variable != name && reads(&map.body, name)),
    }
}
