//! Kubeconfig files written for operators and components: one cluster, one user, everything inline, mode 0600.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::pki::{self, Credential};

/// The name of cluster and context in files written here.
const CLUSTER: &str = "keelson";

/// A kubeconfig for `user` with a client certificate. JSON is YAML, and every client reads it; two-space
/// indentation keeps it readable.
pub fn with_certificate(server: &str, authority_pem: &str, user: &str, credential: &Credential) -> String {
    let user_data = json!({
        "client-certificate-data": STANDARD.encode(&credential.certificate_pem),
        "client-key-data": STANDARD.encode(&credential.key_pem),
    });
    document(server, authority_pem, user, &user_data)
}

/// A kubeconfig for `user` with a bearer token.
pub fn with_token(server: &str, authority_pem: &str, user: &str, token: &str) -> String {
    document(server, authority_pem, user, &json!({ "token": token }))
}

/// The administrator's kubeconfig, written to `path` unless it is there already: a server also starts on a full disk.
pub fn admin(path: &Path, server: &str, cluster: &pki::Cluster) -> Result<(), pki::Error> {
    let text = with_certificate(server, cluster.authority.certificate_pem(), "kubernetes-admin", &cluster.admin.get());
    match std::fs::read_to_string(path) {
        Ok(present) if present == text => Ok(()),
        _ => pki::write_private(path, &text),
    }
}

fn document(server: &str, authority_pem: &str, user: &str, user_data: &Value) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": CLUSTER,
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(authority_pem) },
        }],
        "contexts": [{ "name": CLUSTER, "context": { "cluster": CLUSTER, "user": user } }],
        "current-context": CLUSTER,
        "users": [{ "name": user, "user": user_data }],
    });
    let mut text = serde_yaml::to_string(&config).unwrap_or_else(|_| config.to_string());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_reads_back() {
        let credential = Credential { certificate_pem: "CERT".into(), key_pem: "KEY".into() };
        let text = with_certificate("https://192.0.2.1:6443", "CA", "jane", &credential);
        let read: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(read["clusters"][0]["cluster"]["server"], "https://192.0.2.1:6443");
        assert_eq!(read["users"][0]["user"]["client-key-data"], STANDARD.encode("KEY"));
        assert_eq!(read["contexts"][0]["context"]["user"], "jane");
    }
}
