//! CertificateSigningRequest.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::fill::has;
use super::place::{Errors, Place};
use super::{Context, NameRule, Strategy, format, metadata};
use crate::field::Error;
use crate::meta;

const EXPIRATION_MIN_SECONDS: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Conditions that are only ever true.
const TRUE_ONLY: &[&str] = &["Approved", "Denied", "Failed"];
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const PEM_END: &str = "-----END CERTIFICATE REQUEST-----";
/// First byte of a DER sequence.
const DER_SEQUENCE: u8 = 0x30;

pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn name_rule(&self) -> NameRule {
        NameRule::Own
    }

    /// The requester is who asked, not what was sent.
    fn on_create(&self, object: &mut Value, ctx: &Context) {
        let spec = meta::object_mut(meta::child_mut(object, "spec"));
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
            let value = ctx.requester.get(field).filter(|v| !Place::root(v).is_empty());
            if let Some(value) = value {
                spec.insert(field.to_owned(), value.clone());
            }
        }
        object["status"] = Value::Object(Map::new());
    }

    /// Specs never change; only `/approval` and `/status` change the status.
    fn prepare_update(&self, new: &mut Value, old: &Value, ctx: &Context) {
        metadata::carry_over(new, old);
        metadata::keep_field(new, old, "spec");
        if !["status", "approval"].contains(&ctx.subresource) {
            metadata::keep_field(new, old, "status");
            return;
        }
        let now = ctx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if let Some(status) = new.get_mut("status") {
            super::fill::each(status, "conditions", |condition| {
                for field in ["lastUpdateTime", "lastTransitionTime"] {
                    if !has(condition, field) {
                        condition[field] = now.as_str().into();
                    }
                }
            });
        }
        if ctx.subresource == "approval" {
            let certificate = old.get("status").and_then(|s| s.get("certificate")).cloned();
            let status = meta::object_mut(meta::child_mut(new, "status"));
            match certificate {
                Some(certificate) => status.insert("certificate".into(), certificate),
                None => status.remove("certificate"),
            };
        }
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let spec = object.field("spec");
        let request = spec.field("request");
        if !is_request(request.str()) {
            errors.push(request.invalid("PEM block type must be CERTIFICATE REQUEST"));
        }
        let usages = spec.field("usages");
        usages.require(errors);
        for (i, usage) in usages.items().enumerate() {
            usage.one_of(USAGES, errors);
            if usages.list()[..i].contains(usage.value) {
                errors.push(usage.duplicate());
            }
        }
        let signer = spec.field("signerName");
        if signer.str() == LEGACY_SIGNER {
            errors.push(signer.invalid("the legacy signerName is not allowed via this API version"));
        } else if signer.require(errors) {
            format::check(&signer, format::signer_name, errors);
        }
        let expiration = spec.field("expirationSeconds");
        if expiration.int().is_some_and(|s| s < EXPIRATION_MIN_SECONDS) {
            errors.push(expiration.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
        }
        conditions(&object.field("status"), errors);
    }

    fn change_rules(&self, new: &Place, old: &Place, ctx: &Context, errors: &mut Errors) {
        let (status, before) = (new.field("status"), old.field("status"));
        let (now, was) = (status.field("conditions"), before.field("conditions"));
        let of = |list: &Place, kind: &str| -> Vec<Value> {
            list.list().iter().filter(|c| c["type"] == kind).cloned().collect()
        };
        for kind in TRUE_ONLY {
            let (now_of, was_of) = (of(&now, kind), of(&was, kind));
            let settable = ctx.subresource == "approval" || *kind == "Failed";
            let verb = if now_of.len() < was_of.len() {
                "remove"
            } else if settable {
                continue;
            } else if now_of.len() > was_of.len() {
                "add"
            } else if now_of != was_of {
                "modify"
            } else {
                continue;
            };
            errors.push(now.forbidden(format!("updates may not {verb} a condition of type {kind:?}")));
        }
        let (certificate, had) = (status.field("certificate"), before.field("certificate"));
        if !certificate.same(&had) {
            if ctx.subresource != "status" {
                errors.push(certificate.forbidden("updates may not set certificate content"));
            } else if !had.is_empty() {
                errors.push(certificate.forbidden("updates may not modify existing certificate content"));
            }
        }
    }

    fn status_rules(&self, new: &Place, old: &Place, ctx: &Context, errors: &mut Errors) {
        self.rules(new, ctx, errors);
        self.change_rules(new, old, ctx, errors);
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let signer = object.get("spec").map(|s| super::fill::text(s, "signerName")).unwrap_or_default();
        vec![("spec.signerName", signer.to_owned())]
    }
}

/// A PEM block with a DER sequence in it. The signature is checked by the signer, which has the means.
fn is_request(request: &str) -> bool {
    let Ok(bytes) = STANDARD.decode(request) else { return false };
    let Ok(pem) = String::from_utf8(bytes) else { return false };
    let body = pem.split_once(PEM_BEGIN).and_then(|(_, rest)| rest.split_once(PEM_END)).map(|(body, _)| body);
    let der = body.and_then(|body| STANDARD.decode(body.split_whitespace().collect::<String>()).ok());
    der.is_some_and(|der| der.first() == Some(&DER_SEQUENCE))
}

fn conditions(status: &Place, errors: &mut Errors) {
    let conditions = status.field("conditions");
    let has = |kind: &str| conditions.list().iter().any(|c| c["type"] == kind);
    for (i, condition) in conditions.items().enumerate() {
        let (kind, state) = (condition.field("type"), condition.field("status"));
        kind.require(errors);
        let allowed: &[&str] = if TRUE_ONLY.contains(&kind.str()) { &["True"] } else { &["False", "True", "Unknown"] };
        state.require_one_of(allowed, errors);
        if conditions.list()[..i].iter().any(|other| other["type"] == *kind.value) {
            errors.push(kind.duplicate());
        }
    }
    if has("Approved") && has("Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        errors.push(Error::invalid(conditions.path(), "Denied", detail));
    }
}
