//! Tables of rule matching and of what one set of rules lacks to grant another.

use serde_json::json;

use super::*;
use crate::user::User;

fn rule(value: Value) -> Rule {
    Rule::parse(&value)
}

fn asked<'a>(user: &'a User, verb: &'a str, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        user,
        resource_request: true,
        verb,
        group,
        version: "v1",
        resource,
        subresource,
        namespace: "",
        name,
        path: "",
        field_selector: "",
    }
}

#[test]
fn resource_rules_match_as_upstream() {
    let user = User::default();
    let table = [
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "get", "", "pods", "a", true),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "list", "", "pods", "", false),
        (json!({"verbs":["*"],"apiGroups":[""],"resources":["pods"]}), "escalate", "", "pods", "", true),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "get", "apps", "pods", "a", false),
        (json!({"verbs":["get"],"apiGroups":["*"],"resources":["pods"]}), "get", "apps", "pods", "a", true),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"]}), "get", "", "pods/log", "a", false),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods/log"]}), "get", "", "pods/log", "a", true),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["pods/log"]}), "get", "", "pods", "a", false),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["*/log"]}), "get", "", "pods/log", "a", true),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["*/log"]}), "get", "", "pods/logs", "a", false),
        (json!({"verbs":["get"],"apiGroups":[""],"resources":["*"]}), "get", "", "pods/log", "a", true),
        (
            json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}),
            "get",
            "",
            "pods",
            "a",
            true,
        ),
        (
            json!({"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}),
            "get",
            "",
            "pods",
            "b",
            false,
        ),
        (
            json!({"verbs":["create"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}),
            "create",
            "",
            "pods",
            "",
            false,
        ),
        (json!({"verbs":["get"],"nonResourceURLs":["*"]}), "get", "", "pods", "", false),
        (json!({"verbs":["get"],"resources":["pods"]}), "get", "", "pods", "", false),
    ];
    for (value, verb, group, resource, name, wanted) in table {
        let allowed = rule(value.clone()).allows(&asked(&user, verb, group, resource, name));
        assert_eq!(allowed, wanted, "{value} {verb} {group} {resource} {name}");
    }
}

#[test]
fn paths_match_exactly_or_by_trailing_star() {
    let user = User::default();
    let table = [
        ("/healthz", "/healthz", true),
        ("/healthz", "/healthz/ping", false),
        ("/healthz/*", "/healthz/ping", true),
        ("/healthz/*", "/healthz", false),
        ("*", "/anything", true),
        ("/api*", "/apis/apps", true),
        ("/*/x", "/y/x", false),
    ];
    for (pattern, path, wanted) in table {
        let mut asked = asked(&user, "get", "", "", "");
        (asked.resource_request, asked.path) = (false, path);
        let allowed = rule(json!({"verbs":["get"],"nonResourceURLs":[pattern]})).allows(&asked);
        assert_eq!(allowed, wanted, "{pattern} {path}");
    }
}

fn check_missing(held: Value, wanted: Value, expected: &[&str]) {
    let held = Rule::parse_all(&json!({ "rules": held }));
    let wanted = Rule::parse_all(&json!({ "rules": wanted }));
    let texts: Vec<String> = missing(&held, &wanted).iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected);
}

#[test]
fn what_is_held_covers_what_is_granted() {
    let pods = |verbs: Value| json!({"verbs":verbs,"apiGroups":[""],"resources":["pods"]});
    check_missing(json!([pods(json!(["get", "list"]))]), json!([pods(json!(["get"]))]), &[]);
    check_missing(json!([pods(json!(["get"])), pods(json!(["list"]))]), json!([pods(json!(["get", "list"]))]), &[]);
    check_missing(
        json!([pods(json!(["get"]))]),
        json!([pods(json!(["get", "list", "watch"]))]),
        &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#],
    );
    check_missing(json!([pods(json!(["*"]))]), json!([pods(json!(["get"]))]), &[]);
    check_missing(
        json!([pods(json!(["get"]))]),
        json!([pods(json!(["*"]))]),
        &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#],
    );
    check_missing(
        json!([{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"resourceNames":["a"]}]),
        json!([pods(json!(["get"]))]),
        &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#],
    );
    check_missing(
        json!([{"verbs":["get"],"apiGroups":[""],"resources":["*/log"]}]),
        json!([{"verbs":["get"],"apiGroups":[""],"resources":["pods/log"]}]),
        &[],
    );
    check_missing(
        json!([{"verbs":["get"],"nonResourceURLs":["/foo/*"]}]),
        json!([{"verbs":["get"],"nonResourceURLs":["/foo/bar", "/bar"]}]),
        &[r#"{NonResourceURLs:["/bar"], Verbs:["get"]}"#],
    );
}
