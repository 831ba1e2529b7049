//! Policies as text of what they let pass.

#![allow(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it must be")]

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::objects::NetworkPolicy;

/// `namespace/name labels address…`
fn pod(text: &str) -> Pod {
    let mut words = text.split(' ');
    let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
    let labels = words.next().unwrap().split(',').filter_map(|label| label.split_once('='));
    let labels = labels.map(|(key, value)| (key.to_owned(), Value::from(value))).collect::<serde_json::Map<_, _>>();
    let ips = words.map(|ip| json!({ "ip": ip })).collect::<Vec<_>>();
    let object = json!({
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "status": {"phase": "Running", "podIPs": ips},
    });
    serde_json::from_value(object).unwrap()
}

fn set_text(set: &Set) -> String {
    let selectors = |pods: &[Selector]| pods.iter().map(Selector::text).collect::<Vec<_>>().join(" or ");
    match &set.members {
        Members::Pods(pods) => format!("pods {}", selectors(pods)),
        Members::Ports { pods, protocol, name } => {
            format!("port {name}/{} of pods {}", protocol.name(), selectors(pods))
        }
        Members::Blocks(ranges) => {
            let ranges = ranges.iter().map(|(first, last)| format!("{first}-{last}"));
            format!("blocks {}", ranges.collect::<Vec<_>>().join(" "))
        }
    }
}

fn check(specs: &[Value], pods: &[&str], expected: Expect) {
    let policy = |spec: &Value| {
        let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        Policy::read(&serde_json::from_value::<NetworkPolicy>(object).unwrap())
    };
    let policies = specs.iter().map(policy).collect::<Vec<_>>();
    let pods = pods.iter().map(|text| pod(text)).collect::<Vec<_>>();
    let plan = plan(&policies, &pods);
    let mut text = String::new();
    let letters = plan.chains.keys().zip('A'..).collect::<BTreeMap<_, _>>();
    for (address, chain) in &plan.ingress {
        text += &format!("to {address}: {}\n", letters[chain]);
    }
    for (address, chain) in &plan.egress {
        text += &format!("from {address}: {}\n", letters[chain]);
    }
    for (name, chain) in &plan.chains {
        text += &format!("{}:\n", letters[name]);
        for rule in &chain.rules {
            let peer = rule.peer.as_ref().map_or("anyone".to_owned(), |set| set_text(&plan.sets[set]));
            let port = match &rule.port {
                Port::Any => "any port".to_owned(),
                Port::In(range) => format!("{} {}-{}", range.protocol.name(), range.first, range.last),
                Port::Named(set) => set_text(&plan.sets[set]),
            };
            text += &format!("  {peer}, {port}\n");
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn deny_by_default_is_a_chain_without_rules() {
    check(
        &[json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})],
        &["n/a app=web 10.0.0.1", "n/b app=db 10.0.0.2 fd00::2", "other/c app=web 10.0.0.3"],
        expect![[r#"
            to 10.0.0.1: C
            to 10.0.0.2: C
            to fd00::2: D
            from 10.0.0.1: A
            from 10.0.0.2: A
            from fd00::2: B
            A:
            B:
            C:
            D:
        "#]],
    );
}

#[test]
fn types_follow_from_the_rules_where_they_are_not_said() {
    let dns = json!([{"ports": [{"port": 53, "protocol": "UDP"}]}]);
    check(
        &[json!({"podSelector": {}}), json!({"podSelector": {"matchLabels": {"app": "web"}}, "egress": dns})],
        &["n/a app=web 10.0.0.1", "n/b app=db 10.0.0.2"],
        expect![[r#"
            to 10.0.0.1: B
            to 10.0.0.2: B
            from 10.0.0.1: A
            A:
              anyone, udp 53-53
            B:
        "#]],
    );
    check(
        &[json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}], "egress": dns})],
        &["n/a app=web 10.0.0.1"],
        expect![[r#"
            from 10.0.0.1: A
            A:
              anyone, udp 53-53
        "#]],
    );
}

#[test]
fn policies_add_up_and_the_widest_isolates_nothing() {
    let from = |labels: Value| json!([{"from": [{"podSelector": {"matchLabels": labels}}]}]);
    check(
        &[
            json!({"podSelector": {}, "ingress": from(json!({"app": "web"}))}),
            json!({"podSelector": {}, "ingress": from(json!({"app": "db"}))}),
            json!({"podSelector": {"matchLabels": {"open": "yes"}}, "ingress": [{}]}),
        ],
        &["n/a app=web 10.0.0.1", "n/b open=yes 10.0.0.2"],
        expect![[r#"
            to 10.0.0.1: A
            A:
              pods in n: app=web, any port
              pods in n: app=db, any port
        "#]],
    );
}

#[test]
fn peers_are_pods_of_here_of_namespaces_or_blocks() {
    let from = json!([
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"team": "a"}}},
        {"namespaceSelector": {"matchExpressions": [{"key": "x", "operator": "In", "values": ["1", "2"]}]},
         "podSelector": {"matchExpressions": [{"key": "y", "operator": "DoesNotExist"}]}},
        {"ipBlock": {"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}},
        {"ipBlock": {"cidr": "fd00::/16"}},
    ]);
    check(
        &[json!({"podSelector": {}, "ingress": [{"from": from}]})],
        &["n/a - 10.0.0.1 fd00::1"],
        expect![[r#"
            to 10.0.0.1: A
            to fd00::1: B
            A:
              blocks 10.0.0.0-10.0.0.0 10.0.0.2-10.0.0.3, any port
              pods in all of team=a:  or in all of x in (1,2): !y or in n: , any port
            B:
              blocks fd00::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff, any port
              pods in all of team=a:  or in all of x in (1,2): !y or in n: , any port
        "#]],
    );
}

#[test]
fn ports_are_numbers_ranges_and_names() {
    let ports = json!([
        {"port": 80}, {"port": 81}, {"port": 100, "endPort": 200}, {"protocol": "SCTP"},
        {"port": "web"}, {"port": "dns", "protocol": "UDP"},
    ]);
    check(
        &[json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}], "ports": ports}],
            "egress": [{"to": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "web"}]},
                       {"ports": [{"port": "web"}]}]})],
        &["n/a app=web 10.0.0.1"],
        expect![[r#"
            to 10.0.0.1: B
            from 10.0.0.1: A
            A:
              anyone, port web/tcp of pods in all of : 
              anyone, port web/tcp of pods in n: 
            B:
              pods in n: , tcp 80-81
              pods in n: , tcp 100-200
              pods in n: , sctp 0-65535
              pods in n: , port dns/udp of pods in n: app=web
              pods in n: , port web/tcp of pods in n: app=web
        "#]],
    );
}

#[test]
fn what_cannot_be_read_allows_nothing() {
    let from = json!([
        {"ipBlock": {"cidr": "10.0.0.0"}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["nonsense"]}},
        {"podSelector": {"matchExpressions": [{"key": "x", "operator": "Like", "values": ["1"]}]}},
        {},
    ]);
    check(
        &[json!({"podSelector": {}, "ingress": [{"from": from}, {"from": from, "ports": [{"protocol": "ICMP"}]}]})],
        &["n/a - 10.0.0.1"],
        expect![[r#"
            to 10.0.0.1: A
            A:
        "#]],
    );
}

#[test]
fn names_tell_what_they_stand_for_and_fit() {
    let one = name("blocks", Family::V4, "x");
    assert_eq!(one, name("blocks", Family::V4, "x"));
    assert_ne!(one, name("blocks", Family::V6, "x"));
    assert!(one.len() <= 31);
}
