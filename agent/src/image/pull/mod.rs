//! One pull of one image: ask what the name stands for, fetch what is missing, unpack while more comes, and only then give
//! the image its name. Until that a lease keeps what was fetched; what is half written stays for the next try.

mod blob;
mod flight;
mod progress;

use std::{collections::HashSet, path::Path};

use containerd_client::types::Descriptor;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use oci_spec::image::{ImageIndex, ImageManifest};
use tokio::sync::watch;

use super::{
    access::Access,
    credentials::Credential,
    hosts,
    name::Name,
    platform,
    registry::{self, Head, Session},
};
use crate::runtime::{self, Image, Runtime, image::is_index};

pub use blob::Locks;
pub use flight::{Failure, Flight, Pulled, Pulls};
pub use progress::Progress;

/// Layers of one image fetched at the same time, as containerd's `max_concurrent_downloads`.
const LAYERS_AT_ONCE: usize = 3;
/// Layers an image may have. The kernel stacks no more than 500, overlayfs with containerd 128 or so.
const LAYERS_MAX: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("registry configuration")]
    Hosts(#[from] hosts::Error),
    #[error("failed to resolve reference {name:?}: {problems}")]
    Resolve { name: String, problems: String, kind: Kind },
    #[error("failed to fetch {digest}: {problems}")]
    Fetch { digest: String, problems: String, kind: Kind },
    #[error("{what}: {problem}")]
    Corrupt { what: String, problem: String },
    #[error("parse {what}")]
    Parse { what: String, source: serde_json::Error },
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error("the pull was given up")]
    GivenUp,
}

/// What to make of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another credential may do better.
    Denied,
    /// The registry says that it is out of order.
    Unavailable,
    Other,
}

/// All that one pull needs to know.
pub struct Request<'a> {
    pub runtime: &'a Runtime,
    /// `certs.d`
    pub registries: &'a Path,
    pub locks: &'a Locks,
    pub name: &'a Name,
    /// Tried in turn; without any the registry is asked anonymously.
    pub credentials: &'a [Credential],
    pub progress: &'a Progress,
}

