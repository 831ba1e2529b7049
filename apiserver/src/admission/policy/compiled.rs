//! A policy with its expressions compiled. An expression that does not compile fails when it is evaluated.

use std::sync::Arc;

use api::meta;
use cel::{Budget, Env, Error, Program, RULE_COST_MAX, Scope, Type, Value};
use serde_json::Value as Json;

use super::environment::{self, Variables};

/// An expression that must have a certain type.
#[derive(Clone, Debug)]
pub struct Expression {
    pub source: String,
    program: Result<Program, String>,
}

/// The types a result may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Any,
    Bool,
    Text,
    TextOrNull,
    Object,
    Patches,
}

impl Wanted {
    fn names(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::TextOrNull => "[string null_type]",
            Self::Object => "Object",
            Self::Patches => "list(JSONPatch)",
        }
    }

    fn takes(self, ty: &Type) -> bool {
        match self {
            Self::Any => true,
            Self::Bool => *ty == Type::Bool,
            Self::Text => *ty == Type::String,
            Self::TextOrNull => matches!(ty, Type::String | Type::Null),
            Self::Object => *ty == Type::named("Object"),
            Self::Patches => match ty {
                Type::List(items) => {
                    matches!(items.base(), Type::Param(_) | Type::Dyn) || **items == Type::named("JSONPatch")
                }
                _ => false,
            },
        }
    }
}

impl Expression {
    pub fn new(source: &str, env: &Env, wanted: Wanted) -> Self {
        let program = env.compile(source).map_err(|error| format!("compilation failed: {error}"));
        let program = program.and_then(|program| {
            let found = program.result_type();
            if wanted.takes(found) {
                return Ok(program);
            }
            let several = if wanted == Wanted::TextOrNull { "one of " } else { "" };
            Err(format!("must evaluate to {several}{} but got {found}", wanted.names()))
        });
        Self { source: source.to_owned(), program }
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    pub fn result_type(&self) -> Type {
        self.program.as_ref().map_or(Type::Dyn, |program| program.result_type().clone())
    }

    /// Its value, paid from the budget of all expressions of the policy on this request. The outer error ends them all.
    pub fn evaluate(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Result<Value, String>, String> {
        const EXHAUSTED: &str =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        match self.value(scope, budget) {
            Ok(value) => Ok(Ok(value)),
            Err(Failure::Compilation(problem)) => Ok(Err(format!("compilation error: {problem}"))),
            Err(Failure::Evaluation(Error::CostExceeded)) if budget.left() == 0 => Err(EXHAUSTED.to_owned()),
            Err(Failure::Evaluation(error)) => {
                Ok(Err(format!("expression '{}' resulted in error: {error}", self.source)))
            }
        }
    }

    pub fn value(&self, scope: &Scope<'_>, budget: &mut Budget) -> Result<Value, Failure> {
        let program = self.program.as_ref().map_err(|problem| Failure::Compilation(problem.clone()))?;
        let mut own = Budget::new(RULE_COST_MAX.min(budget.left()));
        let result = program.evaluate(scope, &mut own);
        if let Err(error) = budget.pay(own.spent()) {
            return Err(Failure::Evaluation(error));
        }
        result.map_err(Failure::Evaluation)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Compilation(String),
    #[error("{0}")]
    Evaluation(Error),
}

#[derive(Debug)]
pub struct Validation {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: String,
}

#[derive(Debug)]
pub enum Mutation {
    Apply(Expression),
    Patch(Expression),
}

impl Mutation {
    pub fn expression(&self) -> &Expression {
        match self {
            Self::Apply(expression) | Self::Patch(expression) => expression,
        }
    }
}

#[derive(Debug)]
pub struct Policy {
    pub name: String,
    pub spec: Json,
    pub ignores_failures: bool,
    /// Name and condition.
    pub conditions: Vec<(String, Expression)>,
    pub variables: Arc<Vec<(Arc<str>, Expression)>>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Expression)>,
    pub mutations: Vec<Mutation>,
}

fn text<'a>(value: &'a Json, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Json, field: &str) -> impl Iterator<Item = &'a Json> {
    value[field].as_array().into_iter().flatten()
}

/// Conditions see neither variables nor the types of mutations.
pub fn condition(source: &str, params: bool) -> Expression {
    let env = environment::env(Variables { params, authorizer: true, mutations: false });
    Expression::new(source, &env, Wanted::Bool)
}

/// The environment with the variables declared so far.
fn with_variables(env: Env, variables: &[(Arc<str>, Expression)]) -> Env {
    let fields = variables.iter().map(|(name, expression)| (Arc::clone(name), expression.result_type())).collect();
    let object = cel::Object { name: "kubernetes.variables".into(), fields };
    env.with("variables", Type::Object(Arc::new(object)))
}

impl Policy {
    pub fn compile(policy: &Json) -> Self {
        let spec = &policy["spec"];
        let params = spec["paramKind"].is_object();
        let mutating = spec["mutations"].is_array();
        let full = environment::env(Variables { params, authorizer: true, mutations: mutating });
        let conditions = list(spec, "matchConditions");
        let conditions = conditions.map(|c| (text(c, "name").to_owned(), condition(text(c, "expression"), params)));
        let mut variables: Vec<(Arc<str>, Expression)> = Vec::new();
        for variable in list(spec, "variables") {
            let env = with_variables(full.clone(), &variables);
            let expression = Expression::new(text(variable, "expression"), &env, Wanted::Any);
            variables.push((text(variable, "name").into(), expression));
        }
        let full = with_variables(full, &variables);
        // Messages can't ask the authorizer.
        let message_env =
            with_variables(environment::env(Variables { params, authorizer: false, mutations: false }), &variables);
        let validation = |validation: &Json| Validation {
            expression: Expression::new(text(validation, "expression"), &full, Wanted::Bool),
            message: text(validation, "message").trim().to_owned(),
            message_expression: Some(text(validation, "messageExpression"))
                .filter(|source| !source.trim().is_empty())
                .map(|source| Expression::new(source, &message_env, Wanted::Text)),
            reason: text(validation, "reason").to_owned(),
        };
        let annotation = |annotation: &Json| {
            let source = text(annotation, "valueExpression").trim();
            (text(annotation, "key").to_owned(), Expression::new(source, &full, Wanted::TextOrNull))
        };
        let mutation = |mutation: &Json| match text(mutation, "patchType") {
            "JSONPatch" => {
                let source = text(&mutation["jsonPatch"], "expression");
                Mutation::Patch(Expression::new(source, &full, Wanted::Patches))
            }
            _ => {
                let source = text(&mutation["applyConfiguration"], "expression");
                Mutation::Apply(Expression::new(source, &full, Wanted::Object))
            }
        };
        Self {
            name: meta::name(policy).to_owned(),
            ignores_failures: spec["failurePolicy"] == "Ignore",
            conditions: conditions.collect(),
            validations: list(spec, "validations").map(validation).collect(),
            annotations: list(spec, "auditAnnotations").map(annotation).collect(),
            mutations: list(spec, "mutations").map(mutation).collect(),
            variables: Arc::new(variables),
            spec: spec.clone(),
        }
    }
}
