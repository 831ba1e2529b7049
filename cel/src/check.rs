//! The checker: every name is declared, every call has an overload that takes its arguments, and each node gets its
//! type. It also settles which dotted names are functions of a library rather than members of a variable.

use std::sync::Arc;

use crate::ast::{Bind, BindOp, Call, Expr, Fold, FoldOp, Kind};
use crate::declarations::{Overload, functions};
use crate::env::Env;
use crate::error::Issue;
use crate::parser::qualified;
use crate::types::Type;
use crate::unify::Substitution;
use crate::value::Value;

/// Issues told of one expression.
const ISSUES_MAX: usize = 20;

pub fn check(expr: &mut Expr, env: &Env) -> Vec<Issue> {
    let mut checker = Checker { env, locals: Vec::new(), issues: Vec::new(), types: Substitution::default() };
    checker.expr(expr);
    let Checker { mut issues, types, .. } = checker;
    settle(expr, &types);
    issues.sort_by_key(|issue| issue.at);
    issues.truncate(ISSUES_MAX);
    issues
}

struct Checker<'a> {
    env: &'a Env,
    locals: Vec<(Arc<str>, Type)>,
    issues: Vec<Issue>,
    types: Substitution,
}

/// Replaces what type parameters stand for.
fn settle(expr: &mut Expr, types: &Substitution) {
    expr.ty = types.settle(&expr.ty);
    each_child(expr, &mut |child| settle(child, types));
}

fn each_child(expr: &mut Expr, visit: &mut dyn FnMut(&mut Expr)) {
    match &mut expr.kind {
        Kind::Const(_) | Kind::Ident(_) => {}
        Kind::Select(select) => visit(&mut select.operand),
        Kind::Call(call) => call.args.iter_mut().for_each(visit),
        Kind::List(items) => items.iter_mut().for_each(|(item, _)| visit(item)),
        Kind::Map(entries) => {
            for entry in entries {
                visit(&mut entry.key);
                visit(&mut entry.value);
            }
        }
        Kind::Struct(_, fields) => fields.iter_mut().for_each(|field| visit(&mut field.value)),
        Kind::Fold(fold) => {
            visit(&mut fold.range);
            fold.filter.iter_mut().for_each(&mut *visit);
            visit(&mut fold.body);
        }
        Kind::Bind(map) => {
            visit(&mut map.operand);
            visit(&mut map.body);
        }
    }
}

/// What a name means that stands for a type.
fn type_constant(name: &str) -> Option<Value> {
    let name = match name {
        "int" | "uint" | "double" | "bool" | "string" | "bytes" | "list" | "map" | "null_type" | "type" => name,
        "optional_type" => "optional_type",
        "google.protobuf.Timestamp" => "google.protobuf.Timestamp",
        "google.protobuf.Duration" => "google.protobuf.Duration",
        "net.IP" => "net.IP",
        "net.CIDR" => "net.CIDR",
        "kubernetes.Quantity" => "kubernetes.Quantity",
        "kubernetes.URL" => "kubernetes.URL",
        _ => return None,
    };
    Some(Value::Type(name.into()))
}

