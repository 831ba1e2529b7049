//! ServiceAccount.

use serde_json::Value;

use super::Strategy;

pub struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn reset_fields(&self, _subresource: &str) -> &'static [&'static str] {
        &[]
    }
    fn default(&self, _object: &mut Value) {}
}
