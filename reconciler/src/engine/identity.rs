//! Who a controller is to the API server: upstream's service account of its name, with the rights that follow from what
//! it declares to write. So every write is checked against the declaration by the server's own authorization.

use api_client::Client;
use serde_json::{Value, json};

use super::Output;

/// The namespace of the controllers' service accounts.
pub const NAMESPACE: &str = "kube-system";

/// Gives controllers their clients. What is read is read as whoever owns the shared caches; writes are the controller's.
pub trait Identities: Send + Sync {
    fn client(&self, controller: &'static str, outputs: &'static [Output]) -> Client;
}

/// Controllers whose account has another name.
const ACCOUNTS: [(&str, &str); 22] = [
    ("attached-volumes-controller", "attachdetach-controller"),
    ("certificatesigningrequest-approving-controller", "certificate-controller"),
    ("certificatesigningrequest-cleaner-controller", "certificate-controller"),
    ("certificatesigningrequest-signing-controller", "certificate-controller"),
    ("daemonset-controller", "daemon-set-controller"),
    ("endpoints-controller", "endpoint-controller"),
    ("endpointslice-mirroring-controller", "endpointslicemirroring-controller"),
    ("garbage-collector-controller", "generic-garbage-collector"),
    ("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler"),
    ("job-orphan-pod-controller", "job-controller"),
    ("node-lifecycle-controller", "node-controller"),
    ("persistentvolume-attach-detach-controller", "attachdetach-controller"),
    ("persistentvolume-binder-controller", "persistent-volume-binder"),
    ("persistentvolume-expander-controller", "expand-controller"),
    ("persistentvolume-protection-controller", "pv-protection-controller"),
    ("persistentvolumeclaim-protection-controller", "pvc-protection-controller"),
    ("pod-garbage-collector-controller", "pod-garbage-collector"),
    ("resourceclaim-controller", "resource-claim-controller"),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher"),
    ("serviceaccount-controller", "service-account-controller"),
    ("stale-disruption-controller", "disruption-controller"),
    ("token-cleaner-controller", "token-cleaner"),
];

/// The name of a controller's service account, upstream's where it has one.
pub fn account(controller: &'static str) -> &'static str {
    ACCOUNTS.iter().find(|(name, _)| *name == controller).map_or(controller, |(_, account)| account)
}

/// The rules of a role that allows these writes, and the events that tell of them.
pub fn rules(outputs: &[Output]) -> Value {
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let writes = outputs.iter().map(|output| rule(output.group, output.resource, output.verbs()));
    writes.chain([rule("", "events", &["create", "patch"])]).collect()
}

/// The rules of a role for what all controllers read: everything, as the garbage collector does; and for the election of
/// the process that runs them.
pub fn reader_rules() -> Value {
    json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "update", "patch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"nonResourceURLs": ["*"], "verbs": ["get"]},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn rights_follow_from_what_is_declared() {
        let outputs = [
            Output::shared("", "pods"),
            Output::exclusive("apps", "replicasets/status"),
            Output::right("certificates.k8s.io", "signers", &["sign"]),
            Output::shared("*", "*"),
        ];
        let shown: Vec<String> = rules(&outputs).as_array().unwrap().iter().map(Value::to_string).collect();
        expect![[r#"
            {"apiGroups":[""],"resources":["pods"],"verbs":["create","update","patch","delete"]}
            {"apiGroups":["apps"],"resources":["replicasets/status"],"verbs":["create","update","patch","delete"]}
            {"apiGroups":["certificates.k8s.io"],"resources":["signers"],"verbs":["sign"]}
            {"apiGroups":["*"],"resources":["*"],"verbs":["update","patch","delete","deletecollection"]}
            {"apiGroups":[""],"resources":["events"],"verbs":["create","patch"]}"#]]
        .assert_eq(&shown.join("\n"));
        assert_eq!(
            (account("deployment-controller"), account("daemonset-controller")),
            ("deployment-controller", "daemon-set-controller")
        );
    }

    #[tokio::test]
    async fn accounts_are_those_of_controllers_there_are() {
        let controllers = crate::declared();
        for (name, _) in ACCOUNTS {
            // The signing controller is there where something signs.
            let known = controllers.iter().any(|c| c.name() == name) || name.ends_with("-signing-controller");
            assert!(known, "{name}");
        }
    }
}
