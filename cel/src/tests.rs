//! Expressions with the values, errors and costs they have.

use serde_json::json;

use crate::{Budget, Env, Error, Key, RULE_COST_MAX, Scope, Type, Value, schema};

fn evaluate(source: &str) -> Result<Value, Error> {
    let program = Env::default().compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    program.evaluate(&Scope::new(&[]), &mut Budget::new(RULE_COST_MAX))
}

fn wrong(source: &str) -> String {
    Env::default().compile(source).expect_err(source).to_string()
}

/// All of them hold.
fn hold(sources: &[&str]) {
    for source in sources {
        assert_eq!(evaluate(source), Ok(Value::Bool(true)), "{source}");
    }
}

#[test]
fn operators() {
    hold(&[
        "1 + 2 * 3 == 7",
        "-7 / 2 == -3 && -7 % 2 == -1",
        "dyn(1) == 1.0 && dyn(1u) == 1 && 2 > 1.5",
        "!(1 > 2) || false",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab'",
        "[1, 2] + [3] == [1, 2, 3]",
        "2 in [1, 2] && 'k' in {'k': 1} && !(3 in [1])",
        "true ? 1 == 1 : 1 / 0 == 0",
        "{'a': {'b': [1]}}.a.b[0] == 1",
        "r'\\d' == '\\\\d' && \"\"\"a\nb\"\"\" == 'a\\nb'",
        "0x10 == 16 && 1e3 == 1000.0 && .5 == 0.5",
        "-9223372036854775808 < 0",
        "true || 1 / 0 > 0",
        "1 / 0 > 0 || true",
        "!(1 / 0 > 0 && false)",
        "type(1) == int && type('') == string && type([]) == list && type(type(1)) == type",
        "// a comment\n 1 == 1",
    ]);
    assert_eq!(evaluate("9223372036854775807 + 1"), Err(Error::other("integer overflow")));
    assert_eq!(evaluate("1 / 0"), Err(Error::other("division by zero")));
    assert_eq!(evaluate("{'a': 1}.b"), Err(Error::NoSuchKey("b".into())));
    assert_eq!(evaluate("[1][1]"), Err(Error::other("index out of bounds: 1")));
}

#[test]
fn macros() {
    hold(&[
        "[1, 2].all(x, x > 0) && [1, 2].exists(x, x == 2) && [1, 2].exists_one(x, x == 2)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1}.all(k, k == 'a') && has({'a': 1}.a) && !has({'a': 1}.b)",
        "[1, 2].all(i, v, v == i + 1)",
        "{'a': 1, 'b': 2}.transformList(k, v, v > 1, k) == ['b']",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "['a'].transformMapEntry(i, v, {v: i}) == {'a': 0}",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1]",
        "[[1], [2]].map(l, l.map(x, x + 1)) == [[2], [3]]",
        // One turn that decides outweighs errors of others.
        "[0, 1].exists(x, 1 / x == 1)",
    ]);
    assert_eq!(evaluate("[0, 1].all(x, 1 / x == 1)"), Err(Error::other("division by zero")));
}

#[test]
fn optionals() {
    hold(&[
        "{'a': 1}[?'a'].orValue(0) == 1 && {'a': 1}[?'b'].orValue(0) == 0",
        "{'a': {'b': 1}}.?a.?b.hasValue() && !{'a': {'b': 1}}.?c.b.hasValue()",
        "optional.of(1).optMap(x, x + 1).value() == 2",
        "optional.none().or(optional.of(2)).value() == 2",
        "[?optional.none(), ?optional.of(1)] == [1]",
        "{?'a': optional.none(), 'b': 1} == {'b': 1}",
        "optional.ofNonZeroValue('') == optional.none()",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2",
    ]);
}

