//! What ConfigMap and Secret share: keys usable as file names, a size limit, and the `immutable` switch.

use super::format;
use super::place::{Errors, Place};
use crate::field::Error;

/// Sum of the sizes of all values (`core.MaxSecretSize`).
pub const TOTAL_MAX_BYTES: usize = 1024 * 1024;

pub fn check_key(place: &Place, key: &str, errors: &mut Errors) {
    errors.extend(format::config_map_key(key).into_iter().map(|problem| Error::invalid(place.path(), key, problem)));
}

/// Once immutable, an object stays so and keeps its `fields`.
pub fn check_change(new: &Place, old: &Place, fields: &[&str], errors: &mut Errors) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if !old.field("immutable").is_true() {
        return;
    }
    let immutable = new.field("immutable");
    if !immutable.is_true() {
        errors.push(immutable.forbidden(WHY));
    }
    for field in fields {
        if !new.field(field).same(&old.field(field)) {
            errors.push(new.field(field).forbidden(WHY));
        }
    }
}

/// The number of bytes that base64 `text` stands for.
pub fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|&b| b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}