impl Request<'_> {
    /// Returns the image, which is unpacked and has its name.
    pub async fn pull(&self) -> Result<Image, Error> {
        let mut anonymous = self.credentials.is_empty().then_some(None).into_iter();
        let mut credentials = self.credentials.iter().map(Some);
        let mut denied = Vec::new();
        while let Some(credential) = anonymous.next().or_else(|| credentials.next()) {
            match self.pull_with(credential).await {
                Err(error) if error.is_denied() => denied.push(error),
                other => return other,
            }
        }
        // As the kubelet: all of them when there were several.
        match denied.len() {
            0 | 1 => Err(denied.pop().unwrap_or(Error::GivenUp)),
            _ => {
                let problems = denied.iter().map(Error::to_string).collect::<Vec<_>>().join(", ");
                let problems = format!("[{problems}]");
                Err(Error::Resolve { name: self.name.full(), problems, kind: Kind::Denied })
            }
        }
    }

    async fn pull_with(&self, credential: Option<&Credential>) -> Result<Image, Error> {
        let endpoints = hosts::endpoints(self.registries, self.name.registry())?;
        let sessions = endpoints.into_iter().map(|end| Session::new(end, self.name.path(), credential.cloned()));
        let sessions = sessions.collect::<Result<Vec<_>, _>>().map_err(|source| self.unresolved(vec![source]))?;
        let target = self.resolve(&sessions).await?;
        let access = Access::of_pull(credential);
        if let Some(image) = self.present(&target).await? {
            self.runtime.put_pulled(self.name, target, &access).await?;
            return Ok(image);
        }
        // One at a time for the same content: the lease, which a retry joins, is theirs together.
        let lock = self.locks.of(&format!("image {}", target.digest));
        let _turn = lock.lock().await;
        let leased = self.runtime.leased_as(&format!("pull-{}", target.digest.replace(':', "-"))).await?;
        let fetched = Fetch { request: self, leased: &leased, sessions: &sessions }.image(&target, &access).await;
        // Ended only after the image has its name; a failed pull keeps what came for a day.
        match fetched {
            Ok(image) => leased.end_lease().await.map(|()| image).map_err(Error::from),
            Err(error) => Err(error),
        }
    }

    /// What the name stands for now: asked without fetching it, of the first server that knows.
    async fn resolve(&self, sessions: &[Session]) -> Result<Descriptor, Error> {
        let mut problems = Vec::new();
        for session in sessions.iter().filter(|session| session.endpoint().resolves) {
            match self.resolve_at(session).await {
                Ok(target) => return Ok(target),
                Err(error) => problems.push(error),
            }
        }
        Err(self.unresolved(problems))
    }

    async fn resolve_at(&self, session: &Session) -> Result<Descriptor, registry::Error> {
        let wanted = self.name.reference();
        let head = session.head(wanted).await?;
        let (Head { digest, media_type, size }, fetched) = match (&head.digest, head.size) {
            (Some(_), Some(_)) => (head, None),
            // A server that tells too little: the manifest itself is what it says.
            _ => session.manifest(wanted).await.map(|(head, bytes)| (head, Some(bytes)))?,
        };
        let found = fetched.as_ref().map(|bytes| runtime::image::digest(bytes)).or(digest).unwrap_or_default();
        if self.name.digest.as_ref().is_some_and(|wanted| *wanted != found) {
            let problem = format!("digest {found}");
            return Err(registry::Error::Answer { url: self.name.full(), problem });
        }
        let size = fetched.map_or(size.unwrap_or(0), |bytes| bytes.len() as u64);
        Ok(Descriptor { media_type, digest: found, size: size as i64, ..Descriptor::default() })
    }

    /// Mirrors come first and the registry itself last: its word counts, and the others' are told with it.
    fn unresolved(&self, problems: Vec<registry::Error>) -> Error {
        let kind = problems.last().map_or(Kind::Other, kind);
        let texts = problems.iter().map(|problem| crate::image::chain(problem)).collect::<Vec<_>>();
        let problems = if texts.is_empty() { "no server may resolve it".to_owned() } else { texts.join("; ") };
        Error::Resolve { name: self.name.full(), problems, kind }
    }

    /// The image, when all of it is here under its name.
    async fn present(&self, target: &Descriptor) -> Result<Option<Image>, Error> {
        let Some(image) = self.runtime.find_image(&self.name.full()).await? else { return Ok(None) };
        if image.target != target.digest {
            return Ok(None);
        }
        match self.runtime.unpack_image(&image).await {
            Ok(()) => Ok(Some(image)),
            // Some of its content is gone.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Error {
    fn kind(&self) -> Kind {
        match self {
            Error::Resolve { kind, .. } | Error::Fetch { kind, .. } => *kind,
            _ => Kind::Other,
        }
    }
    fn is_denied(&self) -> bool {
        self.kind() == Kind::Denied
    }
    pub fn is_unavailable(&self) -> bool {
        self.kind() == Kind::Unavailable
    }
}

/// A private repository may answer "not found" to whom it does not know.
fn kind(error: &registry::Error) -> Kind {
    if error.is_denied() || error.is_not_found() {
        Kind::Denied
    } else if error.is_unavailable() {
        Kind::Unavailable
    } else {
        Kind::Other
    }
}

/// The part of a pull that writes, under its lease.
struct Fetch<'a> {
    request: &'a Request<'a>,
    leased: &'a Runtime,
    sessions: &'a [Session],
}

