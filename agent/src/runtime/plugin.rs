//! What containerd's plugins tell about themselves.

use containerd_client::services::v1::{PluginsRequest, introspection_client::IntrospectionClient};

use super::{Result, Runtime, answered};

impl Runtime {
    /// A value that a plugin exports, such as the directory of a snapshotter; `None` when it does not.
    pub async fn plugin_export(&self, kind: &str, id: &str, key: &str) -> Result<Option<String>> {
        let request = PluginsRequest { filters: vec![format!("type=={kind},id=={id}")] };
        let result = IntrospectionClient::new(self.channel()).plugins(self.request(request)).await;
        let found = answered(result, "look up plugin", id)?.plugins.into_iter().next();
        Ok(found.and_then(|mut plugin| plugin.exports.remove(key)))
    }
}
