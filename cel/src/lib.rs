//! Kubernetes' expression language (CEL with the environment of v1.36): parse, check, estimate, evaluate. Pure: no I/O, no
//! clock. Whatever an expression or its data are, compiling and evaluating take bounded time, stack and memory:
//! length and nesting are limited when parsed, and evaluation pays for each step from a [`Budget`].
//!
//! ```
//! use cel::{Budget, Env, Scope, Type, Value};
//! let program = Env::default().with("x", Type::Int).compile("x * 2 > 3").unwrap();
//! let x = Value::Int(2);
//! let bound = [("x", &x)];
//! let scope = Scope::new(&bound);
//! assert_eq!(program.evaluate(&scope, &mut Budget::new(1000)), Ok(Value::Bool(true)));
//! ```

mod ast;
mod budget;
mod check;
mod declarations;
mod env;
mod error;
mod estimate;
mod evaluate;
mod fold;
mod functions;
mod json;
mod lexer;
mod literals;
mod macros;
mod names;
mod operators;
mod parser;
pub mod schema;
mod types;
mod unify;
mod value;

#[cfg(test)]
mod tests;

pub use budget::{Budget, OBJECT_COST_MAX, RULE_COST_MAX};
pub use declarations::AUTHORIZER;
pub use env::{Env, Program};
pub use error::{CompileError, Error, Issue};
pub use estimate::Estimate;
pub use evaluate::Scope;
pub use functions::convert_text as convert;
pub use types::{Object, Type};
pub use value::{Host, Key, List, ListKind, Map, Value};
