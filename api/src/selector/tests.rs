//! Selectors against upstream's grammar and wording.

use serde_json::json;

use super::*;

fn matches(selector: &str, labels: serde_json::Value) -> bool {
    LabelSelector::parse(selector).unwrap().matches(labels.as_object())
}

#[test]
fn label_selectors_match() {
    let labels = json!({"app": "web", "tier": "1", "empty": ""});
    for selector in [
        "",
        "app",
        "app=web",
        "app == web",
        "app in (web, db)",
        "app notin (db)",
        "none notin (x)",
        "!none",
        "app!=db",
        "tier>0",
        "tier<2",
        "empty=",
        "empty in (,a)",
        "app=web,tier=1,!none",
        " app = web ",
    ] {
        assert!(matches(selector, labels.clone()), "{selector}");
    }
    for selector in ["none", "app=db", "app in (db)", "app notin (web,db)", "!app", "tier>1", "app>1", "app=web,none"] {
        assert!(!matches(selector, labels.clone()), "{selector}");
    }
}

#[test]
fn words_of_the_grammar_are_values_and_keys_too() {
    assert!(matches("in=notin", json!({"in": "notin"})));
    assert!(matches("a in (in,notin)", json!({"a": "in"})));
}

#[test]
fn refusals_are_worded_as_upstream_words_them() {
    let refused = |text: &str| LabelSelector::parse(text).unwrap_err().0;
    assert_eq!(refused("a in (b"), "unable to parse requirement: found '', expected: ',' or ')'");
    assert_eq!(
        refused("a>abc"),
        "unable to parse requirement: values[0]: Invalid value: \"abc\": for 'Gt', 'Lt' operators, the value must be \
         an integer"
    );
    assert!(refused("-x=1").starts_with("unable to parse requirement: <nil>: Invalid value: \"-x\": name part must"));
    assert_eq!(refused(",a"), "found ',', expected: !, identifier, or 'end of string'");
    assert_eq!(refused("a,"), "found '', expected: identifier after ','");
    assert_eq!(refused("a=b c"), "found 'c', expected: ',' or 'end of string'");
    assert_eq!(refused("a b"), "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
}

#[test]
fn selector_objects_match() {
    let object = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
        {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]});
    let selector = LabelSelector::from_object(Some(&object)).unwrap();
    assert!(selector.matches(json!({"a": "b", "c": "e"}).as_object()));
    assert!(!selector.matches(json!({"a": "b", "c": "e", "f": ""}).as_object()));
    assert!(!LabelSelector::from_object(None).unwrap().matches(json!({}).as_object()));
    assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().matches(None));
    let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
    assert_eq!(
        LabelSelector::from_object(Some(&wrong)).unwrap_err().0,
        "\"Near\" is not a valid label selector operator"
    );
}

#[test]
fn text_round_trips() {
    for text in ["a=b,c in (d,e)", "!x,y!=z", "a>1,b<2", "k"] {
        let parsed = LabelSelector::parse(text).unwrap();
        assert_eq!(LabelSelector::parse(&parsed.to_string()).unwrap(), parsed);
    }
    assert_eq!(LabelSelector::parse("c in (e,d),a=b").unwrap().to_string(), "a=b,c in (d,e)");
}

#[test]
fn field_selectors_match() {
    let lookup = |field: &str| match field {
        "metadata.name" => Some("a"),
        "odd" => Some("x,y=z"),
        _ => None,
    };
    let matches = |text: &str| FieldSelector::parse(text).unwrap().matches_with(lookup);
    assert!(matches("") && matches("metadata.name=a") && matches("metadata.name==a,spec.x!=b"));
    assert!(matches("spec.nodeName=") && matches(r"odd=x\,y\=z"));
    assert!(!matches("metadata.name!=a") && !matches("metadata.name=b"));
    assert_eq!(FieldSelector::parse("x").unwrap_err().0, "invalid selector: 'x'; can't understand 'x'");
    assert_eq!(FieldSelector::parse(r"odd=x\,y").unwrap().to_string(), r"odd=x\,y");
    assert_eq!(FieldSelector::parse("a=b,c!=d").unwrap().required_value("a"), Some("b"));
}
