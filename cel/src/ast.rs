//! The tree of an expression. The checker fills in types and resolves names; nothing changes it afterwards.

use std::sync::Arc;

use crate::types::Type;
use crate::value::Value;

#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: Kind,
    /// Code points before it; of an operator, before its sign.
    pub at: u32,
    pub ty: Type,
}

impl Expr {
    pub fn new(at: u32, kind: Kind) -> Self {
        Self { kind, at, ty: Type::Dyn }
    }
}

#[derive(Clone, Debug)]
pub enum Kind {
    Const(Value),
    Ident(Arc<str>),
    Select(Select),
    /// A function by name; a member function's target is the first argument.
    Call(Call),
    /// Items, each with whether it stands for an optional.
    List(Vec<(Expr, bool)>),
    Map(Vec<Entry>),
    Struct(Arc<str>, Vec<Field>),
    Fold(Box<Fold>),
    /// `optMap`, `optFlatMap` and `cel.bind`.
    Bind(Box<Bind>),
}

#[derive(Clone, Debug)]
pub struct Select {
    pub operand: Box<Expr>,
    pub field: Arc<str>,
    /// `has()`: asks whether it is there.
    pub test: bool,
    /// `.?`: gives an optional.
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub function: Arc<str>,
    pub member: bool,
    pub args: Vec<Expr>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: Arc<str>,
    pub value: Expr,
    pub optional: bool,
    pub at: u32,
}

/// A macro that goes over a list or map.
#[derive(Clone, Debug)]
pub struct Fold {
    pub op: FoldOp,
    pub range: Expr,
    pub first: Arc<str>,
    /// With it, `first` is the index or key.
    pub second: Option<Arc<str>>,
    pub filter: Option<Expr>,
    pub body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldOp {
    All,
    Exists,
    ExistsOne,
    Filter,
    List,
    Map,
    MapEntry,
    SortBy,
}

#[derive(Clone, Debug)]
pub struct Bind {
    pub op: BindOp,
    pub operand: Expr,
    pub variable: Arc<str>,
    pub body: Expr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindOp {
    /// `cel.bind`: the operand itself.
    Plain,
    /// What an optional holds; the result is an optional.
    Optional,
    /// Likewise; the body gives an optional itself.
    OptionalFlat,
}
