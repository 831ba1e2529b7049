//! The node's lease: renewed every ten seconds, the cheap sign that the node is alive.

use std::time::Duration;

use api_client::{Api, Client, Error, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";
/// How long readers take the node for alive without a renewal (kubelet's `nodeLeaseDurationSeconds`).
const DURATION_SECONDS: i32 = 40;
/// A quarter of it.
const RENEW: Duration = Duration::from_secs(10);
/// After a failed renewal; several fit into the lease's duration.
const RETRY: Duration = Duration::from_secs(2);

/// Renews until shutdown.
pub async fn keep(client: Client, node_name: String, node_uid: String, shutdown: CancellationToken) {
    let api = client.api::<Lease>();
    let mut held = None;
    loop {
        let now = Timestamp::now();
        let pause = match renew(&api, &node_name, &node_uid, held.take(), now).await {
            Ok(lease) => {
                held = Some(lease);
                RENEW
            }
            Err(error) => {
                tracing::warn!(%error, "node lease not renewed");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// When the node's lease was last renewed, by whomever.
pub async fn renewed_at(client: &Client, node: &str) -> Result<Option<Timestamp>, Error> {
    let found = client.api::<Lease>().find(&ObjectKey::new(NAMESPACE, node)).await?;
    Ok(found.and_then(|lease| lease.spec?.renew_time).map(|time| time.0))
}

/// With the lease as last seen this is one write; without, it is read or created first.
async fn renew(api: &Api<Lease>, node: &str, uid: &str, held: Option<Lease>, now: Timestamp) -> Result<Lease, Error> {
    let key = ObjectKey::new(NAMESPACE, node);
    let found = match held {
        Some(lease) => Some(lease),
        None => api.find(&key).await?,
    };
    let fresh = renewed(found, node, uid, now);
    let written = match fresh.metadata.resource_version {
        Some(_) => api.replace(&key, &fresh).await,
        None => api.create(&fresh).await,
    };
    written.map(|(lease, _)| lease)
}

fn renewed(found: Option<Lease>, node: &str, uid: &str, now: Timestamp) -> Lease {
    let mut lease = found.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(node.to_owned()),
            // The lease goes with its node.
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.to_owned(),
                uid: uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(node.to_owned());
    spec.lease_duration_seconds = Some(DURATION_SECONDS);
    spec.renew_time = Some(MicroTime(now));
    lease
}

#[cfg(test)]
mod tests {
    use super::renewed;

    #[test]
    fn a_renewal_keeps_the_lease_and_moves_its_time() {
        let first = renewed(None, "n1", "u1", "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(first.metadata.owner_references.as_ref().unwrap()[0].uid, "u1");
        let mut stored = first.clone();
        stored.metadata.resource_version = Some("7".into());
        let second = renewed(Some(stored), "n1", "u1", "2026-01-01T00:00:10Z".parse().unwrap());
        assert_eq!(second.metadata.resource_version.as_deref(), Some("7"));
        assert_ne!(second.spec.unwrap().renew_time, first.spec.unwrap().renew_time);
    }
}
