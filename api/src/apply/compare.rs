//! What a write changed: which paths were added, modified and removed, with the granularity the schema gives
//! (upstream's `TypedValue.Compare`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::Element;
use super::set::Set;
use super::typed::{Kind, ListRule, Type};
use super::values;

/// The difference between two objects. The three sets are disjoint.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// Compares two objects of one type.
pub(super) fn compare(ty: Type<'_>, left: &Value, right: &Value) -> Changes {
    let mut walk = Walk { path: Vec::new(), changes: Changes::default() };
    walk.visit(ty, Some(left), Some(right));
    walk.changes
}

struct Walk {
    path: Vec<Element>,
    changes: Changes,
}

impl Walk {
    fn visit(&mut self, ty: Type<'_>, left: Option<&Value>, right: Option<&Value>) {
        let (left_kind, right_kind) = (ty.kind(left), ty.kind(right));
        let mut is_leaf = match (left, right) {
            (None, None) => return,
            (_, None) => self.visit_as(left_kind, ty, left, right),
            _ => self.visit_as(right_kind, ty, left, right),
        };
        if left.is_some() && right.is_some() && left_kind != right_kind {
            is_leaf |= self.visit_as(left_kind, ty, left, right);
        }
        if !is_leaf {
            self.note_presence(left, right);
        }
    }

    fn note_presence(&mut self, left: Option<&Value>, right: Option<&Value>) {
        if left.is_none() {
            self.changes.added.insert(&self.path);
        } else if right.is_none() {
            self.changes.removed.insert(&self.path);
        }
    }

    /// Whether the place was treated as one whole.
    fn visit_as(&mut self, kind: Kind, ty: Type<'_>, left: Option<&Value>, right: Option<&Value>) -> bool {
        match kind {
            Kind::Scalar => self.leaf(left, right),
            Kind::List => {
                let (l, r) = (items_of(left), items_of(right));
                let rule = ty.list_rule();
                if rule.is_atomic() || (l.is_empty() && r.is_empty()) {
                    return self.leaf(left, right);
                }
                self.items(rule, ty.items(), l, r);
                false
            }
            Kind::Map => {
                let (l, r) = (left.and_then(Value::as_object), right.and_then(Value::as_object));
                let is_empty = |map: Option<&Map<String, Value>>| map.is_none_or(Map::is_empty);
                // Typed objects show implied fields, so an empty one counts as having what it implies.
                if ty.map_is_atomic() || (is_empty(l) && is_empty(r)) {
                    return self.leaf(left, right);
                }
                self.fields(ty, l, r);
                false
            }
        }
    }

    fn leaf(&mut self, left: Option<&Value>, right: Option<&Value>) -> bool {
        match (left, right) {
            (Some(left), Some(right)) => {
                if !values::equal(left, right) {
                    self.changes.modified.insert(&self.path);
                }
            }
            _ => self.note_presence(left, right),
        }
        true
    }

    fn fields(&mut self, ty: Type<'_>, left: Option<&Map<String, Value>>, right: Option<&Map<String, Value>>) {
        let mut names: Vec<&String> = left.into_iter().chain(right).flat_map(Map::keys).collect();
        names.sort();
        names.dedup();
        for name in names {
            if self.is_managed_fields(name) {
                continue;
            }
            let implied = || ty.named_field(name).and_then(values::implied);
            let (l, r) = (left.map(|map| map.get(name)), right.map(|map| map.get(name)));
            if l == r {
                continue;
            }
            // A side that is not there at all implies nothing.
            let l = l.and_then(|found| found.or_else(implied));
            let r = r.and_then(|found| found.or_else(implied));
            self.descend(Element::field(name), ty.member(name).unwrap_or(Type::Deduced), l, r);
        }
    }

    /// Ownership is not owned.
    fn is_managed_fields(&self, name: &str) -> bool {
        name == "managedFields" && matches!(self.path.as_slice(), [Element::Field(parent)] if **parent == *"metadata")
    }

    fn descend(&mut self, element: Element, ty: Type<'_>, left: Option<&Value>, right: Option<&Value>) {
        self.path.push(element);
        self.visit(ty, left, right);
        self.path.pop();
    }

    fn items(&mut self, rule: ListRule<'_>, item_type: Type<'_>, left: &[Value], right: &[Value]) {
        let mut sides: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for item in left {
            if let Ok(element) = rule.identity(item) {
                sides.entry(element).or_default().0.push(item);
            }
        }
        for item in right {
            if let Ok(element) = rule.identity(item) {
                sides.entry(element).or_default().1.push(item);
            }
        }
        for (element, (left, right)) in sides {
            match (left.as_slice(), right.as_slice()) {
                ([] | [_], [] | [_]) => {
                    let (left, right) = (left.first().copied(), right.first().copied());
                    if left != right {
                        self.descend(element, item_type, left, right);
                    }
                }
                // Repeated items count as one whole.
                ([_, _, ..], [_, _, ..]) => {
                    let same = left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| values::equal(l, r));
                    if !same {
                        self.at(element, |changes, path| changes.modified.insert(path));
                    }
                }
                ([_, _, ..], rest) => {
                    if let [one] = rest {
                        self.descend(element.clone(), item_type, None, Some(one));
                    }
                    self.at(element, |changes, path| changes.removed.insert(path));
                }
                (rest, _) => {
                    if let [one] = rest {
                        self.descend(element.clone(), item_type, Some(one), None);
                    }
                    self.at(element, |changes, path| changes.added.insert(path));
                }
            }
        }
    }

    fn at(&mut self, element: Element, note: impl FnOnce(&mut Changes, &[Element])) {
        self.path.push(element);
        note(&mut self.changes, &self.path);
        self.path.pop();
    }
}

fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
