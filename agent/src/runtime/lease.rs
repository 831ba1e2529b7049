//! Leases: what is created under one is kept from garbage collection until the lease ends or expires.

use std::collections::HashMap;

use containerd_client::services::v1::{CreateRequest, DeleteRequest, leases_client::LeasesClient};
use jiff::{SignedDuration, Timestamp};

use super::{Error, Result, Runtime, answered, gone_is_fine};

/// A lease that its holder lost (crash in the middle of an import) ends after this time.
const EXPIRES: SignedDuration = SignedDuration::from_hours(24);

impl Runtime {
    /// A handle whose calls run under a new lease; end it with `end_lease`.
    pub async fn leased(&self, purpose: &str) -> Result<Runtime> {
        let id = format!("keelson-{purpose}-{}", uuid::Uuid::new_v4());
        let value = id.parse().map_err(|_| Error::Invalid { what: id.clone(), problem: "no header value".into() })?;
        let expires = Timestamp::now() + EXPIRES;
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
        let result =
            LeasesClient::new(self.channel()).create(self.request(CreateRequest { id: id.clone(), labels })).await;
        answered(result, "create lease", &id)?;
        Ok(Runtime { lease: Some(value), ..self.clone() })
    }

    pub async fn end_lease(&self) -> Result<()> {
        let Some(id) = self.lease.as_ref().and_then(|lease| lease.to_str().ok()) else { return Ok(()) };
        let request = DeleteRequest { id: id.to_owned(), sync: false };
        gone_is_fine(answered(LeasesClient::new(self.channel()).delete(self.request(request)).await, "end lease", id))
    }
}
