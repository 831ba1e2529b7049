//! Secret: bytes under file-like keys, with required keys by type.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fill::Lit::Str;
use super::fill::{fill, text};
use super::place::{Errors, Place};
use super::{Context, Strategy, immutable_data};
use crate::field::Error;
use crate::meta;

const TYPE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// Types with keys that must be there.
const REQUIRED_KEYS: &[(&str, &[&str])] =
    &[("kubernetes.io/tls", &["tls.crt", "tls.key"]), ("kubernetes.io/ssh-auth", &["ssh-privatekey"])];
/// Types whose one key holds a JSON object.
const JSON_KEYS: &[(&str, &str)] =
    &[("kubernetes.io/dockercfg", ".dockercfg"), ("kubernetes.io/dockerconfigjson", ".dockerconfigjson")];

pub struct Secret;

impl Strategy for Secret {
    fn revalidates_metadata(&self) -> bool {
        true
    }
    fn default(&self, object: &mut Value) {
        fill(object, &[("type", Str("Opaque"))]);
        // `stringData` is write-only: it ends up in `data`, over what is there.
        let Some(texts) = meta::object_mut(object).remove("stringData") else { return };
        let Some(texts) = texts.as_object() else { return };
        if texts.is_empty() {
            return;
        }
        let data = meta::object_mut(meta::child_mut(object, "data"));
        for (key, value) in texts {
            data.insert(key.clone(), STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }

    fn on_update(&self, new: &mut Value, old: &Value, _ctx: &Context) {
        if text(new, "type").is_empty() {
            new["type"] = text(old, "type").into();
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let data = object.field("data");
        let mut bytes = 0;
        for (key, value) in data.entries() {
            bytes += immutable_data::decoded_len(value.str());
            immutable_data::check_key(&value, key, errors);
        }
        if bytes > immutable_data::TOTAL_MAX_BYTES {
            errors.push(data.too_long(immutable_data::TOTAL_MAX_BYTES));
        }
        required_keys(object, errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, _ctx: &Context, errors: &mut Errors) {
        new.field("type").immutable(&old.field("type"), errors);
        immutable_data::check_change(new, old, &["data"], errors);
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", text(object, "type").to_owned())]
    }
}

fn required_keys(object: &Place, errors: &mut Errors) {
    let data = object.field("data");
    let has = |key: &str| data.value.get(key).is_some();
    let kind = object.field("type").str();
    for (of, keys) in REQUIRED_KEYS.iter().filter(|(of, _)| *of == kind) {
        for key in *keys {
            // A TLS key may be empty, an SSH key not.
            if !has(key) || (*of == "kubernetes.io/ssh-auth" && data.key(key).is_empty()) {
                errors.push(data.key(key).required(""));
            }
        }
    }
    for (_, key) in JSON_KEYS.iter().filter(|(of, _)| *of == kind) {
        let content = data.key(key);
        if !has(key) {
            errors.push(content.required(""));
            continue;
        }
        let decoded = STANDARD.decode(content.str()).unwrap_or_default();
        if let Err(problem) = serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded) {
            errors.push(Error::invalid(content.path(), "<secret contents redacted>", problem.to_string()));
        }
    }
    if kind == "kubernetes.io/basic-auth" && !has("username") && !has("password") {
        errors.push(data.key("username").required(""));
        errors.push(data.key("password").required(""));
    }
    let metadata = object.field("metadata");
    let annotations = metadata.field("annotations");
    if kind == TYPE_ACCOUNT_TOKEN && annotations.key(ACCOUNT_NAME).is_empty() {
        errors.push(annotations.key(ACCOUNT_NAME).required(""));
    }
}
