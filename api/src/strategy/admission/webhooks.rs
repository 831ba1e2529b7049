//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration.

use serde_json::Value;

use super::{MATCHING, default_rules, match_conditions, rule};
use crate::field::Error;
use crate::strategy::fill::Lit::{Int, Str};
use crate::strategy::fill::{each, fill, fill_at, with};
use crate::strategy::place::{Errors, Place};
use crate::strategy::{Context, Strategy, format};

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];

pub struct WebhookConfiguration {
    pub mutating: bool,
}

impl Strategy for WebhookConfiguration {
    fn counts_generation(&self) -> bool {
        true
    }
    fn generation_fields(&self) -> &'static [&'static str] {
        &["webhooks"]
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn metadata_checks_on_update(&self) -> usize {
        1
    }
    fn revalidates_metadata(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        each(object, "webhooks", |webhook| {
            fill(webhook, &[("failurePolicy", Str("Fail")), ("timeoutSeconds", Int(10))]);
            fill(webhook, MATCHING);
            if self.mutating {
                fill(webhook, &[("reinvocationPolicy", Str("Never"))]);
            }
            with(webhook, "clientConfig", |config| fill_at(config, "service", &[("port", Int(443))]));
            default_rules(webhook, "rules");
        });
    }

    fn rules(&self, object: &Place, _ctx: &Context, errors: &mut Errors) {
        let webhooks = object.field("webhooks");
        for (i, webhook) in webhooks.items().enumerate() {
            self.webhook(&webhook, errors);
            let name = webhook.field("name");
            let known = webhooks.list()[..i].iter().any(|other| other["name"] == *name.value);
            if known && !name.is_empty() {
                errors.push(name.duplicate());
            }
        }
    }
}

impl WebhookConfiguration {
    fn webhook(&self, webhook: &Place, errors: &mut Errors) {
        let name = webhook.field("name");
        fully_qualified(&name, errors);
        for rule in webhook.field("rules").items() {
            self::rule(&rule, errors);
        }
        webhook.field("failurePolicy").one_of(&["Fail", "Ignore"], errors);
        webhook.field("matchPolicy").one_of(&["Equivalent", "Exact"], errors);
        let effects = webhook.field("sideEffects");
        if !effects.is_set() {
            errors.push(effects.required("must specify one of None, NoneOnDryRun"));
        }
        effects.one_of(&["None", "NoneOnDryRun"], errors);
        let timeout = webhook.field("timeoutSeconds");
        if timeout.int().is_some_and(|s| !(1..=30).contains(&s)) {
            errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            format::label_selector(&webhook.field(selector), errors);
        }
        if self.mutating {
            webhook.field("reinvocationPolicy").one_of(&["IfNeeded", "Never"], errors);
        }
        client_config(&webhook.field("clientConfig"), errors);
        match_conditions(&webhook.field("matchConditions"), errors);
        review_versions(&webhook.field("admissionReviewVersions"), errors);
    }
}

fn fully_qualified(name: &Place, errors: &mut Errors) {
    if !name.require(errors) {
        return;
    }
    errors.extend(crate::name::fully_qualified_name(name.str()).into_iter().map(|p| name.invalid(p)));
}

fn review_versions(versions: &Place, errors: &mut Errors) {
    if versions.is_empty() {
        errors.push(versions.required(format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    for (i, version) in versions.items().enumerate() {
        if versions.list()[..i].contains(version.value) {
            errors.push(version.invalid("duplicate version"));
        } else {
            format::check(&version, format::label_1035, errors);
        }
    }
    if !versions.list().iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str().unwrap_or_default())) {
        errors.push(versions.invalid(format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}

fn client_config(config: &Place, errors: &mut Errors) {
    let (url, service) = (config.field("url"), config.field("service"));
    if url.is_set() == service.is_set() {
        errors.push(Error::required(config.path(), "exactly one of url or service is required"));
    } else if url.is_set() {
        self::url(&url, errors);
    } else {
        service_reference(&service, errors);
    }
}

fn url(url: &Place, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some(rest) = url.str().strip_prefix("https://") else {
        let scheme = url.str().split_once("://").map_or("", |(scheme, _)| scheme);
        errors.push(url.invalid(format!("'https' is the only allowed URL scheme; found {scheme:?}{FORM}")));
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let checks = [
        (authority.is_empty(), "host must be specified"),
        (authority.contains('@'), "user information is not permitted in the URL"),
        (rest.contains('#'), "fragments are not permitted in the URL"),
        (rest.contains('?'), "query parameters are not permitted in the URL"),
    ];
    for (_, what) in checks.iter().filter(|(wrong, _)| *wrong) {
        errors.push(url.invalid(format!("{what}{FORM}")));
    }
}

/// `ValidateWebhookService`.
fn service_reference(service: &Place, errors: &mut Errors) {
    for field in ["name", "namespace"] {
        let place = service.field(field);
        if place.is_empty() {
            errors.push(place.required(format!("service {field} is required")));
        }
    }
    let port = service.field("port");
    if port.is_set() && !format::port_number(port.int().unwrap_or(0)).is_empty() {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(Error::invalid(port.path(), port.value.clone(), detail));
    }
    let path = service.field("path");
    if !path.is_set() {
        return;
    }
    let text = path.str();
    if text.is_empty() || text == "/" {
        return;
    }
    if !text.starts_with('/') {
        errors.push(path.invalid("must start with a '/'"));
    }
    if !text.starts_with('/') {
        errors.push(path.invalid("must be a valid URL path"));
        return;
    }
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    for (i, segment) in trimmed.split('/').skip(1).enumerate() {
        if segment.is_empty() {
            errors.push(path.invalid(format!("segment[{i}] may not be empty")));
            continue;
        }
        for problem in format::subdomain(segment) {
            errors.push(path.invalid(format!("segment[{i}]: {problem}")));
        }
    }
}
