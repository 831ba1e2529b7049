//! What a pod refers to by name in its namespace; upstream's `VisitPodSecretNames` and its like.

use serde_json::Value;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    pub secrets: Vec<String>,
    pub config_maps: Vec<String>,
    pub claims: Vec<String>,
    pub service_accounts: Vec<String>,
    pub resource_claims: Vec<String>,
}

/// Pods that a node made of its own files; they give no rights.
const MIRROR: &str = "kubernetes.io/config.mirror";

impl References {
    pub fn of_pod(pod: &Value) -> Self {
        let mut found = Self::default();
        if api::meta::annotations(pod).is_some_and(|a| a.contains_key(MIRROR)) {
            return found;
        }
        let spec = &pod["spec"];
        push(&mut found.service_accounts, &spec["serviceAccountName"]);
        for secret in items(&spec["imagePullSecrets"]) {
            push(&mut found.secrets, &secret["name"]);
        }
        for list in ["initContainers", "containers", "ephemeralContainers"] {
            items(&spec[list]).for_each(|container| found.container(container));
        }
        let pod_name = api::meta::name(pod);
        for volume in items(&spec["volumes"]) {
            found.volume(volume);
            if volume.get("ephemeral").is_some_and(|e| !e.is_null()) {
                let name = volume["name"].as_str().unwrap_or_default();
                found.claims.push(format!("{pod_name}-{name}"));
            }
        }
        for claim in items(&spec["resourceClaims"]) {
            push(&mut found.resource_claims, &claim["resourceClaimName"]);
        }
        for claim in items(&pod["status"]["resourceClaimStatuses"]) {
            push(&mut found.resource_claims, &claim["resourceClaimName"]);
        }
        found
    }

    fn container(&mut self, container: &Value) {
        for source in items(&container["envFrom"]) {
            push(&mut self.secrets, &source["secretRef"]["name"]);
            push(&mut self.config_maps, &source["configMapRef"]["name"]);
        }
        for variable in items(&container["env"]) {
            push(&mut self.secrets, &variable["valueFrom"]["secretKeyRef"]["name"]);
            push(&mut self.config_maps, &variable["valueFrom"]["configMapKeyRef"]["name"]);
        }
    }

    fn volume(&mut self, volume: &Value) {
        push(&mut self.secrets, &volume["secret"]["secretName"]);
        push(&mut self.config_maps, &volume["configMap"]["name"]);
        push(&mut self.claims, &volume["persistentVolumeClaim"]["claimName"]);
        push(&mut self.secrets, &volume["csi"]["nodePublishSecretRef"]["name"]);
        push(&mut self.secrets, &volume["azureFile"]["secretName"]);
        for kind in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            push(&mut self.secrets, &volume[kind]["secretRef"]["name"]);
        }
        for source in items(&volume["projected"]["sources"]) {
            push(&mut self.secrets, &source["secret"]["name"]);
            push(&mut self.config_maps, &source["configMap"]["name"]);
        }
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn push(list: &mut Vec<String>, name: &Value) {
    if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
        list.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_a_pod_names_is_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "bot",
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"envFrom": [{"configMapRef": {"name": "init"}}]}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "vol"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "proj"}}, {"secret": {"name": "projs"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "d", "ephemeral": {"volumeClaimTemplate": {}}},
            ],
        }});
        let found = References::of_pod(&pod);
        assert_eq!(found.secrets, ["pull", "env", "vol", "projs"]);
        assert_eq!(found.config_maps, ["init", "proj"]);
        assert_eq!(found.claims, ["data", "p-d"]);
        assert_eq!(found.service_accounts, ["bot"]);
    }

    #[test]
    fn a_mirror_pod_gives_nothing() {
        let pod = json!({"metadata": {"annotations": {MIRROR: "x"}}, "spec": {"serviceAccountName": "bot"}});
        assert_eq!(References::of_pod(&pod), References::default());
    }
}
