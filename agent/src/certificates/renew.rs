//! Renewal while running: each certificate is asked for anew at 70 to 90 % of its life (upstream's jitter), the
//! serving one also when the node's addresses change.

use std::time::Duration;

use api_client::{Backoff, Client};
use jiff::Timestamp;
use tls::certificate::Facts;
use tokio_util::sync::CancellationToken;

use super::request::{Names, Signer, request};
use super::{Certificates, Pair};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A clock may jump while we sleep, so that no sleep is longer.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps the client certificate fresh until shutdown.
pub(crate) async fn client(client: Client, certificates: Certificates, node: String, shutdown: CancellationToken) {
    let names = Box::new(Names::default);
    let renewal = Renewal { client, pair: certificates.files.client(), signer: Signer::Client, node, names };
    renewal.keep(&shutdown, &*certificates.reconnect).await;
}

/// Gets the serving certificate, and keeps it fresh until shutdown, for the names that `names` gives at each look. The
/// port reads it from its files.
pub(crate) async fn serving(
    client: Client,
    certificates: Certificates,
    node: String,
    names: impl Fn() -> Names + Send + Sync + 'static,
    shutdown: CancellationToken,
) {
    let names = Box::new(names);
    let renewal = Renewal { client, pair: certificates.files.serving(), signer: Signer::Serving, node, names };
    renewal.keep(&shutdown, &|| {}).await;
}

struct Renewal {
    client: Client,
    pair: Pair,
    signer: Signer,
    node: String,
    names: Box<dyn Fn() -> Names + Send + Sync>,
}

impl Renewal {
    async fn keep(&self, shutdown: &CancellationToken, renewed: &(dyn Fn() + Send + Sync)) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        loop {
            let pause = match self.wait() {
                Some(wait) => wait.min(LOOK_EVERY),
                None => match self.renew(shutdown).await {
                    Ok(()) => {
                        tracing::info!(signer = ?self.signer, "certificate renewed");
                        backoff.reset();
                        renewed();
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(signer = ?self.signer, "certificate not renewed, trying again: {error}");
                        backoff.next(rand::random())
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// How long the present certificate will do; `None` when a new one is due. The jitter is the certificate's own, so
    /// that it is the same each time it is looked at.
    fn wait(&self) -> Option<Duration> {
        let facts = self.pair.facts().ok().flatten()?;
        if facts.names != (self.names)().sorted() {
            return None;
        }
        let left = facts.renew_at(jitter(&facts)) - Timestamp::now().as_second();
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
    }

    async fn renew(&self, shutdown: &CancellationToken) -> Result<(), super::request::Error> {
        let key = self.pair.key()?;
        let pem = request(&self.client, self.signer, &self.node, &(self.names)(), &key, shutdown).await?;
        Ok(self.pair.write_certificate(&pem)?)
    }
}

/// Spread by the time of issue and the key: 0 to 1.
fn jitter(facts: &Facts) -> f64 {
    let seed = facts
        .pin
        .to_string()
        .bytes()
        .fold(facts.not_after.unsigned_abs(), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (seed >> 11) as f64 / (1_u64 << 53) as f64
}
