//! Leases: what is created under one is kept from garbage collection until the lease ends or expires.

use std::collections::HashMap;

use containerd_client::services::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, Resource, leases_client::LeasesClient,
};
use jiff::{SignedDuration, Timestamp};

use super::{Error, Result, Runtime, answered, gone_is_fine};

/// A lease that its holder lost (crash in the middle of an import) ends after this time.
const EXPIRES: SignedDuration = SignedDuration::from_hours(24);

impl Runtime {
    /// A handle whose calls run under a new lease; end it with `end_lease`.
    pub async fn leased(&self, purpose: &str) -> Result<Runtime> {
        self.leased_as(&format!("{purpose}-{}", uuid::Uuid::new_v4())).await
    }

    /// The same with a lease that others of this name join: work that was interrupted goes on under it.
    pub async fn leased_as(&self, name: &str) -> Result<Runtime> {
        let id = format!("keelson-{name}");
        let value = id.parse().map_err(|_| Error::Invalid { what: id.clone(), problem: "no header value".into() })?;
        let expires = Timestamp::now() + EXPIRES;
        let labels = HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]);
        let result =
            LeasesClient::new(self.channel()).create(self.request(CreateRequest { id: id.clone(), labels })).await;
        match answered(result, "create lease", &id) {
            Err(error) if !error.is_already_exists() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        Ok(Runtime { lease: Some(value), ..self.clone() })
    }

    /// A blob that may be here already is kept too. Whether it is here is known only after this.
    pub async fn keep_blob(&self, digest: &str) -> Result<()> {
        let Some(id) = self.lease.as_ref().and_then(|lease| lease.to_str().ok()) else { return Ok(()) };
        let resource = Some(Resource { id: digest.to_owned(), r#type: "content".to_owned() });
        let request = AddResourceRequest { id: id.to_owned(), resource };
        let result = LeasesClient::new(self.channel()).add_resource(self.request(request)).await;
        answered(result, "add to lease", digest).map(drop)
    }

    pub async fn end_lease(&self) -> Result<()> {
        let Some(id) = self.lease.as_ref().and_then(|lease| lease.to_str().ok()) else { return Ok(()) };
        let request = DeleteRequest { id: id.to_owned(), sync: false };
        gone_is_fine(answered(LeasesClient::new(self.channel()).delete(self.request(request)).await, "end lease", id))
    }
}
