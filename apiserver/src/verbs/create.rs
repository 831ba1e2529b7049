//! `create`, and the creation half of update and apply.

use http::{Response, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use api::apply;
use api::meta;
use api::status::Status;
use api::strategy::Verb;

use super::write::{self, Admission, Phase};
use super::{Target, WriteOptions, finish};
use crate::admission::Operation;
use crate::body::Body;
use crate::cache::item::encode;
use crate::convert;
use crate::status::from_store;

/// Attempts to find a free generated name (`maxNameGenerationCreateAttempts`).
const GENERATE_ATTEMPTS_MAX: usize = 8;

pub async fn create(target: &mut Target, body: Body) -> Result<Response<Body>, Status> {
    let options = WriteOptions::create(&target.call.query)?;
    let decoded =
        write::decode_body(&target.call.parts.headers, body, &target.expected(), options.field_validation).await?;
    target.warnings.extend(decoded.warnings);
    let mut object = decoded.object;
    target.default(&mut object);
    wipe_system_fields(&mut object);
    target.ensure_namespace(&mut object)?;
    target.deduplicate_owners(&mut object, false);
    let manager = target.manager(&options.field_manager);
    track(target, &mut object, &manager);
    let stored = insert(target, object, &options).await?;
    finish(target, StatusCode::CREATED, stored)
}

/// What only the server may say about a new object (`WipeObjectMetaSystemFields`).
pub fn wipe_system_fields(object: &mut Value) {
    let metadata = meta::metadata_mut(object);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
}

fn track(target: &Target, object: &mut Value, manager: &str) {
    let resource = &target.resource;
    apply::track(apply::Update {
        schema: resource.schema(),
        live: None,
        new: object,
        manager,
        api_version: &resource.api_version(),
        subresource: "",
        now: target.now,
        reset_fields: target.strategy.reset_fields(""),
        only_fields: &[],
        versions: None,
    });
}

/// Admits, completes, validates and stores a new object in the version asked for; returns it as stored.
pub async fn insert(target: &mut Target, object: Value, options: &WriteOptions) -> Result<Value, Status> {
    if target.facts.as_ref().is_some_and(|facts| facts.terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Status::forbidden(&target.resource.group, &target.resource.plural, meta::name(&object), why));
    }
    let generates = meta::name(&object).is_empty() && !meta::generate_name(&object).is_empty();
    let admission_options = options.to_value("CreateOptions");
    let name = meta::name(&object).to_owned();
    let admission = Admission {
        operation: Operation::Create,
        name: &name,
        old: &Value::Null,
        options: &admission_options,
        dry_run: options.dry_run,
    };
    let mut object = target.admit(Phase::Mutate, &admission, object).await?;
    target.deduplicate_owners(&mut object, true);
    let mut object = convert::to_storage(&target.resource, &target.storage, object);
    let metadata = meta::metadata_mut(&mut object);
    metadata.insert("uid".to_owned(), Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), write::timestamp(target.now).into());
    let mut attempts = if generates { GENERATE_ATTEMPTS_MAX } else { 1 };
    loop {
        attempts -= 1;
        let mut candidate = if attempts > 0 { object.clone() } else { std::mem::take(&mut object) };
        if generates {
            let name = write::generated_name(meta::generate_name(&candidate));
            meta::metadata_mut(&mut candidate).insert("name".to_owned(), name.into());
        }
        match store(target, candidate, &admission).await {
            Err(status) if attempts > 0 && status.reason == "AlreadyExists" => {}
            result => return result,
        }
    }
}

async fn store(target: &mut Target, mut object: Value, admission: &Admission<'_>) -> Result<Value, Status> {
    let strategy = target.strategy;
    target.ensure_namespace(&mut object)?;
    strategy.prepare_create(&mut object, &target.context(Verb::Create));
    let mut errors = strategy.validate_create(&object, &target.context(Verb::Create));
    errors.extend(target.schema_errors(&object));
    if errors.is_empty() {
        errors = target.expression_errors(&object, None);
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&target.storage.group, &target.storage.kind, meta::name(&object), &errors));
    }
    let warnings = strategy.warnings(&object, None, &target.context(Verb::Create));
    target.warnings.extend(warnings);
    let admission = Admission { name: meta::name(&object), ..*admission };
    let requested = target.requested(object.clone());
    target.admit(Phase::Validate, &admission, requested).await?;
    match meta::resource_version(&object) {
        "" | "0" => {}
        _ => return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created")),
    }
    let name = meta::name(&object).to_owned();
    let key = target.key(meta::namespace(&object), &name);
    if admission.dry_run {
        target.fresh().await?;
        return match target.cache.snapshot().get(&key) {
            Some(existing) => Err(exists(target, &name, &existing.value())),
            None => Ok(object),
        };
    }
    match target.server.store.create(target.store_key(&key), encode(&object).into()).await {
        Ok(revision) => {
            target.server.cache.catch_up(revision).await;
            meta::metadata_mut(&mut object).insert("resourceVersion".to_owned(), revision.to_string().into());
            Ok(object)
        }
        Err(store_client::Error::Exists { .. }) => {
            target.fresh().await?;
            let existing = target.cache.snapshot().get(&key).map_or(Value::Null, |item| item.value());
            Err(exists(target, &name, &existing))
        }
        Err(error) => Err(from_store(&error)),
    }
}

/// 409; says so when the object there is on its way out.
fn exists(target: &Target, name: &str, existing: &Value) -> Status {
    let mut status = Status::already_exists(&target.resource.group, &target.resource.plural, name);
    if meta::deletion_timestamp(existing).is_some() {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}
