//! Why an image is not there, by the words of the node that tried.

use serde_json::Value;

use crate::chain::Cause;
use crate::look::{Look, items, kubectl, text};

pub const REASONS: &[&str] = &[
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "RegistryUnavailable",
    "ImageInspectError",
    "SignatureValidationFailed",
];

/// `who` is the container, as it is called in sentences.
pub fn cause(look: &Look, pod: &Value, container: &Value, who: &str, waiting: &Value) -> Cause {
    let (namespace, name) = (api::meta::namespace(pod), text(&container["name"]));
    let image = spec_image(pod, name);
    let told = told(look, pod, waiting);
    let set = |what: &str, cause: Cause| {
        let target = super::workload(look, pod).unwrap_or_else(|| format!("pod/{}", api::meta::name(pod)));
        cause.fix(what, kubectl(namespace, &format!("set image {target} {name}=IMAGE:TAG")))
    };
    let has = |words: &[&str]| words.iter().any(|word| told.to_lowercase().contains(word));
    match text(&waiting["reason"]) {
        "InvalidImageName" => {
            let message = format!("{who} has an image name that is none: {image:?}");
            return set("", Cause::new("InvalidImageName", message).about(pod));
        }
        "ErrImageNeverPull" => {
            let message = format!(
                "{who} may use the image {image} only if the node has it (imagePullPolicy Never), and it has not"
            );
            let import = "on the node; or choose another imagePullPolicy";
            return Cause::new("ImageNeverPulled", message).about(pod).fix(import, "keelson image import ARCHIVE");
        }
        _ => {}
    }
    let said = if told.is_empty() { String::new() } else { format!(" ({told})") };
    if has(&["unauthorized", "denied", "401", "403", "authentication required", "authorization failed"]) {
        return credentials(look, pod, who, image, &said);
    }
    if has(&["not found", "notfound", "manifest unknown", "404", "name unknown", "does not exist"]) {
        let message = format!("{who} asks for the image {image}, which its registry does not have{said}");
        return set("with a name and tag that exist", Cause::new("ImageNotFound", message).about(pod));
    }
    if has(&[
        "no such host",
        "dial tcp",
        "refused",
        "timeout",
        "timed out",
        "unreachable",
        "eof",
        "x509",
        "certificate",
        "name resolution",
        "lookup",
    ]) {
        let registry = registry(image);
        let message = format!("{who} needs the image {image}, and its node cannot reach the registry {registry}{said}");
        return Cause::new("RegistryUnreachable", message)
            .about(pod)
            .fix("on the node; any answer is a good sign", format!("curl -v https://{registry}/v2/"));
    }
    Cause::new("ImagePull", format!("{who} waits for the image {image}{said}"))
        .about(pod)
        .fix("all of what was tried", kubectl(namespace, &format!("describe pod {}", api::meta::name(pod))))
}

fn spec_image<'p>(pod: &'p Value, container: &str) -> &'p str {
    let spec = &pod["spec"];
    let mut all =
        items(&spec["containers"]).chain(items(&spec["initContainers"])).chain(items(&spec["ephemeralContainers"]));
    all.find(|c| c["name"] == container).map(|c| text(&c["image"])).unwrap_or_default()
}

/// The failure itself: while the node backs off, only the event before tells it.
fn told(look: &Look, pod: &Value, waiting: &Value) -> String {
    let message = text(&waiting["message"]);
    if !message.is_empty() && !message.starts_with("Back-off pulling") {
        return short(message);
    }
    let events = look.events(pod);
    let failed = events.iter().find(|e| e["reason"] == "Failed" && text(&e["message"]).contains("pull"));
    match failed {
        Some(event) => short(text(&event["message"])),
        // `Back-off pulling image "x": ErrImagePull: the failure`
        None => message.split_once("ErrImagePull: ").map(|(_, told)| short(told)).unwrap_or_default(),
    }
}

/// Messages of registries repeat the image several times.
fn short(message: &str) -> String {
    const SHOWN_CHARS: usize = 200;
    let message = message.trim();
    match message.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}...", &message[..at]),
        None => message.to_owned(),
    }
}

fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "registry-1.docker.io",
    }
}

fn credentials(look: &Look, pod: &Value, who: &str, image: &str, said: &str) -> Cause {
    let namespace = api::meta::namespace(pod);
    let secrets: Vec<&str> = items(&pod["spec"]["imagePullSecrets"]).map(|s| text(&s["name"])).collect();
    let missing: Vec<&&str> =
        secrets.iter().filter(|name| look.world.get("secrets", namespace, name).is_absent()).collect();
    let how = match (secrets.as_slice(), missing.first()) {
        ([], _) => "it names no imagePullSecrets".to_owned(),
        (_, Some(missing)) => format!("its pull secret {missing} does not exist"),
        (all, None) => format!("what is in its pull secret {} does not suffice", all.join(", ")),
    };
    let message =
        format!("{who} needs the image {image}, which its registry does not give to everybody, and {how}{said}");
    let name = secrets.first().copied().unwrap_or("registry-login");
    let create = format!(
        "create secret docker-registry {name} --docker-server={} --docker-username=USER --docker-password=PASSWORD",
        registry(image)
    );
    let cause = Cause::new("ImagePullDenied", message).about(pod).fix("", kubectl(namespace, &create));
    if !secrets.is_empty() {
        return cause;
    }
    let account = match text(&pod["spec"]["serviceAccountName"]) {
        "" => "default",
        account => account,
    };
    let patch = format!("patch serviceaccount {account} -p '{{\"imagePullSecrets\":[{{\"name\":\"{name}\"}}]}}'");
    cause.fix("then new pods of this account use it", kubectl(namespace, &patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_name_their_registry() {
        assert_eq!(registry("nginx"), "registry-1.docker.io");
        assert_eq!(registry("library/nginx:1"), "registry-1.docker.io");
        assert_eq!(registry("ghcr.io/a/b:1"), "ghcr.io");
        assert_eq!(registry("localhost:5000/a"), "localhost:5000");
    }
}
