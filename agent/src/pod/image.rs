//! The image of a container: on the node already, or pulled beside the owner; in the words of the kubelet's
//! `EnsureImageExists`. Asked before every start of a container, so that `Always` means always.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};

use super::{
    PodId,
    act::chain,
    observed::{Image, Retry, container_id},
    owner::{Outcome, Owner},
    shared::Shared,
};
use crate::{
    cluster::PodEvent,
    image::{
        credentials::{Credential, Keyring},
        name::Name,
        policy::{Decision, Policy},
        pull::{Failure, Pulled},
    },
    runtime,
};

/// First and longest waits between pulls of an image that fails.
const IMAGE_RETRY: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(10), SignedDuration::from_secs(300));
/// A pull that takes longer is told of; then again after twice the time.
const SLOW: Duration = Duration::from_secs(30);

/// What became of a look for an image.
pub(super) enum Found {
    /// It may be used.
    Present(runtime::Image),
    Pull(Name),
    /// `event` is the reason of the event, `reason` that of the waiting container.
    Failed {
        reason: &'static str,
        event: &'static str,
        message: String,
    },
}

/// A pull that has ended.
pub(super) struct PullEnd {
    pub container: String,
    /// The text of the container's field.
    pub image: String,
    pub result: Result<Pulled, Failure>,
    /// From the decision to pull, with the wait for a turn.
    pub waited: Duration,
}

impl Owner {
    /// Garbage collection leaves the images of this pod alone from now on.
    pub(super) fn claim_image(&mut self, container: &Container) {
        let text = container.image.clone().unwrap_or_default();
        let uses = &self.shared.images.uses;
        self.claims.entry(text).or_insert_with_key(|text| uses.claim(text));
    }

    /// Ready to use when it may be used without asking a registry.
    pub(super) async fn find_image(&self, container: &Container) -> Found {
        let text = container.image.clone().unwrap_or_default();
        let name = match Name::parse(&text) {
            Ok(name) => name,
            Err(error) => {
                let message = format!("Failed to apply default image tag {text:?}: {error}");
                return Found::Failed { reason: "InvalidImageName", event: "InspectFailed", message };
            }
        };
        let policy = Policy::of(container.image_pull_policy.as_deref(), &text);
        if policy == Policy::Always {
            return Found::Pull(name);
        }
        let found = match self.usable(container, &text, &name).await {
            Ok(found) => found,
            Err(message) => {
                return Found::Failed { reason: "ImageInspectError", event: "InspectFailed", message };
            }
        };
        match (policy.decide(found.is_some()), found) {
            (Decision::Use, Some(image)) => Found::Present(image),
            (Decision::Refuse, _) => Found::Failed {
                reason: "ErrImageNeverPull",
                event: "ErrImageNeverPull",
                message: format!("Container image {text:?} is not present with pull policy of Never"),
            },
            _ => Found::Pull(name),
        }
    }

    /// The image if it is here, complete, and this pod may use it. To others it is as if it were not here.
    async fn usable(&self, container: &Container, text: &str, name: &Name) -> Result<Option<runtime::Image>, String> {
        let runtime = &self.shared.runtime;
        let failed = |error: &dyn std::error::Error| format!("Failed to inspect image {text:?}: {}", chain(error));
        let found = {
            let _stays = self.shared.images.uses.looking().await;
            runtime.find_image(text).await.map_err(|error| failed(&error))?
        };
        let Some(image) = found else { return Ok(None) };
        if image.access.asks() {
            let credentials = credentials(&self.shared, &self.pod, &name.repository).await?;
            if !image.access.admits(&credentials) {
                return Ok(None);
            }
        }
        match runtime.unpack_image(&image).await {
            // Some of its content is gone: a pull brings it back.
            Err(error) if error.is_not_found() => return Ok(None),
            other => other.map_err(|error| failed(&error))?,
        }
        if self.observed.series(&container.name).is_none_or(|series| series.latest.is_none()) {
            // Ahead of need, beside the slower work on the sandbox; `remove` takes back what was never used.
            let id = container_id(&self.id, &container.name, 0);
            runtime.prepare_snapshot(&id, &image.resolved.chain_id).await.map_err(|error| failed(&error))?;
        }
        Ok(Some(image))
    }

    pub(super) fn image_found(&mut self, container: &Container, found: Found) {
        let text = container.image.clone().unwrap_or_default();
        match found {
            Found::Present(image) => {
                let message =
                    format!("Container image {text:?} already present on machine and can be accessed by the pod");
                self.event(false, "Pulled", message, Some(&container.name));
                self.image_present(text, image);
            }
            Found::Failed { reason, event, message } => {
                self.event(true, event, message.clone(), Some(&container.name));
                self.image_failed(&container.name, text, reason, message);
            }
            Found::Pull(name) => self.pull(container, text, name),
        }
    }

    fn image_present(&mut self, text: String, image: runtime::Image) {
        let present = Image::Present { image_id: image.image_id.clone() };
        self.images.insert(text.clone(), image);
        self.observed.images.insert(text, present);
    }

    fn image_failed(&mut self, container: &str, text: String, reason: &'static str, message: String) {
        self.event(true, "Failed", format!("Error: {reason}"), Some(container));
        let before = match self.observed.images.get(&text) {
            Some(Image::Failed { retry, .. } | Image::Pulling { failed: Some((_, retry)) }) => Some(retry),
            _ => None,
        };
        let (first, last) = IMAGE_RETRY;
        let retry = Retry::after(before, Timestamp::now(), message, first, last);
        self.observed.images.insert(text, Image::Failed { reason, retry });
    }

