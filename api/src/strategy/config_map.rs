//! ConfigMap: text and bytes under file-like keys, optionally immutable.

use super::place::{Errors, Place};
use super::{Context, Strategy, immutable_data};
use crate::field::Error;

pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let (data, binary) = (object.field("data"), object.field("binaryData"));
        let mut bytes = 0;
        for (key, value) in data.entries() {
            bytes += value.str().len();
            immutable_data::check_key(&value, key, errors);
            if binary.value.get(key).is_some() {
                errors.push(Error::invalid(value.path(), key, "duplicate of key present in binaryData"));
            }
        }
        for (key, value) in binary.entries() {
            bytes += immutable_data::decoded_len(value.str());
            immutable_data::check_key(&value, key, errors);
        }
        if bytes > immutable_data::TOTAL_MAX_BYTES {
            // The whole object is meant; upstream's empty path prints so.
            let mut error = object.too_long(immutable_data::TOTAL_MAX_BYTES);
            error.path = "[]".to_owned();
            errors.push(error);
        }
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        immutable_data::check_change(new, old, &["data", "binaryData"], errors);
    }
}
