//! What files a configMap, secret, downward API or projected volume shows.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{
        ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, SecretVolumeSource,
        ServiceAccountTokenProjection, Volume as Declared, VolumeProjection,
    },
};

use super::{
    Context, Error,
    atomic::{File, Files},
    token,
};
use crate::spec::env;

/// Upstream's `…VolumeSourceDefaultMode`.
const MODE_DEFAULT: u32 = 0o644;
/// Token files: the user that runs the container, or the group that was given the volume.
const MODE_TOKEN: u32 = 0o600;
/// Token files when who reads them is not known here.
const MODE_TOKEN_SHARED: u32 = 0o644;

pub struct Content {
    pub files: Files,
}

/// The plugin directory's name and the files; `None` when the volume is of another type.
pub async fn of(pod: &Pod, declared: &Declared, context: &Context) -> Result<Option<(&'static str, Content)>, Error> {
    let source = Source { pod, volume: &declared.name, context };
    let mut files = Files::new();
    let plugin = if let Some(secret) = &declared.secret {
        source.secret_volume(secret, &mut files).await?;
        "kubernetes.io/secret"
    } else if let Some(config_map) = &declared.config_map {
        source.config_map_volume(config_map, &mut files).await?;
        "kubernetes.io/configmap"
    } else if let Some(downward) = &declared.downward_api {
        source.downward(downward.items.iter().flatten(), mode(downward.default_mode), &mut files)?;
        "kubernetes.io/downward-api"
    } else if let Some(projected) = &declared.projected {
        source.projected(projected, &mut files).await?;
        "kubernetes.io/projected"
    } else {
        return Ok(None);
    };
    Ok(Some((plugin, Content { files })))
}

fn mode(given: Option<i32>) -> u32 {
    given.and_then(|m| u32::try_from(m).ok()).unwrap_or(MODE_DEFAULT)
}

/// One volume of one pod, and where its contents come from.
struct Source<'a> {
    pod: &'a Pod,
    volume: &'a str,
    context: &'a Context,
}

/// Which keys of an object become which files.
struct Selection<'a> {
    kind: &'static str,
    name: &'a str,
    items: Option<&'a [KeyToPath]>,
    mode: u32,
    optional: bool,
}

