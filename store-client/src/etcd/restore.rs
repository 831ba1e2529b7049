//! Filling an empty etcd from a backup, by transactions of many keys. Until the last of them the cluster says that it
//! is being restored, and no server takes it for a store.

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};

use super::base::{self, Base};
use super::{Etcd, header_number};
use crate::etcd::endpoints::Retry;
use crate::{Error, Result, Revision};

/// Below etcd's `--max-txn-ops` of 128.
const BATCH_RECORDS: usize = 100;
/// Below etcd's request limit of 1.5 MiB, as long as the batch has more than one record.
const BATCH_BYTES: usize = 1024 * 1024;

/// A restore under way.
pub struct Restore {
    etcd: Etcd,
    base: Base,
    batch: Vec<TxnOp>,
    batch_bytes: usize,
}

impl Restore {
    /// Begins, if etcd has no key at all, a store whose revisions are above `base`.
    pub async fn begin(etcd: Etcd, base: Revision) -> Result<Self> {
        let endpoints = &etcd.shared.endpoints;
        let count = endpoints.call("look whether etcd is empty", Retry::Always, |member| async move {
            let options = GetOptions::new().with_from_key().with_count_only();
            member.kv().get("\0", Some(options)).await
        });
        let count = count.await.map_err(|failure| etcd.shared.error(failure, None, None))?.count();
        if count > 0 {
            return Err(Error::Open {
                attempt: "restore into etcd".to_owned(),
                detail: format!("it holds {count} keys; give an etcd without data"),
            });
        }
        let restore = Self { etcd, base: Base(base.0), batch: Vec::new(), batch_bytes: 0 };
        restore.mark(true, "begin the restore").await?;
        Ok(restore)
    }

    /// Creates a key; it must not have been created before.
    pub async fn create(&mut self, key: Bytes, value: Bytes) -> Result<()> {
        let bytes = key.len() + value.len();
        if self.batch.len() == BATCH_RECORDS || self.batch_bytes + bytes > BATCH_BYTES {
            self.flush().await?;
        }
        self.batch_bytes += bytes;
        self.batch.push(TxnOp::put(&key[..], &value[..], None));
        Ok(())
    }

    /// Writes the rest, and makes all of it old: who watches from before is told so. Returns the revision it is at.
    pub async fn finish(mut self) -> Result<Revision> {
        self.flush().await?;
        let number = self.mark(false, "finish the restore").await?;
        let compact = self
            .etcd
            .shared
            .endpoints
            .call("compact", Retry::Always, |member| async move { member.kv().compact(number, None).await });
        compact.await.map_err(|failure| self.etcd.shared.error(failure, None, None))?;
        Ok(self.base.revision(number))
    }

    async fn flush(&mut self) -> Result<()> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        let key = Bytes::from_static(base::KEY);
        self.etcd.txn("restore", &key, Txn::new().and_then(batch)).await.map(drop)
    }

    /// Returns etcd's revision of the mark.
    async fn mark(&self, is_restoring: bool, attempt: &str) -> Result<i64> {
        let expected = if is_restoring { CompareOp::Equal } else { CompareOp::Greater };
        let own = Txn::new().when([Compare::version(base::KEY, expected, 0)]).and_then([TxnOp::put(
            base::KEY,
            self.base.value(is_restoring),
            None,
        )]);
        let response = self.etcd.txn(attempt, &Bytes::from_static(base::KEY), own).await?;
        if !response.succeeded() {
            let detail = "somebody else writes to this etcd".to_owned();
            return Err(Error::Open { attempt: attempt.to_owned(), detail });
        }
        Ok(header_number(response.header()))
    }
}
