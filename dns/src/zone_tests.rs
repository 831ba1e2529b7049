//! Every kind of name of the specification, and what has none.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn from<T: serde::de::DeserializeOwned>(values: Value) -> Vec<T> {
    serde_json::from_value(values).expect("objects")
}

pub(crate) fn zone() -> Zone {
    let services: Vec<Service> = from(json!([
        { "metadata": { "name": "web", "namespace": "shop" },
          "spec": { "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": [
              { "name": "http", "protocol": "TCP", "port": 80 }, { "name": "dns", "protocol": "UDP", "port": 53 }] } },
        { "metadata": { "name": "db", "namespace": "shop" }, "spec": { "clusterIPs": ["None"] } },
        { "metadata": { "name": "none", "namespace": "shop" }, "spec": { "clusterIPs": ["None"] } },
        { "metadata": { "name": "away", "namespace": "shop" },
          "spec": { "type": "ExternalName", "externalName": "db.example.com" } },
    ]));
    let slices: Vec<EndpointSlice> = from(json!([
        { "metadata": { "name": "db-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "db" } },
          "endpoints": [
              { "addresses": ["10.244.0.5"], "hostname": "db-0" },
              { "addresses": ["10.244.1.6"], "conditions": { "ready": true } },
              { "addresses": ["10.244.1.9"], "hostname": "db-9", "conditions": { "ready": false } }],
          "ports": [{ "name": "sql", "protocol": "TCP", "port": 5432 }] },
        { "metadata": { "name": "db-1", "namespace": "other", "labels": { "kubernetes.io/service-name": "db" } },
          "endpoints": [{ "addresses": ["10.244.7.7"] }], "ports": null },
        { "metadata": { "name": "none-1", "namespace": "shop", "labels": { "kubernetes.io/service-name": "none" } },
          "endpoints": null, "ports": null },
    ]));
    let domain = Name::from_ascii("cluster.local.").expect("a name");
    let services = Snapshot::of(services, &[BY_ADDRESS, BY_SECOND_ADDRESS]);
    Zone::new(domain, Arc::new(services), Arc::new(Snapshot::of(slices, &[BY_SERVICE, NAMED])))
}

fn show(found: Found) -> String {
    match found {
        Found::Records(records) => {
            records.iter().map(|r| format!("{} {r}", r.record_type())).collect::<Vec<_>>().join(", ")
        }
        Found::Alias(name) => format!("-> {name}"),
        other => format!("{other:?}"),
    }
}

fn check(questions: &[(&str, RecordType)], expected: Expect) {
    let zone = zone();
    let mut text = String::new();
    for (name, kind) in questions {
        let full = Name::from_ascii(format!("{name}.cluster.local.").trim_start_matches('.')).expect("a name");
        let labels = zone.labels(&full).expect("a name below the domain");
        text += &format!("{name} {kind}: {}\n", show(zone.lookup(&labels, *kind)));
    }
    expected.assert_eq(&text);
}

use RecordType::{A, AAAA, NS as NameServer, SOA as Soa, SRV as Srv, TXT as Txt};

#[test]
fn services_with_an_address() {
    check(
        &[
            ("web.shop.svc", A),
            ("WEB.Shop.svc", AAAA),
            ("web.shop.svc", Txt),
            ("_http._tcp.web.shop.svc", Srv),
            ("_dns._udp.web.shop.svc", Srv),
            ("_http._udp.web.shop.svc", Srv),
            ("_http._tcp.web.shop.svc", A),
            ("_tcp.web.shop.svc", A),
            ("_sctp.web.shop.svc", A),
            ("web.shop.svc", Srv),
        ],
        expect![[r#"
            web.shop.svc A: A 10.96.0.7
            WEB.Shop.svc AAAA: AAAA fd00::7
            web.shop.svc TXT: NoData
            _http._tcp.web.shop.svc SRV: SRV 0 100 80 web.shop.svc.cluster.local.
            _dns._udp.web.shop.svc SRV: SRV 0 100 53 web.shop.svc.cluster.local.
            _http._udp.web.shop.svc SRV: NoName
            _http._tcp.web.shop.svc A: NoData
            _tcp.web.shop.svc A: NoData
            _sctp.web.shop.svc A: NoName
            web.shop.svc SRV: SRV 0 100 53 web.shop.svc.cluster.local., SRV 0 100 80 web.shop.svc.cluster.local.
        "#]],
    );
}

#[test]
fn headless_services_are_their_ready_endpoints() {
    check(
        &[
            ("db.shop.svc", A),
            ("db.shop.svc", AAAA),
            ("db-0.db.shop.svc", A),
            ("10-244-1-6.db.shop.svc", A),
            ("10-244-0-5.db.shop.svc", A),
            ("db-9.db.shop.svc", A),
            ("_sql._tcp.db.shop.svc", Srv),
            ("none.shop.svc", A),
        ],
        expect![[r#"
            db.shop.svc A: A 10.244.0.5, A 10.244.1.6
            db.shop.svc AAAA: NoData
            db-0.db.shop.svc A: A 10.244.0.5
            10-244-1-6.db.shop.svc A: A 10.244.1.6
            10-244-0-5.db.shop.svc A: NoName
            db-9.db.shop.svc A: NoName
            _sql._tcp.db.shop.svc SRV: SRV 0 100 5432 10-244-1-6.db.shop.svc.cluster.local., SRV 0 100 5432 db-0.db.shop.svc.cluster.local.
            none.shop.svc A: NoData
        "#]],
    );
}

#[test]
fn the_rest_of_the_tree() {
    check(
        &[
            ("away.shop.svc", A),
            ("x.away.shop.svc", A),
            ("nothing.shop.svc", A),
            ("web.nowhere.svc", A),
            ("shop.svc", A),
            ("nowhere.svc", A),
            ("svc", A),
            ("10-244-0-5.shop.pod", A),
            ("fd00--5.shop.pod", AAAA),
            ("web.shop.pod", A),
            ("dns-version", Txt),
            ("", Soa),
            ("", NameServer),
            ("example", A),
        ],
        expect![[r#"
            away.shop.svc A: -> db.example.com.
            x.away.shop.svc A: NoName
            nothing.shop.svc A: NoName
            web.nowhere.svc A: NoName
            shop.svc A: NoData
            nowhere.svc A: NoName
            svc A: NoData
            10-244-0-5.shop.pod A: A 10.244.0.5
            fd00--5.shop.pod AAAA: AAAA fd00::5
            web.shop.pod A: NoName
            dns-version TXT: TXT 1.1.0
             SOA: SOA ns.dns.cluster.local. hostmaster.cluster.local. 0 7200 1800 86400 5
             NS: NS ns.dns.cluster.local.
            example A: NoName
        "#]],
    );
}

#[test]
fn addresses_have_names() {
    let names = |address: &str| {
        let names = zone().reverse(address.parse().expect("an address"));
        names.iter().map(Name::to_ascii).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("10.96.0.7"), "web.shop.svc.cluster.local.");
    assert_eq!(names("fd00::7"), "web.shop.svc.cluster.local.");
    assert_eq!(names("10.244.0.5"), "db-0.db.shop.svc.cluster.local.");
    assert_eq!(names("10.244.1.6"), "", "an endpoint without a host name has none");
    assert_eq!(names("10.244.1.9"), "", "not ready");
}

#[test]
fn names_outside_are_not_ours() {
    let outside = Name::from_ascii("xcluster.local.").expect("a name");
    assert_eq!(zone().labels(&outside), None);
}