impl Source<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn cluster_error(&self, source: crate::cluster::Error) -> Error {
        Error::Cluster { volume: self.volume.to_owned(), source }
    }

    async fn secret_volume(&self, source: &SecretVolumeSource, files: &mut Files) -> Result<(), Error> {
        let selection = Selection {
            kind: "secret",
            name: source.secret_name.as_deref().unwrap_or_default(),
            items: source.items.as_deref(),
            mode: mode(source.default_mode),
            optional: source.optional.unwrap_or(false),
        };
        self.secret(&selection, files).await
    }

    async fn config_map_volume(&self, source: &ConfigMapVolumeSource, files: &mut Files) -> Result<(), Error> {
        let selection = Selection {
            kind: "configmap",
            name: &source.name,
            items: source.items.as_deref(),
            mode: mode(source.default_mode),
            optional: source.optional.unwrap_or(false),
        };
        self.config_map(&selection, files).await
    }

    async fn secret(&self, selection: &Selection<'_>, files: &mut Files) -> Result<(), Error> {
        let found = self.context.cluster.secret(self.namespace(), selection.name).await;
        let Some(secret) = found.map_err(|e| self.cluster_error(e))? else { return self.missing(selection) };
        let bytes = |ByteString(bytes): &ByteString| bytes.clone();
        let entries = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), bytes(value)));
        self.select(selection, entries.collect(), files)
    }

    async fn config_map(&self, selection: &Selection<'_>, files: &mut Files) -> Result<(), Error> {
        let found = self.context.cluster.config_map(self.namespace(), selection.name).await;
        let Some(map) = found.map_err(|e| self.cluster_error(e))? else { return self.missing(selection) };
        let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.clone().into_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, ByteString(value))| (key.as_str(), value.clone()));
        self.select(selection, text.chain(binary).collect(), files)
    }

    fn missing(&self, selection: &Selection<'_>) -> Result<(), Error> {
        if selection.optional {
            return Ok(());
        }
        Err(Error::Missing { volume: self.volume.to_owned(), kind: selection.kind, name: selection.name.to_owned() })
    }

    /// All entries under their keys, or those that items name under the paths they name.
    fn select(
        &self,
        selection: &Selection<'_>,
        mut entries: BTreeMap<&str, Vec<u8>>,
        files: &mut Files,
    ) -> Result<(), Error> {
        let Some(items) = selection.items else {
            let file = |bytes| File { bytes, mode: selection.mode, user: None };
            files.extend(entries.into_iter().map(|(key, bytes)| (key.to_owned(), file(bytes))));
            return Ok(());
        };
        for item in items {
            match entries.remove(item.key.as_str()) {
                Some(bytes) => {
                    let mode = item.mode.map_or(selection.mode, |m| mode(Some(m)));
                    files.insert(item.path.clone(), File { bytes, mode, user: None });
                }
                None if selection.optional => {}
                None => {
                    let problem = format!("{} {:?} has no key {:?}", selection.kind, selection.name, item.key);
                    return Err(Error::Unsupported { volume: self.volume.to_owned(), problem });
                }
            }
        }
        Ok(())
    }

    fn downward<'a>(
        &self,
        items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
        default_mode: u32,
        files: &mut Files,
    ) -> Result<(), Error> {
        let sources = env::Sources {
            pod: self.pod,
            node_name: &self.context.node_name,
            pod_ips: &self.context.pod_ips,
            host_ips: &self.context.host_ips,
            node_cpu_milli: self.context.node_cpu_milli,
            node_memory_bytes: self.context.node_memory_bytes,
            config_maps: BTreeMap::new(),
            secrets: BTreeMap::new(),
            services: &[],
        };
        for item in items {
            let by_field = item.field_ref.as_ref().and_then(|f| env::pod_field(&f.field_path, &sources));
            let Some(value) = by_field.or_else(|| self.resource(item, &sources)) else {
                let problem = format!("the value of downward API file {:?} is not available", item.path);
                return Err(Error::Unsupported { volume: self.volume.to_owned(), problem });
            };
            let mode = item.mode.map_or(default_mode, |m| mode(Some(m)));
            files.insert(item.path.clone(), File { bytes: value.into_bytes(), mode, user: None });
        }
        Ok(())
    }

    fn resource(&self, item: &DownwardAPIVolumeFile, sources: &env::Sources<'_>) -> Option<String> {
        let selector = item.resource_field_ref.as_ref()?;
        let spec = self.pod.spec.as_ref()?;
        let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let container = containers.find(|c| Some(&c.name) == selector.container_name.as_ref())?;
        env::resource_field(selector, container, sources)
    }

    async fn projected(&self, projected: &ProjectedVolumeSource, files: &mut Files) -> Result<(), Error> {
        let default_mode = mode(projected.default_mode);
        for projection in projected.sources.iter().flatten() {
            self.projection(projection, default_mode, files).await?;
        }
        Ok(())
    }

    async fn projection(
        &self,
        projection: &VolumeProjection,
        default_mode: u32,
        files: &mut Files,
    ) -> Result<(), Error> {
        if let Some(secret) = &projection.secret {
            let selection = Selection {
                kind: "secret",
                name: &secret.name,
                items: secret.items.as_deref(),
                mode: default_mode,
                optional: secret.optional.unwrap_or(false),
            };
            self.secret(&selection, files).await
        } else if let Some(map) = &projection.config_map {
            let selection = Selection {
                kind: "configmap",
                name: &map.name,
                items: map.items.as_deref(),
                mode: default_mode,
                optional: map.optional.unwrap_or(false),
            };
            self.config_map(&selection, files).await
        } else if let Some(downward) = &projection.downward_api {
            self.downward(downward.items.iter().flatten(), default_mode, files)
        } else if let Some(token) = &projection.service_account_token {
            self.service_account_token(token, default_mode, files).await
        } else {
            let problem = "it has a projection that this agent does not know".to_owned();
            Err(Error::Unsupported { volume: self.volume.to_owned(), problem })
        }
    }

    async fn service_account_token(
        &self,
        projection: &ServiceAccountTokenProjection,
        default_mode: u32,
        files: &mut Files,
    ) -> Result<(), Error> {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        let directory = self.context.paths.volume(uid, "kubernetes.io/projected", self.volume);
        let present = std::fs::read_to_string(directory.join(&projection.path)).unwrap_or_default();
        let token = if token::is_fresh(&present, projection, Timestamp::now()) {
            present
        } else {
            let account = self.pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
            let request = token::request(self.pod, projection);
            let answer = self.context.cluster.token(self.namespace(), account, &request).await;
            answer.map_err(|e| self.cluster_error(e))?.status.and_then(|s| s.token).unwrap_or_default()
        };
        let (mode, user) = self.token_access(default_mode);
        files.insert(projection.path.clone(), File { bytes: token.into_bytes(), mode, user });
        Ok(())
    }

    /// Who may read a token: the one user that all containers run as, else whoever the volume's mode lets
    /// (upstream's `projected.collectData`).
    fn token_access(&self, default_mode: u32) -> (u32, Option<u32>) {
        let spec = self.pod.spec.as_ref();
        let pod_user = spec.and_then(|s| s.security_context.as_ref()).and_then(|s| s.run_as_user);
        let containers = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
        let mut users = containers
            .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pod_user))
            .collect::<std::collections::BTreeSet<_>>();
        let has_group = spec.and_then(|s| s.security_context.as_ref()).is_some_and(|s| s.fs_group.is_some());
        match (users.pop_first(), users.is_empty()) {
            _ if has_group => (MODE_TOKEN, None),
            (Some(Some(user)), true) => (MODE_TOKEN, u32::try_from(user).ok()),
            _ => (default_mode.max(MODE_TOKEN_SHARED), None),
        }
    }
}
