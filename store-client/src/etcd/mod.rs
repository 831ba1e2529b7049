//! The etcd engine: the same contract on a cluster of etcd members, for several servers side by side.
//!
//! Every write is one transaction on the key's `mod_revision`; every read is linearizable. Consistency over
//! availability: without a quorum, operations fail with [`Error::Unavailable`] after [`Options::request_timeout`].
//! It needs nothing newer than etcd 3.4: in particular no watch progress requests, so freshness is the business of the
//! caller (see [`Store::current_revision`]).
//!
//! Invariant: a write whose outcome is unknown is never sent again; it is reported as unavailable.
//!
//! When etcd raises its space alarm, writes fail with [`Error::Full`] until an operator compacts, defragments and
//! disarms the alarm (`etcdctl alarm disarm`): etcd itself does not clear it.

mod base;
mod endpoints;
mod failure;
mod restore;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio::sync::OnceCell;

use crate::write::{Kind, Refusal, Write};
use crate::{Error, Page, Range, Record, Result, Revision, Span, Status, Store, WatchStream};
use base::Base;
use endpoints::{Endpoints, Retry};
pub use restore::Restore;

/// Records per request of a range without limit: bounds the size of a message, not of the answer.
const PAGE_RECORDS: usize = 500;

/// A range without revision starts over when a compaction overtakes it; more often than this is a fault.
const RANGE_ATTEMPTS_MAX: usize = 3;

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://` or `https://` URLs of the members; tried in turn when one fails.
    pub endpoints: Vec<String>,
    /// For `https://` endpoints; `None` uses no client certificate and no CA of our own.
    pub tls: Option<Tls>,
    /// After this an operation fails with [`Error::Unavailable`]. Longer than an election of a new leader.
    pub request_timeout: Duration,
}

/// PEM texts for the connection to etcd.
#[derive(Clone)]
pub struct Tls {
    /// The CA that signs the members' certificates.
    pub ca: Vec<u8>,
    /// Our client certificate and its key, where etcd asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

impl Options {
    /// Default limits, no TLS.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, tls: None, request_timeout: Duration::from_secs(5) }
    }
}

/// A client of an etcd cluster; clones share connections.
#[derive(Clone)]
pub struct Etcd {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    endpoints: Endpoints,
    /// The highest compacted revision this client has learnt of: etcd has no request for it.
    compacted: AtomicU64,
    /// Read with the first operation; a restore sets it before anybody else uses the cluster.
    base: OnceCell<Base>,
}

impl Etcd {
    /// Prepares the connections. Only bad options fail here: members may come up later.
    pub async fn connect(options: Options) -> Result<Self> {
        let endpoints = Endpoints::connect(&options).await?;
        Ok(Self { shared: Arc::new(Shared { endpoints, compacted: AtomicU64::new(0), base: OnceCell::new() }) })
    }

    async fn txn(&self, attempt: &str, key: &Bytes, txn: Txn) -> Result<TxnResponse> {
        let response = self.shared.endpoints.call(attempt, Retry::IfNotSent, |member| {
            let txn = txn.clone();
            async move { member.kv().txn(txn).await }
        });
        response.await.map_err(|failure| self.shared.error(failure, Some(key), None))
    }

    async fn write(&self, write: Write, attempt: &str) -> Result<Revision> {
        write.check_size()?;
        let base = self.shared.base().await?;
        let Write { key, kind } = write;
        let expected = match &kind {
            Kind::Create { .. } => Revision::ZERO,
            Kind::Update { expected, .. } | Kind::Delete { expected } => *expected,
        };
        let is_create = matches!(kind, Kind::Create { .. });
        // etcd says 0 for the revision of a missing key, so 0 would match one.
        if !is_create && base.number(expected) == 0 {
            let refusal = match self.get(&key).await? {
                Some(current) => return Err(conflict(key, expected, current)),
                None => Refusal::NotFound,
            };
            return Err(refusal.into_error(key, None));
        }
        let operation = match kind {
            Kind::Create { value } | Kind::Update { value, .. } => TxnOp::put(&key[..], &value[..], None),
            Kind::Delete { .. } => TxnOp::delete(&key[..], None),
        };
        let unchanged = Compare::mod_revision(&key[..], CompareOp::Equal, base.number(expected));
        let mut txn = Txn::new().when([unchanged]).and_then([operation]);
        if !is_create {
            txn = txn.or_else([TxnOp::get(&key[..], None)]);
        }
        let response = self.txn(attempt, &key, txn).await?;
        if response.succeeded() {
            return Ok(base.revision(header_number(response.header())));
        }
        if is_create {
            return Err(Refusal::Exists.into_error(key, None));
        }
        match found(&response, base) {
            Some(current) => Err(conflict(key, expected, current)),
            None => Err(Refusal::NotFound.into_error(key, None)),
        }
    }

