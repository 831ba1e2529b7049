//! Whether the expressions of a policy compile, when it is created or changed.

use api::field::Error;
use serde_json::Value;

use super::compiled::{Expression, Policy, condition};

/// Bytes of a value expression (`maxAuditAnnotationValueExpressionLength`).
const VALUE_EXPRESSION_BYTES_MAX: usize = 5 * 1024;

pub fn errors(object: &Value) -> Vec<Error> {
    let policy = Policy::compile(object);
    let mut out = Vec::new();
    let mut look = |path: String, expression: &Expression| {
        if let Some(problem) = expression.problem() {
            out.push(Error::invalid(path, expression.source.as_str(), problem));
        }
    };
    for (i, (_, expression)) in policy.variables.iter().enumerate() {
        look(format!("spec.variables[{i}].expression"), expression);
    }
    for (i, validation) in policy.validations.iter().enumerate() {
        look(format!("spec.validations[{i}].expression"), &validation.expression);
        if let Some(expression) = &validation.message_expression {
            look(format!("spec.validations[{i}].messageExpression"), expression);
        }
    }
    for (i, (_, expression)) in policy.annotations.iter().enumerate() {
        look(format!("spec.auditAnnotations[{i}].valueExpression"), expression);
    }
    for (i, mutation) in policy.mutations.iter().enumerate() {
        let field = match mutation {
            super::compiled::Mutation::Apply(_) => "applyConfiguration",
            super::compiled::Mutation::Patch(_) => "jsonPatch",
        };
        look(format!("spec.mutations[{i}].{field}.expression"), mutation.expression());
    }
    for (i, (_, expression)) in policy.conditions.iter().enumerate() {
        look(format!("spec.matchConditions[{i}].expression"), expression);
    }
    for (i, (_, expression)) in policy.annotations.iter().enumerate() {
        if expression.source.len() > VALUE_EXPRESSION_BYTES_MAX {
            let detail = format!("must not exceed {VALUE_EXPRESSION_BYTES_MAX} bytes in length");
            out.push(Error::required(format!("spec.auditAnnotations[{i}].valueExpression"), detail));
        }
    }
    out
}

/// Whether the match conditions of webhooks compile.
pub fn webhook_errors(object: &Value) -> Vec<Error> {
    let mut out = Vec::new();
    for (i, hook) in object["webhooks"].as_array().into_iter().flatten().enumerate() {
        for (j, stated) in hook["matchConditions"].as_array().into_iter().flatten().enumerate() {
            let condition = condition(stated["expression"].as_str().unwrap_or_default(), false);
            if let Some(problem) = condition.problem() {
                let path = format!("webhooks[{i}].matchConditions[{j}].expression");
                out.push(Error::invalid(path, condition.source.as_str(), problem));
            }
        }
    }
    out
}
