//! Key material on disk: modes, reuse, re-issue, refusal of what does not belong together.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::certificate::Facts;
use super::*;

const DAY: i64 = 24 * 60 * 60;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn names(extra: &[&str]) -> Names {
    Names {
        cluster_domain: "cluster.local".into(),
        service_address: Some("10.96.0.1".parse().unwrap()),
        extra: extra.iter().map(|s| (*s).to_owned()).collect(),
        lifetime: None,
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_are_private_and_the_directory_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("data/pki");
    Cluster::load_or_create(&pki, &names(&[]), at(0)).unwrap();
    assert_eq!(mode(&pki), 0o700);
    for entry in std::fs::read_dir(&pki).unwrap() {
        let path = entry.unwrap().path();
        let wanted = if path.extension().unwrap() == "key" { 0o600 } else { 0o644 };
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
}

#[test]
fn a_second_start_finds_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cluster::load_or_create(dir.path(), &names(&["node1"]), at(0)).unwrap();
    let second = Cluster::load_or_create(dir.path(), &names(&["node1"]), at(DAY)).unwrap();
    assert_eq!(first.authority.certificate_pem(), second.authority.certificate_pem());
    assert_eq!(first.serving.get().certificate_pem, second.serving.get().certificate_pem);
    assert_eq!(first.admin.get().key_pem, second.admin.get().key_pem);
    assert_eq!(first.token_key_pem, second.token_key_pem);
}

#[test]
fn certificates_follow_names_and_time_and_the_authority_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cluster::load_or_create(dir.path(), &names(&[]), at(0)).unwrap();
    let renamed = Cluster::load_or_create(dir.path(), &names(&["192.0.2.7"]), at(DAY)).unwrap();
    assert_ne!(first.serving.get().certificate_pem, renamed.serving.get().certificate_pem);
    assert_eq!(
        first.admin.get().certificate_pem,
        renamed.admin.get().certificate_pem,
        "only the serving names changed"
    );
    let facts = Facts::of_pem(&renamed.serving.get().certificate_pem).unwrap();
    for name in ["10.96.0.1", "192.0.2.7", "kubernetes.default.svc.cluster.local", "127.0.0.1", "localhost"] {
        assert!(facts.names.iter().any(|n| n == name), "{name} missing in {:?}", facts.names);
    }
    let old = Cluster::load_or_create(dir.path(), &names(&["192.0.2.7"]), at(330 * DAY)).unwrap();
    assert_ne!(old.serving.get().certificate_pem, renamed.serving.get().certificate_pem);
    assert_ne!(old.admin.get().certificate_pem, first.admin.get().certificate_pem);
    assert_eq!(old.authority.certificate_pem(), first.authority.certificate_pem());
}

#[test]
fn a_running_server_renews_what_nears_its_end_and_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let short = Names { lifetime: Some(Duration::from_secs(100)), ..names(&[]) };
    let cluster = Cluster::load_or_create(dir.path(), &short, at(0)).unwrap();
    let node = cluster.node_serving("n1", &["192.0.2.7".to_owned()], at(0)).unwrap();
    let (serving, admin) = (cluster.serving.get(), cluster.admin.get());
    let shown = |kept: &Kept| kept.shown().get().unwrap().cert[0].clone();
    let first = shown(&cluster.serving);
    assert!(!cluster.renew(at(70)).unwrap(), "too early");
    assert!(cluster.renew(at(85)).unwrap());
    assert_ne!(cluster.serving.get().certificate_pem, serving.certificate_pem);
    assert_ne!(cluster.admin.get().certificate_pem, admin.certificate_pem);
    assert_ne!(shown(&cluster.serving), first);
    let on_disk = std::fs::read_to_string(dir.path().join("node-n1-serving.crt")).unwrap();
    assert_ne!(on_disk, node.certificate_pem);
    assert!(!cluster.renew(at(90)).unwrap(), "all are new");
}

#[test]
fn a_foreign_certificate_in_our_place_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    Cluster::load_or_create(dir.path(), &names(&[]), at(0)).unwrap();
    let foreign = Authority::ephemeral("kubernetes", at(0)).unwrap();
    let validity = Validity { now: at(0), lifetime: Duration::from_secs(365 * 86400) };
    let admin = foreign.issue_client(&Subject::new("kubernetes-admin", "system:masters"), validity).unwrap();
    std::fs::write(dir.path().join("admin.crt"), &admin.certificate_pem).unwrap();
    std::fs::write(dir.path().join("admin.key"), &admin.key_pem).unwrap();
    let again = Cluster::load_or_create(dir.path(), &names(&[]), at(DAY)).unwrap();
    assert_ne!(again.admin.get().certificate_pem, admin.certificate_pem);
}

#[test]
fn a_lost_authority_key_is_an_error_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let first = Cluster::load_or_create(dir.path(), &names(&[]), at(0)).unwrap();
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = Cluster::load_or_create(dir.path(), &names(&[]), at(0)).unwrap_err();
    assert!(matches!(error, Error::Unusable { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(dir.path().join("ca.crt")).unwrap(), first.authority.certificate_pem());
}

#[test]
fn certificates_carry_what_go_writes() {
    let authority = Authority::ephemeral("kubernetes", at(0)).unwrap();
    let validity = Validity { now: at(0), lifetime: Duration::from_secs(3600) };
    let client = authority.issue_client(&Subject::new("jane", "dev"), validity).unwrap();
    let chain = client.chain().unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
    assert!(!usage.value.key_cert_sign());
    assert!(certificate.extended_key_usage().unwrap().unwrap().value.client_auth);
    assert!(certificate.basic_constraints().unwrap().unwrap().critical);
    let issuer = Facts::of_der(authority.certificate()).unwrap();
    let facts = Facts::of_der(&chain[0]).unwrap();
    assert_eq!(facts.authority_key_id, issuer.subject_key_id);
    assert!(!facts.subject_key_id.is_empty());
    assert_eq!(facts.subject, Subject::new("jane", "dev"));
}
