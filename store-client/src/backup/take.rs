//! Reading everything of a store at one revision, while others write to it.

use std::io::Write;

use super::{Attachment, Error, Header, Summary, Writer};
use crate::embedded::Snapshot;
use crate::{Range, Store};

/// Records per read: bounds the memory of both sides.
const PAGE_RECORDS: usize = 500;

/// Takes a backup of any store, by pages at one revision. Fails with [`crate::Error::Compacted`] when that revision is
/// compacted away meanwhile; the caller may begin again.
pub async fn take<W: Write>(
    store: &dyn Store,
    facts: Vec<(String, String)>,
    attachments: &[Attachment],
    out: W,
) -> Result<(W, Summary), Error> {
    let revision = store.current_revision().await?;
    let mut writer = begin(Header { revision, facts }, attachments, out)?;
    let mut range = Range::all().at(revision).limit(PAGE_RECORDS);
    loop {
        let page = store.range(range.clone()).await?;
        page.items.iter().try_for_each(|record| writer.record(record))?;
        match page.items.last() {
            Some(last) if page.more => range = range.after_key(&last.key),
            Some(_) | None => return writer.finish(),
        }
    }
}

/// Takes a backup of an embedded store's directory, whether a server has it open or not. Blocks.
pub fn take_snapshot<W: Write>(
    snapshot: &Snapshot,
    facts: Vec<(String, String)>,
    attachments: &[Attachment],
    out: W,
) -> Result<(W, Summary), Error> {
    let mut writer = begin(Header { revision: snapshot.revision(), facts }, attachments, out)?;
    for record in snapshot.records() {
        writer.record(&record?)?;
    }
    writer.finish()
}

fn begin<W: Write>(header: Header, attachments: &[Attachment], out: W) -> Result<Writer<W>, Error> {
    let mut writer = Writer::begin(out, header)?;
    attachments.iter().try_for_each(|file| writer.attach(file))?;
    Ok(writer)
}