impl Fetch<'_> {
    async fn image(&self, target: &Descriptor, access: &Access) -> Result<Image, Error> {
        let manifest = self.manifest(target).await?;
        let config = descriptor(manifest.config());
        self.blob(&config).await?;
        let resolved = self.leased.resolve_target(target).await?;
        let architecture = resolved.config.architecture().to_string();
        if !architecture.is_empty() && architecture != platform::architecture() {
            let problem = format!("no match for platform in manifest: it is for {architecture}");
            return Err(Error::Corrupt { what: format!("image {}", target.digest), problem });
        }
        self.layers(&resolved).await?;
        let name = self.request.name;
        self.leased.put_pulled(name, target.clone(), access).await?;
        let found = self.leased.find_image(&name.full()).await?;
        found.ok_or_else(|| Error::Corrupt { what: name.full(), problem: "gone right after it was pulled".to_owned() })
    }

    /// The manifest of this machine, through the index if there is one.
    async fn manifest(&self, target: &Descriptor) -> Result<ImageManifest, Error> {
        let mut digest = target.digest.clone();
        if is_index(&target.media_type) {
            let bytes = self.document(&digest).await?;
            let index: ImageIndex = parse("image index", &digest, &bytes)?;
            let chosen = platform::choose(&index, platform::architecture()).ok_or_else(|| Error::Corrupt {
                what: format!("image index {digest}"),
                problem: format!("no match for platform in manifest: linux/{}", platform::architecture()),
            })?;
            let child = chosen.digest().to_string();
            self.store(&digest, bytes, std::slice::from_ref(&child)).await?;
            digest = child;
        }
        let bytes = self.document(&digest).await?;
        let manifest: ImageManifest = parse("image manifest", &digest, &bytes)?;
        if manifest.layers().len() > LAYERS_MAX {
            let problem = format!("{} layers are more than {LAYERS_MAX}", manifest.layers().len());
            return Err(Error::Corrupt { what: format!("image manifest {digest}"), problem });
        }
        let children = std::iter::once(manifest.config()).chain(manifest.layers());
        let children = children.map(|child| child.digest().to_string()).collect::<Vec<_>>();
        self.store(&digest, bytes, &children).await?;
        Ok(manifest)
    }

    /// A manifest or index: from the content store, else from the first server that has it unharmed.
    async fn document(&self, digest: &str) -> Result<Vec<u8>, Error> {
        self.leased.keep_blob(digest).await?;
        match self.leased.read_blob(digest).await {
            Err(error) if error.is_not_found() => {}
            other => return Ok(other?),
        }
        let mut problems = Vec::new();
        for session in self.sessions.iter().filter(|session| session.endpoint().pulls) {
            match session.manifest(digest).await {
                Ok((_, bytes)) if runtime::image::digest(&bytes) == digest => return Ok(bytes.into()),
                Ok((_, bytes)) => {
                    let problem = format!("its content has digest {}", runtime::image::digest(&bytes));
                    problems.push(registry::Error::Answer { url: digest.to_owned(), problem });
                }
                Err(error) => problems.push(error),
            }
        }
        Err(blob::failed(digest, &problems))
    }

    /// With labels that keep what it names from garbage collection.
    async fn store(&self, digest: &str, bytes: Vec<u8>, children: &[String]) -> Result<(), Error> {
        let labels = runtime::content::references(children);
        let size = bytes.len() as u64;
        Ok(self.leased.write_blob(digest, size, std::io::Cursor::new(bytes), labels).await?)
    }

    /// Layers arrive in any order and are unpacked in theirs, each as soon as it and those below it are there.
    async fn layers(&self, resolved: &runtime::image::Resolved) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let distinct = resolved.layers.iter().filter(|layer| seen.insert(layer.digest.clone())).collect::<Vec<_>>();
        self.request.progress.expect(distinct.iter().map(|layer| layer.size as u64).sum(), distinct.len());
        let (arrived, waiting) = watch::channel(HashSet::new());
        let arrived = &arrived;
        // Boxed: the compiler does not see through a stream of borrowed futures that it may move between threads.
        let downloads = distinct.into_iter().map(|layer| {
            let download = async move {
                self.blob(layer).await?;
                self.request.progress.layer_done();
                arrived.send_modify(|set| {
                    set.insert(layer.digest.clone());
                });
                Ok(())
            };
            download.boxed()
        });
        let downloads = downloads.collect::<Vec<BoxFuture<'_, Result<(), Error>>>>();
        let downloads = stream::iter(downloads).buffer_unordered(LAYERS_AT_ONCE).try_collect::<Vec<()>>();
        let unpacked = self.leased.unpack_layers(resolved, |index| {
            let (mut waiting, digest) = (waiting.clone(), resolved.layers[index].digest.clone());
            async move {
                // The sender is gone only when all layers have arrived, or with this future.
                waiting.wait_for(|set| set.contains(&digest)).await.map(drop).map_err(|_| Error::GivenUp)
            }
        });
        futures_util::future::try_join(downloads, unpacked).await.map(drop)
    }
}

fn descriptor(of: &oci_spec::image::Descriptor) -> Descriptor {
    Descriptor {
        media_type: of.media_type().to_string(),
        digest: of.digest().to_string(),
        size: of.size() as i64,
        ..Descriptor::default()
    }
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, digest: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Parse { what: format!("{what} {digest}"), source })
}
