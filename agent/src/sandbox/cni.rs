//! The CNI contract: plugins are programs that read a configuration and attach or detach a network namespace.
//!
//! What ADD was given and answered is handed back to the caller to keep, so that DEL works from the record alone:
//! after a restart, with another configuration on the host, or after an ADD that failed half-way.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::network::bandwidth::Bandwidth;

/// The pod's interface.
const INTERFACE: &str = "eth0";
/// Bits that may pass at once under a bandwidth limit, for plugins that enforce it: as other runtimes say it.
const BURST_BITS: u64 = i32::MAX as u64;
/// A plugin that takes longer is killed and its call has failed.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read network configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("network configuration {}: {problem}", path.display())]
    Configuration { path: PathBuf, problem: String },
    #[error("network plugin {plugin:?} is in none of {searched:?}")]
    NoPlugin { plugin: String, searched: Vec<PathBuf> },
    #[error("run network plugin {plugin:?}")]
    Run { plugin: String, source: io::Error },
    #[error("plugin type={plugin:?} name={network:?} failed ({command}): {message}")]
    Plugin { plugin: String, network: String, command: &'static str, message: String },
    #[error("network plugin {plugin:?} did not end within {PLUGIN_TIMEOUT:?}")]
    Timeout { plugin: String },
    #[error("network {network:?} gave no address")]
    NoAddress { network: String },
}

/// A network configuration list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Map<String, Value>>,
}

