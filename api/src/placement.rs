//! Where a pod may run, as far as it is said in words: node selector terms and tolerations. Callers hand over what
//! they hold; the rules are the same for all of them.

/// One toleration of a pod; absent fields are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Toleration<'a> {
    pub key: &'a str,
    pub operator: &'a str,
    pub value: &'a str,
    pub effect: &'a str,
}

/// One taint of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taint<'a> {
    pub key: &'a str,
    pub value: &'a str,
    pub effect: &'a str,
}

impl Toleration<'_> {
    /// `Toleration.ToleratesTaint`. An empty key or effect matches every one; an operator this version doesn't know
    /// tolerates nothing.
    pub fn tolerates(&self, taint: &Taint<'_>) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect || !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        let compare = |holds: fn(&i64, &i64) -> bool| match (taint.value.parse(), self.value.parse()) {
            (Ok(have), Ok(want)) => holds(&have, &want),
            _ => false,
        };
        match self.operator {
            "" | "Equal" => self.value == taint.value,
            "Exists" => true,
            "Lt" => compare(i64::lt),
            "Gt" => compare(i64::gt),
            _ => false,
        }
    }
}

/// Whether one requirement of a node selector term holds for a label's or a field's value. An operator this version
/// doesn't know holds for nothing.
pub fn requirement_holds(value: Option<&str>, operator: &str, values: &[String]) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || values.first().and_then(|v| number(v));
    match operator {
        "In" => value.is_some_and(|v| values.iter().any(|w| w == v)),
        "NotIn" => value.is_none_or(|v| values.iter().all(|w| w != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v > b),
        "Lt" => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_matches_by_key_operator_value_and_effect() {
        let taint = Taint { key: "disk", value: "5", effect: "NoSchedule" };
        let check = |text: &str, expected: bool| {
            let mut words = text.split(' ').map(|word| if word == "-" { "" } else { word });
            let mut next = || words.next().unwrap();
            let toleration = Toleration { key: next(), operator: next(), value: next(), effect: next() };
            assert_eq!(toleration.tolerates(&taint), expected, "{text}");
        };
        check("disk Equal 5 NoSchedule", true);
        check("disk - 5 -", true);
        check("disk Equal 6 NoSchedule", false);
        check("disk Exists - NoExecute", false);
        check("- Exists - -", true);
        check("other Exists - -", false);
        check("disk Gt 4 -", true);
        check("disk Lt 4 -", false);
        check("disk Gt x -", false);
        check("disk Like 5 -", false);
    }

    #[test]
    fn requirements_compare_values() {
        let check = |value: Option<&str>, operator: &str, values: &[&str], expected: bool| {
            let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            assert_eq!(requirement_holds(value, operator, &values), expected, "{value:?} {operator} {values:?}");
        };
        check(Some("a"), "In", &["a", "b"], true);
        check(None, "In", &["a"], false);
        check(None, "NotIn", &["a"], true);
        check(Some("a"), "NotIn", &["a"], false);
        check(Some(""), "Exists", &[], true);
        check(None, "DoesNotExist", &[], true);
        check(Some("5"), "Gt", &["4"], true);
        check(Some("x"), "Gt", &["4"], false);
        check(Some("3"), "Lt", &["4"], true);
        check(Some("3"), "Near", &["4"], false);
    }
}
