//! The etcd engine passes the suite on etcd 3.4, plain and with TLS, and gets over what happens to a cluster: members
//! killed and restarted, no quorum, no space, a restored backup.

#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests, too")]

mod etcd_process;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_process::{Cluster, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use store_client::etcd::{Etcd, Options, Tls};
use store_client::{Error, Event, Range, Revision, Span, Store, WatchStream};

/// Time for a cluster to start and elect a leader, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(cluster: &Cluster, tls: Option<Tls>, request_timeout: Duration) -> Arc<Etcd> {
    let options = Options { endpoints: cluster.endpoints(), tls, request_timeout };
    Arc::new(Etcd::connect(options).await.unwrap())
}

/// A client of a cluster that is up.
async fn ready(cluster: &Cluster, tls: Option<Tls>) -> Arc<Etcd> {
    let store = connect(cluster, tls, PATIENCE).await;
    store.current_revision().await.expect("the cluster starts");
    store
}

fn key(number: usize) -> Bytes {
    format!("/lost/{number:03}").into()
}

/// Writes one key after another from `from` on, until `until` succeed; returns the acknowledged revisions.
/// A create whose outcome was unknown may turn out to exist.
async fn write(store: &Etcd, numbers: std::ops::Range<usize>) -> Vec<Revision> {
    let started = Instant::now();
    let mut written = Vec::new();
    for number in numbers {
        loop {
            assert!(started.elapsed() < PATIENCE, "writes go on in time");
            match store.create(key(number), "v".into()).await {
                Ok(revision) => break written.push(revision),
                Err(Error::Exists { .. }) => {
                    break written.push(store.get(&key(number)).await.unwrap().unwrap().mod_revision);
                }
                Err(Error::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    written
}

async fn collect(watch: &mut WatchStream, count: usize) -> Vec<Revision> {
    let mut seen: Vec<Event> = Vec::new();
    while seen.len() < count {
        let batch = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").unwrap().unwrap();
        seen.extend(batch.events);
    }
    seen.iter().map(|event| event.revision).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let cluster = Cluster::start(1, None, &[]);
    store_client::conformance::run(ready(&cluster, None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_with_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (files, tls) = certificates(directory.path());
    let cluster = Cluster::start(1, Some(files), &[]);
    store_client::conformance::run(ready(&cluster, Some(tls.clone())).await).await;
    let stranger = connect(&cluster, Some(Tls { identity: None, ..tls }), Duration::from_millis(500)).await;
    assert!(matches!(stranger.get(b"/a").await, Err(Error::Unavailable { .. })), "no certificate, no answer");
}

/// A CA with one certificate for etcd and another for us.
fn certificates(directory: &Path) -> (TlsFiles, Tls) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let issue = || {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let ((server, server_key), (client, client_key)) = (issue(), issue());
    let save = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let files = TlsFiles {
        ca: save("ca.crt", &ca.pem()),
        certificate: save("etcd.crt", &server),
        key: save("etcd.key", &server_key),
    };
    (files, Tls { ca: ca.pem().into(), identity: Some((client.into(), client_key.into())) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_a_killed_member() {
    let mut cluster = Cluster::start(1, None, &[]);
    let store = ready(&cluster, None).await;
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch(Span::prefix("/lost/"), start).await.unwrap();
    let mut written = write(&store, 0..20).await;
    let mut seen = collect(&mut watch, 10).await;
    cluster.kill(0);
    let impatient = connect(&cluster, None, Duration::from_millis(300)).await;
    let asked = Instant::now();
    assert!(matches!(impatient.create(key(900), "v".into()).await, Err(Error::Unavailable { .. })));
    assert!(matches!(impatient.range(Range::all()).await, Err(Error::Unavailable { .. })));
    assert!(asked.elapsed() < Duration::from_secs(5), "fails quickly");
    cluster.run(0);
    written.extend(write(&store, 20..40).await);
    seen.extend(collect(&mut watch, 40 - seen.len()).await);
    assert_eq!(seen, written, "nothing lost, nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_may_die() {
    let mut cluster = Cluster::start(3, None, &[]);
    let store = ready(&cluster, None).await;
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch(Span::prefix("/lost/"), start).await.unwrap();
    let mut written = write(&store, 0..10).await;
    // The first member is the one that is asked; whether it leads or not, the others take over.
    cluster.kill(0);
    let busy = connect(&cluster, None, Duration::from_secs(2)).await;
    written.extend(write(&busy, 10..20).await);
    assert_eq!(collect(&mut watch, 20).await, written);
    cluster.kill(1);
    let impatient = connect(&cluster, None, Duration::from_secs(1)).await;
    let asked = Instant::now();
    assert!(matches!(impatient.create(key(900), "v".into()).await, Err(Error::Unavailable { .. })));
    assert!(matches!(impatient.current_revision().await, Err(Error::Unavailable { .. })), "no stale reads");
    assert!(asked.elapsed() < Duration::from_secs(5), "fails quickly without a quorum");
    cluster.run(0);
    let before = *written.last().unwrap();
    let written = write(&busy, 20..30).await;
    // The create without a quorum may have been kept by the survivor and committed later: its outcome was unknown.
    let all = store.range(Range::prefix("/lost/")).await.unwrap();
    let mut expected: Vec<Revision> = all.items.iter().map(|record| record.mod_revision).collect();
    expected.retain(|revision| *revision > before);
    expected.sort();
    assert!(written.iter().all(|revision| expected.contains(revision)));
    assert!(expected.len() <= written.len() + 1, "{expected:?}");
    assert_eq!(collect(&mut watch, expected.len()).await, expected, "nothing lost, nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_forgot_ends_the_watch() {
    let mut cluster = Cluster::start(1, None, &[]);
    let store = ready(&cluster, None).await;
    let start = store.current_revision().await.unwrap();
    let mut watch = store.watch(Span::prefix("/lost/"), start).await.unwrap();
    write(&store, 0..10).await;
    collect(&mut watch, 10).await;
    cluster.kill(0);
    cluster.erase(0);
    cluster.run(0);
    let end = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time");
    assert!(matches!(end, Some(Err(Error::Future { .. }))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_space_is_full() {
    let cluster = Cluster::start(1, None, &["--quota-backend-bytes", "4000000"]);
    let store = ready(&cluster, None).await;
    let error = loop {
        let number = store.current_revision().await.unwrap().0 as usize;
        if let Err(error) = store.create(key(number), vec![b'v'; 500_000].into()).await {
            break error;
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(!store.range(Range::all()).await.unwrap().items.is_empty(), "reads go on");
}

#[tokio::test]
async fn bad_options_are_named() {
    let error = |endpoints: &[&str]| {
        let options = Options::new(endpoints.iter().map(|url| (*url).to_owned()).collect());
        async { Etcd::connect(options).await.map(drop).unwrap_err() }
    };
    assert!(matches!(error(&[]).await, Error::Open { .. }));
    let error = error(&["http://[::bad"]).await;
    assert!(matches!(&error, Error::Open { attempt, .. } if attempt.contains("[::bad")), "{error}");
}
