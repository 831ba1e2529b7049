//! A backup tells everything it was given, and any change to it is found and named.

use super::format::{self, Kind};
use super::*;
use crate::memory::Memory;
use crate::{Range, Record, Store};

fn record(key: &str, revision: u64) -> Record {
    Record {
        key: key.to_owned().into(),
        value: format!("value of {key}").into(),
        mod_revision: Revision(revision),
        create_revision: Revision(revision),
        version: 1,
    }
}

fn sample() -> Vec<u8> {
    let header = Header { revision: Revision(9), facts: vec![("writer".into(), "a test".into())] };
    let mut writer = Writer::begin(Vec::new(), header).unwrap();
    writer.attach(&Attachment { name: "pki/ca.key".into(), mode: 0o600, content: b"secret".to_vec() }).unwrap();
    for (key, revision) in [("/a", 9), ("/b", 3), ("/c", 5)] {
        writer.record(&record(key, revision)).unwrap();
    }
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!((summary.records, summary.attachments), (3, 1));
    bytes
}

#[test]
fn what_was_written_is_read() {
    let bytes = sample();
    let mut reader = Reader::begin(&bytes[..]).unwrap();
    assert_eq!(reader.header().facts, [("writer".to_owned(), "a test".to_owned())]);
    let mut items = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        items.push(item);
    }
    let file = Attachment { name: "pki/ca.key".into(), mode: 0o600, content: b"secret".to_vec() };
    let records = [("/a", 9), ("/b", 3), ("/c", 5)].map(|(key, revision)| Item::Record(record(key, revision)));
    assert_eq!(items, [vec![Item::Attachment(file)], records.to_vec()].concat());
    assert_eq!(verify(&bytes[..]).unwrap().bytes, bytes.len() as u64);
}

#[test]
fn every_cut_is_found() {
    let bytes = sample();
    for length in 0..bytes.len() {
        match verify(&bytes[..length]) {
            Err(Error::NotABackup) => assert!(length < 17, "{length}"),
            Err(Error::Truncated { at, .. }) => assert!(at as usize <= length),
            other => panic!("cut at {length}: {other:?}"),
        }
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(verify(&longer[..]), Err(Error::Damaged { at, .. }) if at == bytes.len() as u64));
}

#[test]
fn every_flipped_bit_is_found() {
    let bytes = sample();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut other = bytes.clone();
            other[place] ^= 1 << bit;
            let error = verify(&other[..]).expect_err("a changed backup");
            // A changed length may reach behind the end.
            let named = matches!(
                error,
                Error::Damaged { .. } | Error::Truncated { .. } | Error::NotABackup | Error::Format { .. }
            );
            assert!(named, "bit {bit} of byte {place}: {error:?}");
        }
    }
}

#[test]
fn lost_doubled_and_exchanged_frames_are_found() {
    let bytes = sample();
    let record = |key: &str, revision| {
        let mut frame = format::frame(Kind::Record, &format::encode_record(&record(key, revision)));
        frame.extend(crc32fast::hash(&frame).to_le_bytes());
        frame
    };
    let (b, c) = (record("/b", 3), record("/c", 5));
    let at = bytes.windows(b.len()).position(|window| window == b).unwrap();
    let (head, tail) = (&bytes[..at], &bytes[at + b.len() + c.len()..]);
    assert!(verify(&[head, &b, &c, tail].concat()[..]).is_ok());
    for middle in [vec![&b], vec![&b, &b, &c], vec![&c, &b], vec![&b, &b]] {
        let middle = middle.into_iter().flatten().copied().collect::<Vec<_>>();
        let error = verify(&[head, &middle, tail].concat()[..]).expect_err("a changed backup");
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    }
    // Another record of the same size in the place of one, with a checksum of its own.
    let error = verify(&[head, &record("/b", 4), &c, tail].concat()[..]).expect_err("a changed backup");
    assert!(matches!(&error, Error::Damaged { detail, .. } if detail.contains("of the whole")), "{error:?}");
}

#[test]
fn another_format_is_named() {
    let newer = [b"KEELSON BACKUP 2\n", &sample()[17..]].concat();
    let error = verify(&newer[..]).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the backup has format "2", this program reads "1"; use the version that wrote it"#
    );
    assert!(matches!(verify(&b"PK\x03\x04 and so on, and on, and on, and on"[..]), Err(Error::NotABackup)));
}

#[tokio::test]
async fn a_store_is_taken_at_one_revision_page_by_page() {
    let store = Memory::new();
    for number in 0..1234 {
        store.create(format!("/k/{number:04}").into(), "v".into()).await.unwrap();
    }
    let (bytes, summary) = take(&store, Vec::new(), &[], Vec::new()).await.unwrap();
    assert_eq!((summary.records, summary.header.revision), (1234, Revision(1235)));
    let mut reader = Reader::begin(&bytes[..]).unwrap();
    let mut records = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        let Item::Record(record) = item else { panic!("{item:?}") };
        records.push(record);
    }
    assert_eq!(records, store.range(Range::all()).await.unwrap().items);
}

#[test]
fn a_restored_store_counts_from_above_everything_known() {
    assert_eq!(base([Revision(5), Revision(70)]), Revision(1_000_000_070));
    assert_eq!(base([]), Revision(1_000_000_001));
}