#[test]
fn texts_lists_and_sets() {
    hold(&[
        "'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')",
        "'hello'.matches('^h.*o$') && 'HeLLo'.matches('(?i)^hello$')",
        "'tacocat'.indexOf('ac') == 1 && 'tacocat'.lastIndexOf('at') == 5 && 'abc'.charAt(1) == 'b'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
        "'hello hello'.replace('he', 'we') == 'wello wello' && 'aa'.replace('a', 'b', 1) == 'ba'",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "['a', 'b'].join('-') == 'a-b' && ' x '.trim() == 'x' && 'Ab'.lowerAscii() == 'ab'",
        "'%s is %d, %.2f'.format([dyn('x'), dyn(3), dyn(1.5)]) == 'x is 3, 1.50' && '%x'.format([255]) == 'ff'",
        "size('héllo') == 5 && 'abc 123'.find('[0-9]+') == '123' && '1 2'.findAll('[0-9]') == ['1', '2']",
        "[1, 2, 3].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && [1, 2, 1].lastIndexOf(1) == 2",
        "[1, 2, 2].distinct() == [1, 2] && [2, 1].sort() == [1, 2] && [[1], [2]].flatten() == [1, 2]",
        "lists.range(3) == [0, 1, 2] && [1, 2, 3].slice(1, 2) == [2] && [1, 2].reverse() == [2, 1]",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1]) && !sets.intersects([1], [2])",
        "string(1.0) == '1' && string(1.5e30) == '1.5e+30' && int('3') == 3 && double(2) == 2.0",
    ]);
}

#[test]
fn libraries_of_kubernetes() {
    hold(&[
        "quantity('1Gi').isGreaterThan(quantity('1000Mi')) && quantity('50k').asInteger() == 50000",
        "quantity('1').add(quantity('500m')) == quantity('1500m') && !isQuantity('1x')",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && !isIP('::ffff:1.2.3.4')",
        "cidr('192.168.0.0/16').containsIP('192.168.1.1') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24') && cidr('10.0.0.0/8').prefixLength() == 8",
        "url('https://example.com:80/path?k=a&k=b').getPort() == '80' && isURL('/x') && !isURL('../x')",
        "url('https://example.com/?k=a&k=b').getQuery()['k'] == ['a', 'b']",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.0', true) && !isSemver('v1.0')",
        "semver('1.0.0-alpha').compareTo(semver('1.0.0')) == -1",
        "!format.dns1123Label().validate('ok').hasValue() && format.named('dns1123Label').value().validate('No').hasValue()",
        "timestamp('2023-08-01T10:30:00Z').getHours() == 10 && timestamp('2023-08-01T10:30:00Z').getMonth() == 7",
        "timestamp('2023-08-01T10:30:00Z').getHours('+02:00') == 12",
        "duration('1h30m') > duration('89m') && duration('90s').getMinutes() == 1",
        "timestamp('2023-01-01T00:00:00Z') + duration('24h') == timestamp('2023-01-02T00:00:00Z')",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
    ]);
}

#[test]
fn wrong_expressions_are_told_where() {
    assert_eq!(
        wrong("1 + foo"),
        "ERROR: <input>:1:5: undeclared reference to 'foo' (in container '')\n | 1 + foo\n | ....^"
    );
    assert!(wrong("1 + 'a'").contains("1:3: found no matching overload for '_+_' applied to '(int, string)'"));
    assert!(wrong("self = 42").contains("Syntax error: token recognition error at: '= '"));
    assert!(wrong("[1, 'a']").contains("expected type 'int' but found 'string'"));
    assert!(wrong("1.foo()").contains("undeclared reference to 'foo'"));
    assert!(wrong("'a'.matches('(')").contains("invalid matches argument"));
    assert!(wrong("1 +").contains("Syntax error: mismatched input '<EOF>'"));
    assert!(wrong("").contains("Syntax error"));
    assert!(wrong("'a'.b").contains("type 'string' does not support field selection"));
    assert!(wrong("1 == 1\n&& x").contains("<input>:2:4"));
}

