//! The order of a merged list: items the patch names come in the patch's order, items only the server has keep the
//! server's order, and the two are interleaved by the server's order as far as that is known
//! (upstream's `normalizeElementOrder`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::Error;
use super::strategic::no_merge_key;

/// What makes two items of a list the same: the value under a merge key, or the whole item of a list of primitives.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a>(pub Option<&'a str>);

impl<'a> Identity<'a> {
    pub fn of(self, item: &Value) -> Option<&Value> {
        match self.0 {
            Some(key) => item.get(key),
            None => Some(item),
        }
    }

    /// As [`Self::of`], but an item without the key is an error.
    pub fn required(self, item: &Value) -> Result<&Value, Error> {
        self.of(item).ok_or_else(|| no_merge_key(item, self.0.unwrap_or_default()))
    }

    /// Where each identity first occurs in `list`.
    pub fn positions(self, list: &'a [Value]) -> Result<HashMap<&'a Value, usize>, Error> {
        let mut positions = HashMap::with_capacity(list.len());
        for (at, item) in list.iter().enumerate() {
            positions.entry(self.required(item)?).or_insert(at);
        }
        Ok(positions)
    }
}

/// Orders `merged`. `wanted` is the patch's order, `server` the order before the patch.
pub(super) fn arrange<'a>(
    merged: Vec<Value>,
    wanted: &'a [Value],
    server: &'a [Value],
    identity: Identity<'a>,
) -> Result<Vec<Value>, Error> {
    let (wanted, server) = (identity.positions(wanted)?, identity.positions(server)?);
    let (mut named, mut unnamed) = (Vec::new(), Vec::new());
    for item in merged {
        let key = identity.required(&item)?;
        let on_server = server.get(key).copied();
        match wanted.get(key).copied() {
            Some(at) => named.push((at, on_server, item)),
            None => unnamed.push((on_server.unwrap_or(usize::MAX), item)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    unnamed.sort_by_key(|(at, _)| *at);

    let mut out = Vec::with_capacity(named.len() + unnamed.len());
    let mut named = named.into_iter().peekable();
    for (at, item) in unnamed {
        // Items of the patch go first until one of them stands behind this item on the server.
        while let Some((.., next)) = named.next_if(|(_, on_server, _)| on_server.is_none_or(|n| n <= at)) {
            out.push(next);
        }
        out.push(item);
    }
    out.extend(named.map(|(.., item)| item));
    Ok(out)
}

/// Drops repeated primitives, keeping the first of each.
pub(super) fn without_repeats(items: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::with_capacity(items.len());
    items.into_iter().filter(|item| seen.insert(item.clone())).collect()
}
