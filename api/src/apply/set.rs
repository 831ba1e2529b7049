//! Sets of paths as tries: a node per step, sorted, with a mark whether the path that ends there is in the set.
//!
//! Invariant: siblings are sorted and unique, and a node without the mark has something below it.

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
        node.below.extend(below);
    }

    pub(super) fn node(&self, element: &Element) -> Option<&Node> {
        self.nodes.binary_search_by(|node| node.element.cmp(element)).ok().map(|at| &self.nodes[at])
    }

    pub fn contains(&self, path: &[Element]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        self.node(first).is_some_and(|node| if rest.is_empty() { node.is_member } else { node.below.contains(rest) })
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.extend(other.clone());
        both
    }

    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let shared = self.nodes.iter().filter_map(|node| {
            let twin = other.node(&node.element)?;
            Node::new(node.element.clone(), node.is_member && twin.is_member, node.below.intersection(&twin.below))
        });
        Self { nodes: shared.collect() }
    }

    /// The paths of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = self.clone();
        left.subtract(other);
        left
    }

    /// Adds the paths of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for node in other.nodes {
            self.push(node.element, node.is_member, node.below);
        }
    }

    /// Takes the paths of `other` out.
    pub(super) fn subtract(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.nodes.retain_mut(|node| {
            if let Some(gone) = other.node(&node.element) {
                node.is_member &= !gone.is_member;
                node.below.subtract(&gone.below);
            }
            node.is_member || !node.below.is_empty()
        });
    }

    /// Takes the paths of `other`, and all below them, out.
    pub(super) fn subtract_with_descendants(&mut self, other: &Self) {
        self.nodes.retain_mut(|node| match other.node(&node.element) {
            Some(gone) if gone.is_member => false,
            Some(gone) => {
                node.below.subtract_with_descendants(&gone.below);
                node.is_member || !node.below.is_empty()
            }
            None => true,
        });
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