/// What an attachment needs from the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub port_mappings: Vec<PortMapping>,
    #[serde(default)]
    pub bandwidth: Bandwidth,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`
    pub protocol: String,
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty", default)]
    pub host_ip: String,
}

/// Everything DEL needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: Network,
    pub pod: Pod,
    /// The last plugin's answer; before ADD, what the first plugin is told was answered before it, if anything.
    pub result: Option<Value>,
}

/// The first configuration of the directory in name order, if there is any.
pub fn on_host(directory: &Path) -> Result<Option<Network>, Error> {
    let read = |source| Error::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(read)?,
    };
    let mut files =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>().map_err(read)?;
    files.retain(|path| {
        path.extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|e| matches!(e, "conflist" | "conf" | "json"))
    });
    files.sort();
    files.first().map(|path| parse(path)).transpose()
}

fn parse(path: &Path) -> Result<Network, Error> {
    let bad = |problem: String| Error::Configuration { path: path.to_owned(), problem };
    let text = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let name = field("name").ok_or_else(|| bad("has no name".into()))?;
    let version = field("cniVersion").unwrap_or_else(|| "0.2.0".into());
    let plugins = match value.get("plugins").and_then(Value::as_array) {
        Some(list) => list.iter().filter_map(|plugin| plugin.as_object().cloned()).collect(),
        // A single plugin's configuration is a list of one.
        None => value.as_object().cloned().into_iter().collect::<Vec<_>>(),
    };
    if plugins.is_empty() || plugins.iter().any(|plugin| !plugin.contains_key("type")) {
        return Err(bad("every plugin needs a type".into()));
    }
    Ok(Network { name, version, plugins })
}

/// Runs plugins found in these directories.
#[derive(Clone, Debug)]
pub struct Plugins {
    pub directories: Vec<PathBuf>,
}

impl Plugins {
    /// Attaches the namespace; each plugin gets the answer of the one before. On failure call `detach` too.
    pub async fn attach(&self, attachment: &mut Attachment, netns: &Path) -> Result<Vec<IpAddr>, Error> {
        let mut previous = attachment.result.clone();
        for plugin in &attachment.network.plugins {
            let answer = self.run("ADD", attachment, plugin, netns, previous.as_ref()).await?;
            previous = Some(answer);
        }
        let addresses = previous.as_ref().map(addresses).unwrap_or_default();
        attachment.result = previous;
        if addresses.is_empty() {
            return Err(Error::NoAddress { network: attachment.network.name.clone() });
        }
        Ok(addresses)
    }

    /// Detaches, last plugin first. Plugins must accept what is gone already, also a namespace that is.
    pub async fn detach(&self, attachment: &Attachment, netns: &Path) -> Result<(), Error> {
        for plugin in attachment.network.plugins.iter().rev() {
            self.run("DEL", attachment, plugin, netns, attachment.result.as_ref()).await?;
        }
        Ok(())
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, Error> {
        let missing = || Error::NoPlugin { plugin: plugin.to_owned(), searched: self.directories.clone() };
        if plugin.contains('/') {
            return Err(missing());
        }
        self.directories.iter().map(|dir| dir.join(plugin)).find(|path| path.is_file()).ok_or_else(missing)
    }

    async fn run(
        &self,
        command: &'static str,
        attachment: &Attachment,
        plugin: &Map<String, Value>,
        netns: &Path,
        previous: Option<&Value>,
    ) -> Result<Value, Error> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let failed = |source| Error::Run { plugin: kind.to_owned(), source };
        let (network, pod) = (&attachment.network, &attachment.pod);
        let search = std::env::join_paths(&self.directories).unwrap_or_default();
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            pod.namespace, pod.name, pod.uid, pod.uid
        );
        let mut child = Command::new(self.find(kind)?)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &pod.uid)
            // DEL without a namespace is told so by an empty value.
            .env("CNI_NETNS", if netns.exists() { netns.as_os_str() } else { "".as_ref() })
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", arguments)
            .env("CNI_PATH", search)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let input = input(network, plugin, pod, previous).to_string();
        let mut stdin = child.stdin.take();
        let exchange = async {
            if let Some(pipe) = &mut stdin {
                pipe.write_all(input.as_bytes()).await?;
            }
            drop(stdin);
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(PLUGIN_TIMEOUT, exchange).await {
            Ok(output) => output.map_err(failed)?,
            Err(_elapsed) => return Err(Error::Timeout { plugin: kind.to_owned() }),
        };
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null));
        }
        let message = serde_json::from_slice::<Value>(&output.stdout)
            .ok()
            .and_then(|error| error.get("msg").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| String::from_utf8_lossy(&output.stderr).trim().to_owned());
        Err(Error::Plugin { plugin: kind.to_owned(), network: network.name.clone(), command, message })
    }
}

/// What one plugin reads: its own part with the list's name and version, the answer before it, and the run-time
/// values it declared itself capable of.
fn input(network: &Network, plugin: &Map<String, Value>, pod: &Pod, previous: Option<&Value>) -> Value {
    let mut input = plugin.clone();
    input.insert("name".into(), network.name.clone().into());
    input.insert("cniVersion".into(), network.version.clone().into());
    if let Some(previous) = previous.filter(|value| !value.is_null()) {
        input.insert("prevResult".into(), previous.clone());
    }
    let capable = |name: &str| plugin.get("capabilities").and_then(|all| all.get(name)) == Some(&Value::Bool(true));
    let mut run_time = Map::new();
    if capable("portMappings") && !pod.port_mappings.is_empty() {
        run_time.insert("portMappings".into(), json!(pod.port_mappings));
    }
    if capable("bandwidth") && !pod.bandwidth.is_unlimited() {
        let mut limits = Map::new();
        for (direction, rate) in [("ingress", pod.bandwidth.ingress), ("egress", pod.bandwidth.egress)] {
            if let Some(rate) = rate {
                limits.insert(format!("{direction}Rate"), rate.into());
                limits.insert(format!("{direction}Burst"), BURST_BITS.into());
            }
        }
        run_time.insert("bandwidth".into(), limits.into());
    }
    if !run_time.is_empty() {
        input.insert("runtimeConfig".into(), run_time.into());
    }
    input.remove("capabilities");
    input.into()
}

/// Addresses of a result, in its order; the first is the pod's primary.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let parse = |entry: &Value| entry.get("address")?.as_str()?.split('/').next()?.parse().ok();
    result.get("ips").and_then(Value::as_array).map(|ips| ips.iter().filter_map(parse).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{Network, Pod, PortMapping, addresses, input, parse};
    use crate::network::bandwidth::Bandwidth;

    fn pod(port_mappings: Vec<PortMapping>) -> Pod {
        let bandwidth = Bandwidth { ingress: Some(1_000_000), egress: None };
        Pod { namespace: "default".into(), name: "web".into(), uid: "u1".into(), port_mappings, bandwidth }
    }

    #[test]
    fn a_plugin_reads_its_part_with_what_it_is_capable_of() {
        let plugin = json!({"type": "portmap", "capabilities": {"portMappings": true, "bandwidth": true}});
        let plugins = plugin.as_object().cloned().into_iter().collect();
        let network = Network { name: "br0".into(), version: "1.0.0".into(), plugins };
        let mapping =
            PortMapping { host_port: 8080, container_port: 80, protocol: "tcp".into(), host_ip: String::new() };
        let previous = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.244.0.5/32"}]});
        expect![[r#"{"cniVersion":"1.0.0","name":"br0","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.244.0.5/32"}]},"runtimeConfig":{"bandwidth":{"ingressBurst":2147483647,"ingressRate":1000000},"portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"tcp"}]},"type":"portmap"}"#]]
        .assert_eq(&input(&network, &network.plugins[0], &pod(vec![mapping]), Some(&previous)).to_string());
        let mut incapable = network.plugins[0].clone();
        incapable.remove("capabilities");
        let told = input(&network, &incapable, &pod(Vec::new()), None);
        expect![[r#"{"cniVersion":"1.0.0","name":"br0","type":"portmap"}"#]].assert_eq(&told.to_string());
    }

    #[test]
    fn a_single_configuration_is_a_list_of_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("10-ptp.conf");
        std::fs::write(&path, r#"{"cniVersion":"0.4.0","name":"lan","type":"ptp"}"#).unwrap();
        let network = parse(&path).unwrap();
        assert_eq!((network.name.as_str(), network.version.as_str(), network.plugins.len()), ("lan", "0.4.0", 1));
        assert_eq!(super::on_host(directory.path()).unwrap(), Some(network));
    }

    #[test]
    fn addresses_keep_their_order() {
        let result = json!({"ips": [{"address": "10.0.0.2/24"}, {"address": "fd00::2/64"}]});
        expect!["[10.0.0.2, fd00::2]"].assert_eq(&format!("{:?}", addresses(&result)));
    }
}