    /// Pulls beside the owner, which stays free for the pod's other events. Ends with the owner.
    fn pull(&mut self, container: &Container, text: String, name: Name) {
        self.event(false, "Pulling", format!("Pulling image {text:?}"), Some(&container.name));
        let failed = match self.observed.images.remove(&text) {
            Some(Image::Failed { reason, retry }) => Some((reason, retry)),
            _ => None,
        };
        self.observed.images.insert(text.clone(), Image::Pulling { failed });
        let (shared, pod, container) = (self.shared.clone(), self.pod.clone(), container.name.clone());
        self.operations.spawn(async move {
            let begun = Instant::now();
            let result = pull(&shared, &pod, &container, &text, &name).await;
            Outcome::Pulled(PullEnd { container, image: text, result, waited: begun.elapsed() })
        });
    }

    pub(super) fn pull_ended(&mut self, end: PullEnd) {
        let PullEnd { container, image: text, result, waited } = end;
        if !matches!(self.observed.images.get(&text), Some(Image::Pulling { .. })) {
            return;
        }
        match result {
            Ok(Pulled { image, took }) => {
                let message = format!(
                    "Successfully pulled image {text:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(took),
                    go_duration(waited),
                    image.resolved.size
                );
                self.event(false, "Pulled", message, Some(&container));
                self.image_present(text, image);
            }
            Err(failure) => {
                let message = format!("Failed to pull image {text:?}: {}", failure.message);
                self.event(true, "Failed", message, Some(&container));
                self.image_failed(&container, text, failure.reason, failure.status);
            }
        }
    }

    /// Images that came to the node need not wait for the next try.
    pub(super) fn images_came(&mut self, names: &std::collections::BTreeSet<String>) {
        self.observed.images.retain(|text, image| {
            let came = Name::parse(text).is_ok_and(|name| names.contains(&name.full()));
            !(came && matches!(image, Image::Failed { .. }))
        });
    }
}

async fn pull(shared: &Shared, pod: &Arc<Pod>, container: &str, text: &str, name: &Name) -> Result<Pulled, Failure> {
    let event = |message| {
        let container = Some(container.to_owned());
        shared.cluster.event(pod, PodEvent { warning: false, reason: "Pulling", message, container });
    };
    let credentials = credentials(shared, pod, &name.repository).await;
    let credentials =
        credentials.map_err(|message| Failure { reason: "ErrImagePull", status: message.clone(), message })?;
    let flight = shared.images.pulls.start(name, credentials);
    let mut patience = SLOW;
    let outcome = flight.outcome();
    tokio::pin!(outcome);
    loop {
        match tokio::time::timeout(patience, &mut outcome).await {
            Ok(outcome) => return outcome,
            Err(_) => {
                event(format!("Still pulling image {text:?}: {}", flight.progress()));
                patience *= 2;
            }
        }
    }
}

/// What the pod's pull secrets and the node's own files have for a repository, in the order they are tried.
async fn credentials(shared: &Shared, pod: &Arc<Pod>, repository: &str) -> Result<Vec<Credential>, String> {
    let id = PodId::of(pod);
    let spec = pod.spec.as_ref();
    let named = spec.into_iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let (mut keyring, mut missing) = (Keyring::default(), Vec::new());
    for name in named.map(|reference| reference.name.as_str()).filter(|name| !name.is_empty()) {
        match shared.cluster.secret(&id.namespace, name).await {
            Ok(Some(secret)) => add(&mut keyring, &secret)
                .map_err(|error| format!("image pull secret {}/{name}: {}", id.namespace, chain(&error)))?,
            Ok(None) => missing.push(name),
            Err(error) => {
                tracing::warn!(pod = %id, secret = name, error = chain(&error), "pull secret not read");
                missing.push(name);
            }
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        let event = PodEvent { warning: true, reason: "FailedToRetrieveImagePullSecret", message, container: None };
        shared.cluster.event(pod, event);
    }
    let mut found = keyring.lookup(repository);
    found.extend(shared.images.files.keyring().lookup(repository));
    Ok(found)
}

/// Secrets of other types, and empty ones, have nothing to say.
fn add(keyring: &mut Keyring, secret: &Secret) -> Result<(), crate::image::credentials::Error> {
    let uid = secret.metadata.uid.as_deref();
    let data = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.map(|value| value.0.as_slice()).filter(|value| !value.is_empty())
    };
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            data(".dockerconfigjson").map_or(Ok(()), |text| keyring.add_config_json(text, uid))
        }
        Some("kubernetes.io/dockercfg") => data(".dockercfg").map_or(Ok(()), |text| keyring.add_dockercfg(text, uid)),
        _ => Ok(()),
    }
}

/// As Go prints durations, cut to milliseconds: `0s`, `345ms`, `1.5s`, `2m3.004s`.
fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (minutes, ms) = (ms / 60_000, ms % 60_000);
    let fraction = format!("{:03}", ms % 1000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{dot}{fraction}s", ms / 1000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::go_duration;

    #[test]
    fn durations_read_as_the_kubelet_writes_them() {
        let shown = [0, 7, 345, 1000, 1500, 61_004, 3_600_000].map(|ms| go_duration(Duration::from_millis(ms)));
        assert_eq!(shown, ["0s", "7ms", "345ms", "1s", "1.5s", "1m1.004s", "1h0m0s"]);
    }
}
