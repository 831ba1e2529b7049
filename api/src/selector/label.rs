//! Label requirements and the two ways to write them: text (`a=b,c in (d,e)`) and the `LabelSelector` object.

use serde_json::{Map, Value};

use super::Error;
use crate::name;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted.
    pub values: Vec<String>,
}

/// Requirements that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Matches no object at all: what an absent `LabelSelector` object means.
    nothing: bool,
}

/// `[a b]`, as Go prints a list of texts.
fn listed(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
    format!("[{}]", quoted.join(","))
}

impl Requirement {
    /// Checks key and values as upstream's `NewRequirement`; `path` is empty for selectors in text.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, Error> {
        let mut errors = Vec::new();
        let problems = name::qualified_name(key);
        if !problems.is_empty() {
            errors.push(format!("key: Invalid value: {key:?}: {}", problems.join("; ")));
        }
        let wrong_values = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        errors.extend(wrong_values.map(|what| format!("values: Invalid value: {}: {what}", listed(&values))));
        for (at, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                errors.push(format!(
                    "values[{at}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ));
            }
        }
        for (at, value) in values.iter().enumerate() {
            let problems = name::label_value(value);
            if !problems.is_empty() {
                errors.push(format!("values[{at}][{key}]: Invalid value: {value:?}: {}", problems.join("; ")));
            }
        }
        values.sort();
        match errors.len() {
            0 => Ok(Self { key: key.to_owned(), operator, values }),
            1 => Err(Error(errors.remove(0))),
            _ => Err(Error(format!("[{}]", errors.join(", ")))),
        }
    }

    fn has(&self, value: &str) -> bool {
        self.values.iter().any(|v| v == value)
    }

    /// Whether the requirement holds for a label's value, or for its absence.
    pub fn matches(&self, label: Option<&str>) -> bool {
        let compare = |greater: bool| {
            let (Some(have), Some(want)) = (label, self.values.first()) else { return false };
            let (Ok(have), Ok(want)) = (have.parse::<i64>(), want.parse::<i64>()) else { return false };
            if greater { have > want } else { have < want }
        };
        match self.operator {
            Operator::In | Operator::Equals => label.is_some_and(|v| self.has(v)),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(|v| self.has(v)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => compare(true),
            Operator::LessThan => compare(false),
        }
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Matches no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Text as in the `labelSelector` query parameter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        super::parse::labels(text).map(Self::new)
    }

    /// A `LabelSelector` object (`LabelSelectorAsSelector`): absent matches nothing, empty matches everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, Error> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(Error(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(|v| v.as_str().map(str::to_owned)).collect();
            requirements.push(Requirement::new(expression["key"].as_str().unwrap_or_default(), operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    /// A plain map of labels, as ReplicationControllers and Services use (`SelectorFromSet`): an empty or absent map
    /// matches everything.
    pub fn from_map(labels: Option<&Map<String, Value>>) -> Self {
        let requirement = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        Self::new(labels.into_iter().flatten().map(requirement).collect())
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether labels, looked up by key, match.
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(lookup(&r.key)))
    }

    /// Whether the labels of an object's metadata match.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
    }

    /// The value a label must have for an object to match, if there is exactly one.
    pub fn required_value(&self, key: &str) -> Option<&str> {
        let requirement = self.requirements.iter().find(|r| r.key == key)?;
        match (requirement.operator, requirement.values.as_slice()) {
            (Operator::In | Operator::Equals, [value]) => Some(value),
            _ => None,
        }
    }
}

impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let listed: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&listed.join(","))
    }
}