    async fn read(&self, attempt: &str, key: &Bytes, options: GetOptions, at: Option<Revision>) -> Result<GetResponse> {
        let response = self.shared.endpoints.call(attempt, Retry::Always, |member| {
            let (key, options) = (key.clone(), options.clone());
            async move { member.kv().get(&key[..], Some(options)).await }
        });
        response.await.map_err(|failure| self.shared.error(failure, Some(key), at))
    }

    async fn range_once(&self, range: &Range) -> Result<Page> {
        let base = self.shared.base().await?;
        let mut at = range.at;
        if let Some(requested) = at.filter(|at| base.is_before(*at)) {
            return Err(Error::Compacted { requested, compacted: base.revision(1) });
        }
        let mut start = range.start.clone();
        let mut items: Vec<Record> = Vec::new();
        loop {
            let left = if range.limit == 0 { PAGE_RECORDS } else { PAGE_RECORDS.min(range.limit - items.len()) };
            // What is this engine's own does not count.
            let own = usize::from(base.is_in(&Span { start: start.clone(), end: range.end.clone() }));
            let mut options = spanned(GetOptions::new(), range.end.as_ref()).with_limit((left + own) as i64);
            if let Some(at) = at {
                options = options.with_revision(base.number(at));
            }
            let mut response = self.read("range", &first_key(&start), options, at).await?;
            let revision = at.unwrap_or_else(|| base.revision(header_number(response.header())));
            at = Some(revision);
            let total = (response.count() as usize).saturating_sub(own);
            let found = response.take_kvs().into_iter().filter(|found| own == 0 || found.key() != base::KEY);
            let before = items.len();
            items.extend(found.take(left).map(|found| record(found, base)));
            let remaining = total.saturating_sub(items.len() - before) as u64;
            match items.last() {
                Some(last) if remaining > 0 && items.len() != range.limit => start = behind(&last.key),
                Some(_) | None => return Ok(Page { revision, items, more: remaining > 0, remaining }),
            }
        }
    }
}

impl Shared {
    /// What is added to etcd's revisions.
    async fn base(&self) -> Result<Base> {
        let read = || async {
            let response = self.endpoints.call("read where revisions begin", Retry::Always, |member| async move {
                member.kv().get(base::KEY, None).await
            });
            let response = response.await.map_err(|failure| self.error(failure, None, None))?;
            response.kvs().first().map_or(Ok(Base::default()), |found| Base::parse(found.value()))
        };
        self.base.get_or_try_init(read).await.copied()
    }

    fn error(&self, failure: failure::Failure, key: Option<&Bytes>, requested: Option<Revision>) -> Error {
        let compacted = Revision(self.compacted.load(Ordering::Relaxed));
        failure.into_error(key, requested, compacted)
    }

    fn learn_compacted(&self, revision: Revision) -> Revision {
        let before = self.compacted.fetch_max(revision.0, Ordering::Relaxed);
        Revision(before.max(revision.0))
    }

    /// etcd says that a revision is compacted or in the future, but not where it stands; this asks for it.
    async fn with_figures(&self, error: Error) -> Error {
        match error {
            Error::Future { requested, .. } => match self.current_revision().await {
                Ok(current) => Error::Future { requested, current },
                Err(error) => error,
            },
            Error::Compacted { requested, compacted } => match watch::compacted(self, requested).await {
                Some(found) => Error::Compacted { requested, compacted: self.learn_compacted(found) },
                None => Error::Compacted { requested, compacted },
            },
            error => error,
        }
    }