impl Checker<'_> {
    fn issue(&mut self, at: u32, message: impl Into<String>) -> Type {
        self.issues.push(Issue::new(at, message));
        Type::Dyn
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let local = self.locals.iter().rev().find(|(local, _)| &**local == name).map(|(_, ty)| ty.clone());
        local.or_else(|| self.env.variable(name).cloned())
    }

    fn expr(&mut self, expr: &mut Expr) -> Type {
        let ty = self.kind(expr);
        expr.ty = ty.clone();
        ty
    }

    fn kind(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        // A dotted name may be a variable or a type as a whole.
        if let Some(name) = qualified(expr)
            && self.lookup(root(&name)).is_none()
            && let Some(value) = type_constant(&name)
        {
            expr.kind = Kind::Const(value);
        }
        match &mut expr.kind {
            Kind::Const(value) => constant(value),
            Kind::Ident(name) => {
                let name = Arc::clone(name);
                match self.lookup(&name) {
                    Some(ty) => ty,
                    None => self.issue(at, format!("undeclared reference to '{name}' (in container '')")),
                }
            }
            Kind::Select(select) => {
                let operand = self.expr(&mut select.operand);
                let optional = select.optional;
                let ty = self.field(at, &operand, &select.field, optional);
                if select.test { Type::Bool } else { ty }
            }
            Kind::Call(call) => self.call(at, call),
            Kind::List(items) => {
                let mut element = None;
                for (item, optional) in items {
                    let mut ty = self.expr(item);
                    if *optional {
                        ty = self.within_optional(item.at, &ty);
                    }
                    element = Some(self.join(item.at, element, ty));
                }
                Type::list(element.unwrap_or_else(|| self.types.fresh()))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for entry in entries {
                    let key = self.expr(&mut entry.key);
                    keys = Some(self.join(entry.key.at, keys, key));
                    let mut value = self.expr(&mut entry.value);
                    if entry.optional {
                        value = self.within_optional(entry.value.at, &value);
                    }
                    values = Some(self.join(entry.value.at, values, value));
                }
                let keys = keys.unwrap_or_else(|| self.types.fresh());
                Type::map(keys, values.unwrap_or_else(|| self.types.fresh()))
            }
            Kind::Struct(name, fields) => {
                let name = Arc::clone(name);
                for field in fields.iter_mut() {
                    self.expr(&mut field.value);
                }
                let Some(allowed) = self.env.construct(&name) else {
                    return self.issue(at, format!("undeclared reference to '{name}' (in container '')"));
                };
                for field in fields.iter() {
                    if allowed.is_some_and(|allowed| !allowed.contains(&&*field.name)) {
                        self.issue(field.at, format!("undefined field '{}'", field.name));
                    }
                }
                Type::Named(name)
            }
            Kind::Fold(fold) => self.fold(at, fold),
            Kind::Bind(map) => self.bind(map),
        }
    }

    fn within_optional(&mut self, at: u32, ty: &Type) -> Type {
        match self.types.settle(ty).base() {
            Type::Optional(inner) => (**inner).clone(),
            Type::Dyn => Type::Dyn,
            other => {
                let message = format!("expected type 'optional_type({other})' but found '{other}'");
                self.issue(at, message)
            }
        }
    }

    /// Elements of a literal have one type.
    fn join(&mut self, at: u32, so_far: Option<Type>, next: Type) -> Type {
        let Some(so_far) = so_far else { return next };
        if self.types.unify(&so_far, &next) {
            return if *next.base() == Type::Dyn { Type::Dyn } else { so_far };
        }
        let (expected, found) = (self.types.settle(&so_far), self.types.settle(&next));
        self.issue(at, format!("expected type '{expected}' but found '{found}'"))
    }

    fn field(&mut self, at: u32, operand: &Type, field: &str, optional: bool) -> Type {
        let operand = self.types.settle(operand);
        let wrap = |ty: Type| if optional { Type::optional(ty) } else { ty };
        match operand.base() {
            Type::Optional(inner) => {
                let ty = self.field(at, inner, field, false);
                Type::optional(ty)
            }
            Type::Map(_, values) => wrap((**values).clone()),
            Type::Dyn | Type::Param(_) => wrap(Type::Dyn),
            Type::Named(name) if self.env.construct(name).is_some() => wrap(Type::Dyn),
            Type::Object(object) => match object.fields.get(field) {
                Some(ty) => wrap(ty.clone()),
                None => self.issue(at, format!("undefined field '{field}'")),
            },
            other => self.issue(at, format!("type '{other}' does not support field selection")),
        }
    }

    fn call(&mut self, at: u32, call: &mut Call) -> Type {
        self.resolve(call);
        let args: Vec<Type> = call.args.iter_mut().map(|arg| self.expr(arg)).collect();
        let Some(overloads) = functions().get(&*call.function) else {
            return self.issue(at, format!("undeclared reference to '{}' (in container '')", call.function));
        };
        match self.overload(overloads, call.member, &args) {
            Some(ty) => ty,
            None => {
                let args: Vec<String> = args.iter().map(|arg| self.types.settle(arg).to_string()).collect();
                let shown = match (call.member, args.split_first()) {
                    (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", args.join(", ")),
                };
                let message = format!("found no matching overload for '{}' applied to '{shown}'", call.function);
                self.issue(at, message)
            }
        }
    }

    /// `sets.contains(a, b)` is no member of anything.
    fn resolve(&self, call: &mut Call) {
        if !call.member {
            return;
        }
        let Some(target) = call.args.first().and_then(qualified) else { return };
        if self.lookup(root(&target)).is_some() {
            return;
        }
        let name = format!("{target}.{}", call.function);
        if functions().contains_key(name.as_str()) {
            call.function = name.into();
            call.member = false;
            call.args.remove(0);
        }
    }

    fn overload(&mut self, overloads: &[Overload], member: bool, args: &[Type]) -> Option<Type> {
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.member == member && o.params.len() == args.len()) {
            let before = self.types.mark();
            let fresh = [self.types.fresh(), self.types.fresh()];
            let instance = |ty: &Type| instantiate(ty, &fresh);
            if !overload.params.iter().zip(args).all(|(param, arg)| self.types.unify(&instance(param), arg)) {
                self.types.reset(before);
                continue;
            }
            let ty = self.types.settle(&instance(&overload.result));
            match &result {
                None => result = Some(ty),
                Some(first) if *first == ty => {}
                Some(_) => result = Some(Type::Dyn),
            }
        }
        result
    }

    fn fold(&mut self, _at: u32, fold: &mut Fold) -> Type {
        let range = self.expr(&mut fold.range);
        let range = self.types.settle(&range);
        let (key, value, is_list) = match range.base() {
            Type::List(items) => (Type::Int, (**items).clone(), true),
            Type::Map(keys, values) => ((**keys).clone(), (**values).clone(), false),
            Type::Dyn | Type::Param(_) => (Type::Dyn, Type::Dyn, true),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.issue(fold.range.at, message);
                (Type::Dyn, Type::Dyn, true)
            }
        };
        let depth = self.locals.len();
        match &fold.second {
            Some(second) => {
                self.locals.push((Arc::clone(&fold.first), key.clone()));
                self.locals.push((Arc::clone(second), value.clone()));
            }
            None => {
                let element = if is_list { value.clone() } else { key.clone() };
                self.locals.push((Arc::clone(&fold.first), element));
            }
        }
        if let Some(filter) = &mut fold.filter {
            let ty = self.expr(filter);
            self.expect_bool(filter.at, &ty, "_?_:_");
        }
        let body = self.expr(&mut fold.body);
        self.locals.truncate(depth);
        let element = if is_list { value } else { key.clone() };
        match fold.op {
            FoldOp::All | FoldOp::Exists | FoldOp::ExistsOne => {
                let function = match fold.op {
                    FoldOp::All => "_&&_",
                    FoldOp::Exists => "_||_",
                    _ => "_?_:_",
                };
                self.expect_bool(fold.body.at, &body, function);
                Type::Bool
            }
            FoldOp::Filter => {
                self.expect_bool(fold.body.at, &body, "_?_:_");
                Type::list(element)
            }
            FoldOp::List => Type::list(body),
            FoldOp::Map => Type::map(key, body),
            FoldOp::MapEntry => body,
            FoldOp::SortBy => range.base().clone(),
        }
    }

    fn expect_bool(&mut self, at: u32, ty: &Type, function: &str) {
        if !self.types.unify(&Type::Bool, ty) {
            let found = self.types.settle(ty);
            let message = format!("found no matching overload for '{function}' applied to '(bool, {found})'");
            self.issue(at, message);
        }
    }

    fn bind(&mut self, map: &mut Bind) -> Type {
        let operand = self.expr(&mut map.operand);
        if map.op == BindOp::Plain && !self.env.binds() {
            return self.issue(map.operand.at, "undeclared reference to 'cel' (in container '')");
        }
        let inner = if map.op == BindOp::Plain { operand } else { self.within_optional(map.operand.at, &operand) };
        self.locals.push((Arc::clone(&map.variable), inner));
        let body = self.expr(&mut map.body);
        self.locals.pop();
        if map.op == BindOp::Optional { Type::optional(body) } else { body }
    }
}

fn root(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

fn instantiate(ty: &Type, fresh: &[Type; 2]) -> Type {
    match ty {
        Type::Param(number) => fresh[*number as usize % 2].clone(),
        Type::List(items) => Type::list(instantiate(items, fresh)),
        Type::Map(keys, values) => Type::map(instantiate(keys, fresh), instantiate(values, fresh)),
        Type::Optional(value) => Type::optional(instantiate(value, fresh)),
        other => other.clone(),
    }
}

fn constant(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        Value::Type(_) => Type::Type,
        _ => Type::Dyn,
    }
}