#[test]
fn hostile_expressions_cost_little() {
    assert!(wrong(&"(".repeat(50_000)).contains("recursion limit"));
    assert!(wrong(&format!("{}1", "!".repeat(50_000))).contains("recursion limit"));
    assert!(wrong(&format!("1{}", "+1".repeat(40_000))).contains("recursion limit"));
    assert!(wrong(&"[".repeat(1000)).contains("recursion limit"));
    assert!(wrong(&"a".repeat(200_000)).contains("code point size exceeds limit"));
    // Long chains are fine where the tree is balanced.
    assert_eq!(evaluate(&format!("true{}", " && true".repeat(5000))), Ok(Value::Bool(true)));
    let ranges = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, true)))";
    assert_eq!(evaluate(ranges), Err(Error::CostExceeded));
    assert_eq!(evaluate("lists.range(1000000000)"), Err(Error::CostExceeded));
}

#[test]
fn schemas_give_types_and_values() {
    let schema = json!({"type": "object", "properties": {
        "n": {"type": "number"}, "when": {"type": "string", "format": "date-time"},
        "a-b": {"type": "integer"}, "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "port": {"x-kubernetes-int-or-string": true},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
    }});
    let ty = schema::type_of(&schema, true).expect("an object");
    let env = Env::default().with("self", ty);
    let data = json!({"n": 1, "when": "2023-08-01T10:30:00Z", "a-b": 2, "set": ["x", "y"], "port": "50%", "map": {"k": 3},
        "metadata": {"name": "m"}, "unknown": 1});
    let value = schema::value_of(&data, &schema, true);
    let holds = |source: &str| {
        let program = env.compile(source).unwrap_or_else(|error| panic!("{error}"));
        let names = [("self", &value)];
        assert_eq!(program.evaluate(&Scope::new(&names), &mut Budget::new(1000)), Ok(Value::Bool(true)), "{source}");
    };
    holds("self.n + 0.5 == 1.5 && self.a__dash__b == 2 && self.when.getFullYear() == 2023");
    holds("self.set == ['y', 'x'] && self.set + ['x'] == self.set && self.map['k'] == 3 && self.map.k == 3");
    holds("type(self.port) == string && self.port.endsWith('%') && self.metadata.name == 'm'");
    assert!(
        env.compile("self.unknown == 1")
            .expect_err("not in the schema")
            .to_string()
            .contains("undefined field 'unknown'")
    );
    assert!(env.compile("self.n == 'x'").expect_err("types differ").to_string().contains("(double, string)"));
}

#[test]
fn costs_are_estimated_from_sizes() {
    let cost = |schema: serde_json::Value, source: &str| {
        let ty = schema::type_of(&schema, false).expect("a type");
        Env::default().with("self", ty).compile(source).expect("it compiles").estimate().max
    };
    let list = |max: u64| json!({"type": "array", "maxItems": max, "items": {"type": "integer"}});
    assert!(cost(list(725), "self.all(x, self.all(y, y == x))") < 10_000_000);
    assert!(cost(list(7250), "self.all(x, self.all(y, y == x))") > 10_000_000);
    let unbounded = json!({"type": "array", "items": {"type": "string"}});
    assert!(cost(unbounded, "self.all(s, s == 'string constant')") > 1_000_000);
}

#[test]
fn a_missing_key_may_have_a_default() {
    let map = crate::Map { default: Some(Value::map([])), ..crate::Map::default() };
    let device = Value::map([(Key::from("attributes"), Value::Map(std::sync::Arc::new(map)))]);
    let env = Env::default().with("device", Type::Dyn);
    let program = env.compile("has(device.attributes['x'].y) || device.attributes['x'].y == 1").unwrap();
    let result = program.evaluate(&Scope::new(&[("device", &device)]), &mut Budget::new(1000));
    assert_eq!(result, Err(Error::NoSuchKey("y".into())));
}
