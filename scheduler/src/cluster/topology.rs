//! Which nodes share the value of a label, as numbers: counting by domain then needs no text.

use crate::node::Slot;

/// A node without the label.
const NONE: u32 = u32::MAX;

/// Domains are numbered from 0; the same value has the same number.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    by_slot: Vec<u32>,
    len: usize,
}

impl Topology {
    /// `values`: each node's value of the label.
    pub fn of<'a>(values: impl Iterator<Item = (Slot, Option<&'a str>)>) -> Self {
        let mut numbers = std::collections::HashMap::new();
        let mut by_slot = Vec::new();
        for (slot, value) in values {
            let slot = slot as usize;
            if by_slot.len() <= slot {
                by_slot.resize(slot + 1, NONE);
            }
            if let Some(value) = value {
                let next = numbers.len() as u32;
                by_slot[slot] = *numbers.entry(value).or_insert(next);
            }
        }
        Self { by_slot, len: numbers.len() }
    }

    pub fn domain(&self, slot: Slot) -> Option<usize> {
        self.by_slot.get(slot as usize).filter(|d| **d != NONE).map(|d| *d as usize)
    }

    /// How many domains there are.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
