//! Label selectors in a form that is quick to match and can be compared, so that equal ones share what is counted
//! for them.

use std::collections::BTreeMap;

use api::placement::requirement_holds;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    /// One value, as `matchLabels` says it: by far the most frequent.
    Is,
    /// As in `matchExpressions`.
    Named(String),
}

/// What a label selector selects; [`Selector::nothing`] is an absent one, one without requirements selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    requirements: Vec<Requirement>,
    selects_nothing: bool,
}

impl Selector {
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), selects_nothing: true }
    }

    pub fn is_nothing(&self) -> bool {
        self.selects_nothing
    }

    /// `metav1.LabelSelectorAsSelector`.
    pub fn of(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::nothing() };
        let mut out = Self::of_labels(selector.match_labels.iter().flatten());
        out.requirements.extend(selector.match_expressions.iter().flatten().map(|e| {
            let mut values = e.values.clone().unwrap_or_default();
            values.sort();
            Requirement { key: e.key.clone(), operator: Operator::Named(e.operator.clone()), values }
        }));
        out.settle();
        out
    }

    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let mut out = Self::default();
        for (key, value) in labels {
            out.require(key, value);
        }
        out
    }

    /// Adds "this label has this value".
    pub fn require(&mut self, key: &str, value: &str) {
        let requirement = Requirement { key: key.to_owned(), operator: Operator::Is, values: vec![value.to_owned()] };
        self.requirements.push(requirement);
        self.settle();
    }

    fn settle(&mut self) {
        self.requirements.sort();
        self.requirements.dedup();
    }

    /// Selects everything (`labels.Selector.Empty`).
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.selects_nothing
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        let holds = |r: &Requirement| match &r.operator {
            Operator::Is => labels.get(&r.key) == r.values.first(),
            Operator::Named(name) => requirement_holds(labels.get(&r.key).map(String::as_str), name, &r.values),
        };
        !self.selects_nothing && self.requirements.iter().all(holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_empty_and_equal_selectors() {
        let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
        assert!(!Selector::of(None).matches(&labels));
        assert!(Selector::of(Some(&LabelSelector::default())).matches(&labels));
        let parse = |text: &str| Selector::of(Some(&serde_json::from_str(text).expect("a selector")));
        let one = parse(r#"{"matchLabels": {"app": "web", "tier": "front"}}"#);
        assert_eq!(one, parse(r#"{"matchLabels": {"tier": "front", "app": "web"}}"#));
        assert!(!one.matches(&labels));
        assert!(
            parse(r#"{"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}"#)
                .matches(&labels)
        );
    }
}
