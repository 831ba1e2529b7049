//! What an expression may name: variables with their types, and the types it may construct.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::Expr;
use crate::check::check;
use crate::error::{CompileError, Issue};
use crate::estimate::{Estimate, estimate};
use crate::parser::parse;
use crate::types::Type;

#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<Arc<str>, Type>,
    /// `Object{}` and what is below it, and `JSONPatch{}`.
    mutates: bool,
    /// `cel.bind(name, value, expression)`.
    binds: bool,
}

/// Fields of a `JSONPatch`.
const PATCH_FIELDS: &[&str] = &["op", "path", "from", "value"];

impl Env {
    #[must_use]
    pub fn with(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.into(), ty);
        self
    }

    /// With the types that mutations are written in.
    #[must_use]
    pub fn with_mutations(mut self) -> Self {
        self.mutates = true;
        self
    }

    /// With `cel.bind`, which device selectors may use.
    #[must_use]
    pub fn with_bindings(mut self) -> Self {
        self.binds = true;
        self
    }

    pub(crate) fn binds(&self) -> bool {
        self.binds
    }

    pub fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    /// Whether a type can be constructed, and its fields if they are fixed.
    pub(crate) fn construct(&self, name: &str) -> Option<Option<&'static [&'static str]>> {
        match name {
            _ if !self.mutates => None,
            "JSONPatch" => Some(Some(PATCH_FIELDS)),
            "Object" => Some(None),
            _ if name.starts_with("Object.") => Some(None),
            _ => None,
        }
    }

    /// Parses and checks an expression.
    pub fn compile(&self, source: &str) -> Result<Program, CompileError> {
        let failed = |issues: Vec<Issue>| CompileError { text: source.to_owned(), issues };
        let mut expr = parse(source).map_err(|issue| failed(vec![issue]))?;
        let mut issues = check(&mut expr, self);
        if issues.is_empty() {
            issues = crate::literals::check(&expr);
        }
        if issues.is_empty() { Ok(Program { expr }) } else { Err(failed(issues)) }
    }
}

/// A checked expression.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) expr: Expr,
}

impl Program {
    pub fn result_type(&self) -> &Type {
        self.expr.ty.base()
    }

    /// Bounds of what it may cost, from the sizes its variables' types allow.
    pub fn estimate(&self) -> Estimate {
        estimate(&self.expr)
    }

    /// Whether it reads a variable.
    pub fn reads(&self, name: &str) -> bool {
        crate::names::reads(&self.expr, name)
    }
}
