//! Forged, altered, expired and orphaned tokens are refused; good ones yield upstream's user.

use std::collections::HashMap;

use super::*;
use crate::pki::{Cluster, Names};

const NOW: i64 = 1_800_000_000;

#[derive(Default)]
struct Fixed(HashMap<String, Known>);

impl Fixed {
    fn with(mut self, resource: &str, namespace: &str, name: &str, uid: &str, deleted_at: Option<i64>) -> Self {
        self.0.insert(format!("{resource}/{namespace}/{name}"), Known { uid: uid.into(), deleted_at });
        self
    }
}

impl Objects for Fixed {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Known> {
        self.0.get(&format!("{resource}/{namespace}/{name}")).cloned()
    }
}

fn issuer() -> Issuer {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::load_or_create(dir.path(), &Names::default(), jiff::Timestamp::UNIX_EPOCH).unwrap();
    Issuer::new("https://kubernetes.default.svc.cluster.local", &cluster.token_key_pem).unwrap()
}

fn reference(name: &str, uid: &str) -> Option<Reference> {
    Some(Reference { name: name.into(), uid: uid.into() })
}

fn claims() -> Claims {
    Claims {
        aud: vec!["api".into()],
        exp: NOW + 3600,
        iat: NOW,
        iss: "https://kubernetes.default.svc.cluster.local".into(),
        jti: "id-1".into(),
        binding: Binding {
            namespace: "ns".into(),
            pod: reference("p", "pod-uid"),
            node: reference("n", "node-uid"),
            serviceaccount: reference("bot", "sa-uid").unwrap(),
            ..Binding::default()
        },
        nbf: NOW,
        sub: "system:serviceaccount:ns:bot".into(),
    }
}

fn world() -> Fixed {
    Fixed::default().with("serviceaccounts", "ns", "bot", "sa-uid", None).with("pods", "ns", "p", "pod-uid", None)
}

#[test]
fn a_signed_token_verifies_and_names_its_user() {
    let issuer = issuer();
    let token = issuer.sign(&claims()).unwrap();
    let read = issuer.verify(&token).unwrap();
    assert_eq!(read, claims());
    assert_eq!(read.check(NOW + 10, &world()), Ok(()));
    let user = read.user();
    assert_eq!(user.name, "system:serviceaccount:ns:bot");
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], ["JTI=id-1"]);
    assert_eq!(user.extra["authentication.kubernetes.io/pod-uid"], ["pod-uid"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-name"], ["n"]);
}

#[test]
fn forged_and_altered_tokens_are_refused() {
    let (ours, theirs) = (issuer(), issuer());
    let foreign = theirs.sign(&claims()).unwrap();
    assert_eq!(ours.verify(&foreign), Err(Error::UnknownKey));

    let parts: Vec<&str> = foreign.split('.').collect();
    let good = ours.sign(&claims()).unwrap();
    let own: Vec<&str> = good.split('.').collect();
    assert_eq!(ours.verify(&format!("{}.{}.{}", own[0], own[1], parts[2])), Err(Error::Signature));

    let mut elevated = claims();
    elevated.binding.serviceaccount.name = "admin".into();
    let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&elevated).unwrap());
    assert_eq!(ours.verify(&format!("{}.{body}.{}", own[0], own[2])), Err(Error::Signature));

    for algorithm in ["none", "HS256", "RS256"] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
        let forged = ours.verify(&format!("{header}.{}.{}", own[1], own[2]));
        assert!(matches!(forged, Err(Error::Signature | Error::NotOurs)), "{algorithm}: {forged:?}");
        let empty = ours.verify(&format!("{header}.{}.", own[1]));
        assert!(matches!(empty, Err(Error::Signature | Error::NotOurs)), "{algorithm}: {empty:?}");
    }
}

#[test]
fn other_text_is_left_to_other_authenticators() {
    let ours = issuer();
    let mut other = claims();
    other.iss = "https://elsewhere".into();
    let elsewhere = ours.sign(&other).unwrap();
    for token in ["", "x", "a.b", "a.b.c", "a.b.c.d", "abcdef.0123456789abcdef", &elsewhere, &"x".repeat(100_000)] {
        assert_eq!(ours.verify(token), Err(Error::NotOurs), "{token:.40}");
    }
}

#[test]
fn time_bounds_hold_with_a_minute_of_leeway_and_a_day_for_clocks_set_back() {
    let claims = claims();
    let table = [
        (NOW, Ok(())),
        (NOW - 3600, Ok(())),
        (NOW - 24 * 3600, Ok(())),
        (NOW - 24 * 3600 - 1, Err(Error::NotYetValid)),
        (NOW + 3600 + 60, Ok(())),
        (NOW + 3600 + 61, Err(Error::Expired)),
    ];
    for (now, wanted) in table {
        assert_eq!(claims.check(now, &world()), wanted, "{now}");
    }
}

#[test]
fn a_token_dies_with_what_it_is_bound_to() {
    let account = || Fixed::default().with("serviceaccounts", "ns", "bot", "sa-uid", None);
    let check = |world: Fixed| claims().check(NOW, &world);
    assert!(matches!(check(Fixed::default()), Err(Error::NoAccount(_))));
    assert_eq!(check(account()), Err(Error::Invalidated));
    let replaced = Fixed::default().with("serviceaccounts", "ns", "bot", "other", None);
    assert!(matches!(check(replaced), Err(Error::AccountReplaced { .. })));
    assert!(matches!(check(account().with("pods", "ns", "p", "other", None)), Err(Error::ObjectReplaced { .. })));
    assert_eq!(check(account().with("pods", "ns", "p", "pod-uid", Some(NOW - 30))), Ok(()));
    assert_eq!(check(account().with("pods", "ns", "p", "pod-uid", Some(NOW - 90))), Err(Error::Invalidated));
    let deleted = world().with("serviceaccounts", "ns", "bot", "sa-uid", Some(NOW - 90));
    assert!(matches!(check(deleted), Err(Error::AccountDeleted(_))));
}

#[test]
fn audiences_must_meet() {
    let claims = claims();
    let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    assert_eq!(claims.audiences(&list(&["api", "x"]), &[]), Ok(list(&["api"])));
    let refused = claims.audiences(&list(&["zzz"]), &[]).unwrap_err().to_string();
    assert_eq!(refused, r#"token audiences ["api"] is invalid for the target audiences ["zzz"]"#);
}
