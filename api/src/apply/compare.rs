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

    /// Everything that changed.
    pub fn all(&self) -> Set {
        self.added.union(&self.modified).union(&self.removed)
    }
}

/// Which of two compared objects went through upstream's Go types, and so shows the fields these imply. What an apply
/// merges did not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Typed {
    pub left: bool,
    pub right: bool,
}

impl Typed {
    pub const BOTH: Self = Self { left: true, right: true };
    pub const LEFT: Self = Self { left: true, right: false };
    pub const RIGHT: Self = Self { left: false, right: true };
}

/// Compares two objects of one type.
pub(super) fn compare(ty: Type<'_>, left: &Value, right: &Value, typed: Typed) -> Changes {
    typed.visit(ty, Some(left), Some(right), Where::Root).below
}

/// Where in the object a comparison is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Root,
    Metadata,
    Other,
}

/// What changed at one place. Built from the leaves up, so that what did not change costs nothing.
#[derive(Default)]
struct Place {
    added: bool,
    modified: bool,
    removed: bool,
    below: Changes,
}

impl Place {
    /// Notes that the place is on one side only.
    fn presence(mut self, left: Option<&Value>, right: Option<&Value>) -> Self {
        self.added |= left.is_none();
        self.removed |= left.is_some() && right.is_none();
        self
    }

    /// Records this place in what encloses it.
    fn record(self, element: Element, into: &mut Changes) {
        let parts = [
            (&mut into.added, self.added, self.below.added),
            (&mut into.modified, self.modified, self.below.modified),
            (&mut into.removed, self.removed, self.below.removed),
        ];
        for (set, is_member, below) in parts {
            if is_member || !below.is_empty() {
                set.push(element.clone(), is_member, below);
            }
        }
    }
}

impl Typed {
    fn visit(self, ty: Type<'_>, left: Option<&Value>, right: Option<&Value>, place: Where) -> Place {
        let (left_kind, right_kind) = (ty.kind(left), ty.kind(right));
        match (left, right) {
            (None, None) => Place::default(),
            (Some(_), None) => self.visit_as(left_kind, ty, left, right, place),
            _ if left.is_none() || left_kind == right_kind => self.visit_as(right_kind, ty, left, right, place),
            // The place became something of another kind: what the one kind had goes, what the other has comes.
            _ => {
                let mut changed = self.visit_as(right_kind, ty, left, right, place);
                let other = self.visit_as(left_kind, ty, left, right, place);
                changed.added |= other.added;
                changed.modified |= other.modified;
                changed.removed |= other.removed;
                changed.below.added = changed.below.added.union(&other.below.added);
                changed.below.modified = changed.below.modified.union(&other.below.modified);
                changed.below.removed = changed.below.removed.union(&other.below.removed);
                changed
            }
        }
    }

    fn visit_as(self, kind: Kind, ty: Type<'_>, left: Option<&Value>, right: Option<&Value>, place: Where) -> Place {
        match kind {
            Kind::Scalar => leaf(left, right),
            Kind::List => {
                let (l, r) = (items_of(left), items_of(right));
                let rule = ty.list_rule();
                if rule.is_atomic() || (l.is_empty() && r.is_empty()) {
                    return leaf(left, right);
                }
                Place { below: self.items(rule, ty.items(), l, r), ..Place::default() }.presence(left, right)
            }
            Kind::Map => {
                let (l, r) = (left.and_then(Value::as_object), right.and_then(Value::as_object));
                let is_empty = |map: Option<&Map<String, Value>>| map.is_none_or(Map::is_empty);
                if ty.map_is_atomic() || (is_empty(l) && is_empty(r)) {
                    return leaf(left, right);
                }
                Place { below: self.fields(ty, l, r, place), ..Place::default() }.presence(left, right)
            }
        }
    }

    fn fields(
        self,
        ty: Type<'_>,
        left: Option<&Map<String, Value>>,
        right: Option<&Map<String, Value>>,
        place: Where,
    ) -> Changes {
        let mut changes = Changes::default();
        let mut field = |name: &str, l: Option<&Value>, r: Option<&Value>| {
            // Ownership is not owned.
            if l == r || (place == Where::Metadata && name == "managedFields") {
                return;
            }
            let implied = || ty.named_field(name).and_then(values::implied);
            // A side that is not there at all implies nothing.
            let l = l.or_else(|| left.filter(|_| self.left).and_then(|_| implied()));
            let r = r.or_else(|| right.filter(|_| self.right).and_then(|_| implied()));
            let member = ty.member(name).unwrap_or(Type::Deduced);
            let place = if place == Where::Root && name == "metadata" { Where::Metadata } else { Where::Other };
            self.visit(member, l, r, place).record(Element::field(name), &mut changes);
        };
        for (name, value) in left.into_iter().flatten() {
            field(name, Some(value), right.and_then(|map| map.get(name)));
        }
        for (name, value) in right.into_iter().flatten() {
            if left.is_none_or(|map| !map.contains_key(name)) {
                field(name, None, Some(value));
            }
        }
        changes
    }

    fn items(self, rule: ListRule<'_>, item_type: Type<'_>, left: &[Value], right: &[Value]) -> Changes {
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
        let mut changes = Changes::default();
        for (element, (left, right)) in sides {
            self.compare_items(item_type, &left, &right).record(element, &mut changes);
        }
        changes
    }

    /// Compares the items of one identity. Repeated items count as one whole.
    fn compare_items(self, ty: Type<'_>, left: &[&Value], right: &[&Value]) -> Place {
        match (left, right) {
            ([] | [_], [] | [_]) if left == right => Place::default(),
            ([] | [_], [] | [_]) => self.visit(ty, left.first().copied(), right.first().copied(), Where::Other),
            ([_, _, ..], [_, _, ..]) => {
                let same = left.len() == right.len() && left.iter().zip(right).all(|(l, r)| values::equal(l, r));
                Place { modified: !same, ..Place::default() }
            }
            ([_, _, ..], rest) => {
                let new = self.visit(ty, None, rest.first().copied(), Where::Other);
                Place { removed: true, ..new }
            }
            (rest, _) => {
                let old = self.visit(ty, rest.first().copied(), None, Where::Other);
                Place { added: true, ..old }
            }
        }
    }
}

fn leaf(left: Option<&Value>, right: Option<&Value>) -> Place {
    match (left, right) {
        (Some(left), Some(right)) => Place { modified: !values::equal(left, right), ..Place::default() },
        _ => Place::default().presence(left, right),
    }
}

fn items_of(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