    /// The newest revision, from a read that a quorum stands behind.
    async fn current_revision(&self) -> Result<Revision> {
        let base = self.base().await?;
        let response = self.endpoints.call("read the current revision", Retry::Always, |member| async move {
            member.kv().get("\0", Some(GetOptions::new().with_count_only())).await
        });
        let response = response.await.map_err(|failure| self.error(failure, None, None))?;
        Ok(base.revision(header_number(response.header())))
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &[u8]) -> Result<Option<Record>> {
        // etcd takes no empty key, and no engine has one.
        if key.is_empty() || key.len() > crate::KEY_BYTES_MAX {
            return Ok(None);
        }
        let base = self.shared.base().await?;
        let key = Bytes::copy_from_slice(key);
        let mut response = self.read("get", &key, GetOptions::new(), None).await?;
        Ok(response.take_kvs().pop().map(|found| record(found, base)))
    }

    async fn range(&self, range: Range) -> Result<Page> {
        if is_empty(&range.span()) {
            let revision = self.current_revision().await?;
            return Ok(Page { revision: range.at.unwrap_or(revision), items: Vec::new(), more: false, remaining: 0 });
        }
        let mut attempts = 1;
        loop {
            match self.range_once(&range).await {
                Err(Error::Compacted { .. }) if range.at.is_none() && attempts < RANGE_ATTEMPTS_MAX => attempts += 1,
                Err(error) => return Err(self.shared.with_figures(error).await),
                Ok(page) => return Ok(page),
            }
        }
    }

    async fn create(&self, key: Bytes, value: Bytes) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Create { value } }, "create").await
    }

    async fn update(&self, key: Bytes, value: Bytes, expected: Revision) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Update { value, expected } }, "update").await
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> Result<Revision> {
        self.write(Write { key, kind: Kind::Delete { expected } }, "delete").await
    }

    async fn watch(&self, span: Span, after: Revision) -> Result<WatchStream> {
        Ok(watch::watch(self.shared.clone(), span, after))
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let base = self.shared.base().await?;
        if base.is_before(revision) {
            return Ok(());
        }
        let number = base.number(revision);
        let outcome = self
            .shared
            .endpoints
            .call("compact", Retry::Always, |member| async move { member.kv().compact(number, None).await });
        match outcome.await.map_err(|failure| self.shared.error(failure, None, Some(revision))) {
            // Somebody was faster: what was asked for is done.
            Ok(_) | Err(Error::Compacted { .. }) => {
                self.shared.learn_compacted(revision);
                Ok(())
            }
            Err(error) => Err(self.shared.with_figures(error).await),
        }
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.shared.current_revision().await
    }

    async fn status(&self) -> Result<Status> {
        let revision = self.shared.current_revision().await?;
        let response = self
            .shared
            .endpoints
            .call("status", Retry::Always, |member| async move { member.maintenance().status().await });
        let response = response.await.map_err(|failure| self.shared.error(failure, None, None))?;
        let compacted = Revision(self.shared.compacted.load(Ordering::Relaxed));
        Ok(Status { revision, compacted, bytes: response.db_size() as u64 })
    }
}

fn conflict(key: Bytes, expected: Revision, current: Record) -> Error {
    Refusal::Conflict { expected }.into_error(key, Some(current))
}

/// The record that a failed transaction read.
fn found(response: &TxnResponse, base: Base) -> Option<Record> {
    response.op_responses().into_iter().find_map(|operation| match operation {
        TxnOpResponse::Get(mut response) => response.take_kvs().pop().map(|found| record(found, base)),
        _ => None,
    })
}

fn record(found: KeyValue, base: Base) -> Record {
    let (mod_revision, create_revision) = (base.revision(found.mod_revision()), base.revision(found.create_revision()));
    let version = found.version() as u64;
    let (key, value) = found.into_key_value();
    Record { key: key.into(), value: value.into(), mod_revision, create_revision, version }
}

/// Whether no key of etcd can lie in the span. An end of one zero byte must not be sent: to etcd it means no end.
fn is_empty(span: &Span) -> bool {
    span.is_empty() || span.end.as_ref().is_some_and(|end| &end[..] <= b"\0".as_slice())
}

/// etcd has no empty key; its smallest is a zero byte.
fn first_key(start: &Bytes) -> Bytes {
    if start.is_empty() { Bytes::from_static(b"\0") } else { start.clone() }
}

fn behind(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}

fn spanned(options: GetOptions, end: Option<&Bytes>) -> GetOptions {
    match end {
        Some(end) => options.with_range(&end[..]),
        None => options.with_from_key(),
    }
}

/// etcd's own revision; 0 where an answer lacks it.
fn header_number(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, etcd_client::ResponseHeader::revision)
}
