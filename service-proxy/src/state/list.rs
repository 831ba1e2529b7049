//! Lists of endpoints as the table has them: the place of an endpoint is its index.

use std::collections::{BTreeMap, HashSet};

use super::item::{Changes, Item};
use crate::endpoints::Backend;

#[derive(Debug)]
pub struct Endpoints {
    pub number: u32,
    pub backends: Box<[Backend]>,
}

impl Endpoints {
    pub fn items(&self) -> impl Iterator<Item = Item> {
        let list = self.number;
        self.backends.iter().enumerate().map(move |(index, to)| Item::Endpoint { list, index: index as u32, to: *to })
    }
}

/// How a list changes from one moment to the next.
pub fn write(before: &[Backend], list: &Endpoints, changes: &mut Changes) {
    for index in 0..before.len().max(list.backends.len()) {
        let (old, new) = (before.get(index), list.backends.get(index));
        if old == new {
            continue;
        }
        let item = |to: &Backend| Item::Endpoint { list: list.number, index: index as u32, to: *to };
        if let Some(old) = old {
            changes.delete(item(old));
        }
        if let Some(new) = new {
            changes.add(item(new));
        }
    }
}

/// The places of endpoints: those that stay keep theirs, new ones fill the gaps, and the last ones close them.
pub fn placed(before: &[Backend], wanted: &[Backend]) -> Box<[Backend]> {
    if before.is_empty() || before == wanted {
        return wanted.into();
    }
    let kept: HashSet<&Backend> = wanted.iter().collect();
    let had: HashSet<&Backend> = before.iter().collect();
    let mut new = wanted.iter().filter(|backend| !had.contains(backend)).copied();
    let mut places: Vec<Option<Backend>> =
        before.iter().map(|backend| if kept.contains(backend) { Some(*backend) } else { new.next() }).collect();
    places.extend(new.map(Some));
    let mut at = 0;
    while at < places.len() {
        if places[at].is_some() {
            at += 1;
        } else if let Some(last) = places.pop()
            && at < places.len()
        {
            places[at] = last;
        }
    }
    places.into_iter().flatten().collect()
}

/// In their order, as far as it has no gaps.
pub fn restored(found: BTreeMap<u32, Backend>) -> Box<[Backend]> {
    found.into_iter().enumerate().take_while(|(at, (index, _))| *at as u32 == *index).map(|(_, (_, b))| b).collect()
}
