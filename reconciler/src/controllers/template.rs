//! Pod templates: when two are the same, and the hash that names a replica set.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Label and selector that keep the pods of a deployment's replica sets apart (`DefaultDeploymentUniqueLabelKey`).
pub const HASH_LABEL: &str = "pod-template-hash";
/// Longest name of a replica set.
const NAME_BYTES_MAX: usize = 253;

/// Whether two templates describe the same pod, leaving the hash label out (`EqualIgnoreHash`).
pub fn equal(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && normalized(a.metadata.as_ref()) == normalized(b.metadata.as_ref())
}

/// Absent and empty maps are the same.
fn normalized(metadata: Option<&ObjectMeta>) -> ObjectMeta {
    let mut metadata = metadata.cloned().unwrap_or_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH_LABEL);
    }
    metadata.labels = metadata.labels.filter(|l| !l.is_empty());
    metadata.annotations = metadata.annotations.filter(|a| !a.is_empty());
    metadata.finalizers = metadata.finalizers.filter(|f| !f.is_empty());
    metadata.creation_timestamp = None;
    metadata
}

/// The hash of a template: stable for the same template and collision count. Its value is free (replica sets are found
/// by comparing templates), its form is upstream's.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let text = serde_json::to_vec(template).unwrap_or_default();
    let salt = collisions.map(|c| c.to_le_bytes()).unwrap_or_default();
    safe_encode(&fnv1a(text.iter().chain(&salt).copied()).to_string())
}

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `rand.SafeEncodeString`: letters and digits that spell no words.
pub fn safe_encode(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}

/// `deployment-hash`, the deployment's name cut where the whole would be too long.
pub fn replica_set_name(deployment: &str, hash: &str) -> String {
    let room = NAME_BYTES_MAX.saturating_sub(hash.len() + 1);
    let prefix = deployment.get(..room).unwrap_or(deployment);
    format!("{prefix}-{hash}")
}
