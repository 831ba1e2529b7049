//! Sets of paths as tries: a node per step, sorted, with a mark whether the path that ends there is in the set.
//!
//! Invariant: siblings are sorted and unique, and a node without the mark has something below it.

use std::cmp::Ordering;

use super::element::{Element, Path};

/// A set of paths. The empty path is never in a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub element: Element,
    pub is_member: bool,
    pub below: Set,
}

impl Node {
    fn new(element: Element, is_member: bool, below: Set) -> Option<Self> {
        (is_member || !below.is_empty()).then_some(Self { element, is_member, below })
    }
}

/// Nodes of two sets side by side.
enum Side<'a> {
    Left(&'a Node),
    Right(&'a Node),
    Both(&'a Node, &'a Node),
}

impl Set {
    /// The set of dotted field paths such as `metadata.labels`.
    pub(super) fn from_dotted(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let elements: Vec<Element> = path.split('.').map(Element::field).collect();
            set.insert(&elements);
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub fn insert(&mut self, path: &[Element]) {
        if let Some((first, rest)) = path.split_first() {
            let node = self.node_mut(first);
            if rest.is_empty() {
                node.is_member = true;
            } else {
                node.below.insert(rest);
            }
        }
    }

    fn node_mut(&mut self, element: &Element) -> &mut Node {
        // Walks come in order, so the place is mostly at the end.
        let at = match self.nodes.last() {
            Some(last) if last.element < *element => Err(self.nodes.len()),
            _ => self.nodes.binary_search_by(|node| node.element.cmp(element)),
        };
        let at = at.unwrap_or_else(|at| {
            let node = Node { element: element.clone(), is_member: false, below: Self::default() };
            self.nodes.insert(at, node);
            at
        });
        &mut self.nodes[at]
    }

    /// Adds a node whose element is expected, but not required, to sort behind all others.
    pub(super) fn push(&mut self, element: Element, is_member: bool, below: Set) {
        if !is_member && below.is_empty() {
            return;
        }
        if self.nodes.last().is_none_or(|last| last.element < element) {
            self.nodes.push(Node { element, is_member, below });
            return;
        }
        let node = self.node_mut(&element);
        node.is_member |= is_member;
        node.below = if node.below.is_empty() { below } else { node.below.union(&below) };
    }

    pub(super) fn node(&self, element: &Element) -> Option<&Node> {
        self.nodes.binary_search_by(|node| node.element.cmp(element)).ok().map(|at| &self.nodes[at])
    }

    pub fn contains(&self, path: &[Element]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        self.node(first).is_some_and(|node| if rest.is_empty() { node.is_member } else { node.below.contains(rest) })
    }

    fn zip<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Side<'a>> {
        let (mut left, mut right) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        std::iter::from_fn(move || {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(l), Some(r)) => l.element.cmp(&r.element),
            };
            match order {
                Ordering::Less => left.next().map(Side::Left),
                Ordering::Greater => right.next().map(Side::Right),
                Ordering::Equal => Some(Side::Both(left.next()?, right.next()?)),
            }
        })
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        let merged = self.zip(other).map(|side| match side {
            Side::Left(node) | Side::Right(node) => node.clone(),
            Side::Both(l, r) => Node {
                element: l.element.clone(),
                is_member: l.is_member || r.is_member,
                below: l.below.union(&r.below),
            },
        });
        Self { nodes: merged.collect() }
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let shared = self.zip(other).filter_map(|side| match side {
            Side::Both(l, r) => {
                Node::new(l.element.clone(), l.is_member && r.is_member, l.below.intersection(&r.below))
            }
            _ => None,
        });
        Self { nodes: shared.collect() }
    }

    /// The paths of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        let kept = self.zip(other).filter_map(|side| match side {
            Side::Left(node) => Some(node.clone()),
            Side::Right(_) => None,
            Side::Both(l, r) => Node::new(l.element.clone(), l.is_member && !r.is_member, l.below.difference(&r.below)),
        });
        Self { nodes: kept.collect() }
    }

    /// The paths of this set that are neither in `other` nor below a path of `other`.
    #[must_use]
    pub fn difference_with_descendants(&self, other: &Self) -> Self {
        let kept = self.zip(other).filter_map(|side| match side {
            Side::Left(node) => Some(node.clone()),
            Side::Right(_) => None,
            Side::Both(_, r) if r.is_member => None,
            Side::Both(l, r) => {
                Node::new(l.element.clone(), l.is_member, l.below.difference_with_descendants(&r.below))
            }
        });
        Self { nodes: kept.collect() }
    }

    /// The paths at, above or below the given dotted patterns, in which `*` is any one step.
    #[must_use]
    pub(super) fn matching(&self, patterns: &[Vec<&str>]) -> Self {
        if patterns.iter().any(Vec::is_empty) {
            return self.clone();
        }
        let kept = self.nodes.iter().filter_map(|node| {
            let fits = |step: &str| step == "*" || matches!(&node.element, Element::Field(name) if **name == *step);
            let deeper: Vec<Vec<&str>> = patterns.iter().filter(|p| fits(p[0])).map(|p| p[1..].to_vec()).collect();
            if deeper.is_empty() {
                return None;
            }
            Node::new(node.element.clone(), node.is_member, node.below.matching(&deeper))
        });
        Self { nodes: kept.collect() }
    }

    /// All paths: at each level first the members, then what lies below them, as upstream lists them.
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut found);
        found
    }

    fn collect_paths(&self, prefix: &mut Vec<Element>, found: &mut Vec<Path>) {
        for node in self.nodes.iter().filter(|node| node.is_member) {
            let mut path = prefix.clone();
            path.push(node.element.clone());
            found.push(Path(path));
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.below.collect_paths(prefix, found);
            prefix.pop();
        }
    }
}
