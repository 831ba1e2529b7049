//! Reading a kubeconfig file, and the configuration a pod finds in its own file system. Exec plugins and basic
//! authentication are not supported: a configuration that needs them is refused rather than used half.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::error::BoxError;
use crate::transport::{Config, Credentials, Identity, Pem, Tls};

/// Where a pod finds its token and certificate authority.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    /// One address; several equal servers may be given separated by commas.
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    exec: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

/// Reads the file's current context. Relative paths in it count from the file's directory.
pub fn load(path: &Path) -> Result<Config, Error> {
    let what = format!("read kubeconfig {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| Error::Config { what: what.clone(), source: e.into() })?;
    parse(&text, path.parent().unwrap_or(Path::new("."))).map_err(|source| Error::Config { what, source })
}

/// The configuration of a pod: `KUBERNETES_SERVICE_HOST` and the mounted service account.
pub fn in_cluster() -> Result<Config, Error> {
    let what = "find the API server of this pod";
    let variable = |name: &str| {
        std::env::var(name).map_err(|e| Error::Config { what: format!("{what}: {name}"), source: e.into() })
    };
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let dir = Path::new(SERVICE_ACCOUNT_DIR);
    Ok(Config {
        servers: vec![format!("https://{host}:{port}")],
        tls: Tls { authority: Some(Pem::File(dir.join("ca.crt"))), ..Tls::default() },
        credentials: Credentials::TokenFile(dir.join("token")),
    })
}

fn parse(text: &str, dir: &Path) -> Result<Config, BoxError> {
    let file: File = yaml(text)?;
    let context = file
        .contexts
        .into_iter()
        .find(|c| c.name == file.current_context)
        .ok_or_else(|| format!("no context named {:?} (current-context)", file.current_context))?
        .context;
    let cluster = file
        .clusters
        .into_iter()
        .find(|c| c.name == context.cluster)
        .ok_or_else(|| format!("no cluster named {:?}", context.cluster))?
        .cluster;
    let user = file.users.into_iter().find(|u| u.name == context.user).map(|u| u.user).unwrap_or_default();
    if user.exec.is_some() || user.username.is_some() {
        return Err(
            format!("user {:?} needs an exec plugin or a password; use a certificate or token", context.user).into()
        );
    }
    Ok(Config {
        servers: cluster.server.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect(),
        tls: Tls {
            authority: pem(cluster.certificate_authority_data, cluster.certificate_authority, dir)?,
            identity: identity(&user, dir)?,
            server_name: cluster.tls_server_name,
            insecure: cluster.insecure_skip_tls_verify,
        },
        credentials: match (user.token_file, user.token) {
            (Some(file), _) => Credentials::TokenFile(dir.join(file)),
            (None, Some(token)) => Credentials::Token(token),
            (None, None) => Credentials::None,
        },
    })
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, BoxError> {
    Ok(serde_yaml::from_str(text)?)
}

/// Inline data wins over a file, as in client-go.
fn pem(data: Option<String>, file: Option<PathBuf>, dir: &Path) -> Result<Option<Pem>, BoxError> {
    Ok(match (data.filter(|d| !d.is_empty()), file) {
        (Some(data), _) => Some(Pem::Inline(STANDARD.decode(data.trim())?)),
        (None, Some(file)) => Some(Pem::File(dir.join(file))),
        (None, None) => None,
    })
}

fn identity(user: &User, dir: &Path) -> Result<Option<Identity>, BoxError> {
    let certificate = pem(user.client_certificate_data.clone(), user.client_certificate.clone(), dir)?;
    let key = pem(user.client_key_data.clone(), user.client_key.clone(), dir)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        (None, None) => Ok(None),
        _ => Err("client certificate and key must be given together".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
apiVersion: v1
kind: Config
current-context: b
contexts:
- name: a
  context: {cluster: other, user: x}
- name: b
  context: {cluster: main, user: admin, namespace: default}
clusters:
- name: main
  cluster:
    server: https://10.0.0.1:6443,https://10.0.0.2:6443
    certificate-authority: pki/ca.crt
users:
- name: admin
  user:
    client-certificate-data: Y2VydA==
    client-key-data: a2V5
"#;

    #[test]
    fn reads_the_current_context() {
        let config = parse(FILE, Path::new("/etc/keelson")).expect("parses");
        assert_eq!(config.servers, ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]);
        assert_eq!(config.tls.authority, Some(Pem::File("/etc/keelson/pki/ca.crt".into())));
        let identity = config.tls.identity.expect("has an identity");
        assert_eq!(identity.certificate, Pem::Inline(b"cert".to_vec()));
        assert_eq!(config.credentials, Credentials::None);
    }

    #[test]
    fn refuses_what_it_would_use_half() {
        let check = |from: &str, to: &str, message: &str| {
            let error = parse(&FILE.replace(from, to), Path::new("/")).expect_err("is refused").to_string();
            assert!(error.contains(message), "{error}");
        };
        check("current-context: b", "current-context: c", "no context named \"c\"");
        check("client-key-data: a2V5", "token: x", "given together");
        check("client-key-data: a2V5", "exec: {command: aws}", "exec plugin");
    }
}
