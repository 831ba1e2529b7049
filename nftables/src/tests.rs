//! What the encoder says, as `nft` understands it: each test in a network namespace of its own.

use std::process::Command;

use serde_json::{Value as Json, json};

use crate::*;

const R: Register = Register(0);
const TABLE: Table<'static> = Table { family: Family::Ip, name: "t" };
const TABLE6: Table<'static> = Table { family: Family::Ip6, name: "t6" };

/// Runs the test in a network namespace of its own: netfilter's state belongs to one.
fn in_namespace<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace needs root");
            test()
        });
        thread.join().expect("the test's thread")
    })
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().expect("the program nft");
    assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What `nft` lists, without its own heading.
fn listed() -> Vec<Json> {
    let all: Json = serde_json::from_str(&nft(&["-j", "list", "ruleset"])).expect("JSON");
    let all = all["nftables"].as_array().expect("a list").iter();
    all.filter(|one| one.get("metainfo").is_none()).cloned().collect()
}

fn commit(fill: impl FnOnce(&mut Batch)) -> Result<(), Error> {
    let mut batch = Batch::new();
    fill(&mut batch);
    Socket::open()?.commit(&mut batch)
}

fn address(text: &str) -> Value {
    Value::new().address(text.parse().unwrap())
}

/// One chain with these rules, as `nft` spells them.
fn spelled(table: Table<'_>, sets: &[Set], rules: Vec<Vec<Expr>>) -> Vec<String> {
    in_namespace(|| {
        commit(|batch| {
            batch.add_table(table, None);
            batch.add_chain(table, &Chain::new("other"));
            batch.add_chain(table, &Chain::base("c", "nat", Hook::Prerouting, -100));
            sets.iter().for_each(|set| batch.add_set(table, set));
            rules.into_iter().for_each(|rule| batch.add_rule(table, &Rule::new("c", rule)));
        })
        .unwrap();
        let family = if table.family == Family::Ip6 { "ip6" } else { "ip" };
        let text = nft(&["-s", "list", "chain", family, table.name, "c"]);
        let lines = text.lines().map(str::trim).filter(|l| !l.starts_with(['t', '}']) || l.starts_with("th "));
        lines.filter(|l| !l.starts_with("chain ")).map(ToOwned::to_owned).collect()
    })
}

#[test]
fn a_table_a_chain_and_a_rule_are_listed() {
    in_namespace(|| {
        commit(|batch| {
            batch.add_table(TABLE, Some("of the test"));
            batch.add_chain(TABLE, &Chain { drops: true, ..Chain::base("in", "filter", Hook::Input, -7) });
            let rule = [is_new(R), vec![Expr::Counter, Expr::Verdict(Verdict::Accept)]].concat();
            batch.add_rule(TABLE, &Rule::new("in", rule).with_comment("new ones"));
        })
        .unwrap();
        let all = listed();
        assert_eq!(all[0]["table"]["name"], "t");
        let chain = &all[1]["chain"];
        assert_eq!(
            (&chain["type"], &chain["hook"], &chain["prio"], &chain["policy"]),
            (&json!("filter"), &json!("input"), &json!(-7), &json!("drop"))
        );
        let rule = &all[2]["rule"];
        assert_eq!(rule["comment"], "new ones");
        assert_eq!(
            rule["expr"],
            json!([
                { "match": { "op": "in", "left": { "ct": { "key": "state" } }, "right": "new" } },
                { "counter": { "packets": 0, "bytes": 0 } },
                { "accept": null },
            ])
        );
        let mut socket = Socket::open().unwrap();
        assert_eq!(socket.table(TABLE).unwrap().unwrap().comment.as_deref(), Some("of the test"));
        assert_eq!(socket.chains(TABLE).unwrap(), [FoundChain { name: "in".into(), base: Some((1, -7)) }]);
        let rules = socket.rules(TABLE).unwrap();
        assert_eq!(rules[0].comment.as_deref(), Some("new ones"));
        assert_eq!(rules[0].expressions, ["ct", "bitwise", "cmp", "counter", "immediate"]);
    });
}

#[test]
fn expressions_are_what_nft_would_write() {
    let service = [Type::Ipv4, Type::Protocol, Type::Port];
    let sets = [
        Set::new("banned", &[Type::Ipv4]),
        Set::map("backends", &service, &[Type::Ipv4, Type::Port]),
        Set::verdicts("kinds", &service),
        Set::map("seen", &[Type::Ipv4], &[Type::Ipv4, Type::Port]).dynamic(100),
        Set::new("clients", &[Type::Ipv4]).dynamic(100),
    ];
    let key = || vec![destination_address(Family::Ip, R), l4proto(R.plus(1)), destination_port(R.plus(2))];
    let rules = vec![
        vec![source_address(Family::Ip, R), Expr::lookup("banned", R), Expr::Verdict(Verdict::Drop)],
        [key(), vec![Expr::VerdictMap { map: "kinds".into(), from: R }]].concat(),
        [
            key(),
            vec![
                Expr::load("backends", R, R.plus(4)),
                Expr::Nat { kind: Nat::Destination, family: Family::Ip, address: R.plus(4), port: Some(R.plus(5)) },
            ],
        ]
        .concat(),
        [Meta::Mark.has(0x4000, R), set_mark_bits(0x4000, false, R)].concat(),
        vec![
            Expr::FibType { of: FibOf::Destination, to: R },
            equals(R, 2_u32.to_ne_bytes()),
            Expr::Verdict(Verdict::Goto("other".into())),
        ],
        vec![
            source_address(Family::Ip, R),
            Expr::Dynset { set: "clients".into(), op: DynsetOp::Update, key: R, data: None, timeout_ms: Some(5_000) },
            Expr::Verdict(Verdict::Jump("other".into())),
        ],
        [
            vec![source_address(Family::Ip, R)],
            in_range(R, "10.244.0.0".parse().unwrap(), 16, false, R.plus(4)),
            set_mark_bits(0x4000, true, R),
        ]
        .concat(),
    ];
    assert_eq!(
        spelled(TABLE, &sets, rules),
        [
            "ip saddr @banned drop",
            "ip daddr . meta l4proto . th dport vmap @kinds",
            "dnat ip to ip daddr . meta l4proto . th dport map @backends",
            "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark & 0xffffbfff",
            "fib daddr type local goto other",
            "update @clients { ip saddr timeout 5s } jump other",
            "ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000",
        ]
    );
}

#[test]
fn version_6_has_longer_addresses() {
    let sets = [Set::map("backends", &[Type::Ipv6, Type::Protocol, Type::Port], &[Type::Ipv6, Type::Port])];
    let rule = vec![
        destination_address(Family::Ip6, R),
        l4proto(R.plus(4)),
        destination_port(R.plus(5)),
        Expr::load("backends", R, R.plus(6)),
        Expr::Nat { kind: Nat::Destination, family: Family::Ip6, address: R.plus(6), port: Some(R.plus(10)) },
    ];
    assert_eq!(spelled(TABLE6, &sets, vec![rule]), ["dnat ip6 to ip6 daddr . meta l4proto . th dport map @backends"]);
}

#[test]
fn elements_are_added_deleted_and_read_back() {
    in_namespace(|| {
        let key = |port| address("10.96.0.1").protocol(6).port(port);
        let backend = |port| address("10.244.0.7").port(port);
        let in_seconds = Element { timeout_ms: Some(60_000), ..Element::new(address("192.0.2.1")) };
        commit(|batch| {
            batch.add_table(TABLE, None);
            batch.add_chain(TABLE, &Chain::new("there"));
            let service = [Type::Ipv4, Type::Protocol, Type::Port];
            batch.add_set(TABLE, &Set::map("services", &service, &[Type::Ipv4, Type::Port]));
            batch.add_set(TABLE, &Set::verdicts("kinds", &[Type::Mark]));
            batch.add_set(TABLE, &Set::new("fading", &[Type::Ipv4]).timeout_ms(1_000_000));
            let services = [80, 443].map(|port| Element::with_data(key(port), backend(port + 8000)));
            batch.add_elements(TABLE, "services", &services);
            let kinds = [(1, Verdict::Goto("there".into())), (2, Verdict::Drop)];
            let kinds = kinds.map(|(kind, verdict)| Element::with_verdict(Value::new().number(kind), verdict));
            batch.add_elements(TABLE, "kinds", kinds);
            batch.add_elements(TABLE, "fading", [&in_seconds]);
        })
        .unwrap();
        let text = nft(&["list", "table", "ip", "t"]);
        assert!(text.contains("10.96.0.1 . tcp . 80 : 10.244.0.7 . 8080"), "{text}");
        assert!(text.contains("0x00000001 : goto there") && text.contains("0x00000002 : drop"), "{text}");
        assert!(text.contains("192.0.2.1 timeout 1m"), "{text}");

        let replaced = Element::with_data(key(80), backend(9090));
        commit(|batch| {
            batch.delete_elements(TABLE, "services", [Element::new(key(80)), Element::new(key(443))]);
            batch.add_elements(TABLE, "services", [&replaced]);
            batch.flush_set(TABLE, "kinds");
        })
        .unwrap();
        let mut socket = Socket::open().unwrap();
        assert_eq!(socket.elements(TABLE, "services").unwrap(), [replaced]);
        assert_eq!(socket.elements(TABLE, "kinds").unwrap(), []);
        assert_eq!(socket.elements(TABLE, "fading").unwrap(), [in_seconds]);
        assert_eq!(socket.elements(TABLE, "nothing").unwrap(), [], "no such set");
        let names: Vec<_> = socket.sets(TABLE).unwrap().into_iter().map(|set| set.name).collect();
        assert_eq!(names, ["services", "kinds", "fading"]);
    });
}

#[test]
fn ranges_are_intervals_of_one_field_or_of_several() {
    in_namespace(|| {
        commit(|batch| {
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &Set::new("blocks", &[Type::Ipv4]).intervals());
            batch.add_set(TABLE, &Set::new("ports", &[Type::Ipv4, Type::Port]).intervals());
            batch.add_elements(
                TABLE,
                "blocks",
                [Element::new(address("10.1.0.0")), Element::interval_end(address("10.2.0.0"))],
            );
            let first = address("10.1.0.0").port(100);
            batch.add_elements(TABLE, "ports", [Element::range(first, address("10.1.255.255").port(200))]);
        })
        .unwrap();
        let text = nft(&["list", "table", "ip", "t"]);
        assert!(text.contains("elements = { 10.1.0.0/16 }"), "{text}");
        assert!(text.contains("elements = { 10.1.0.0/16 . 100-200 }"), "{text}");
    });
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_why() {
    in_namespace(|| {
        commit(|batch| {
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &Set::new("s", &[Type::Ipv4]));
        })
        .unwrap();
        let refused = commit(|batch| {
            batch.add_elements(TABLE, "s", [Element::new(address("10.0.0.1"))]);
            batch.delete_elements(TABLE, "s", [Element::new(address("10.0.0.2"))]);
        })
        .unwrap_err();
        assert_eq!(refused.code(), Some(nix::libc::ENOENT));
        let text = refused.to_string();
        assert!(text.contains("deletion of elements of set s in table t, element [0a, 00, 00, 02]"), "{text}");
        assert_eq!(Socket::open().unwrap().elements(TABLE, "s").unwrap(), []);

        let unknown = commit(|batch| batch.add_rule(TABLE, &Rule::new("none", vec![Expr::Counter]))).unwrap_err();
        assert!(unknown.to_string().contains("new rule in chain none in table t"), "{unknown}");
    });
}

#[test]
fn a_hundred_thousand_elements_are_one_transaction() {
    in_namespace(|| {
        let element = |n: u32| Element::with_data(Value::new().number(n), address("10.0.0.1").port(n as u16));
        commit(|batch| {
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &Set::map("m", &[Type::Mark], &[Type::Ipv4, Type::Port]));
            batch.add_elements(TABLE, "m", (0..100_000).map(element));
        })
        .unwrap();
        let mut found = Socket::open().unwrap().elements(TABLE, "m").unwrap();
        found.sort_by_key(|element| u32::from_ne_bytes(element.key.0[..4].try_into().unwrap()));
        assert_eq!(found.len(), 100_000);
        assert_eq!(found[77_777], element(77_777));
    });
}

#[test]
fn others_changes_are_news_and_own_ones_are_not() {
    in_namespace(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut socket = Socket::open().unwrap();
            let monitor = Monitor::open(&[socket.port().unwrap()]).unwrap();
            let mut batch = Batch::new();
            batch.add_table(TABLE, None);
            batch.add_set(TABLE, &Set::new("s", &[Type::Ipv4]));
            batch.add_elements(TABLE, "s", [Element::new(address("10.0.0.1"))]);
            socket.commit(&mut batch).unwrap();
            let generation = socket.generation().unwrap();
            nft(&["add", "table", "ip", "another"]);
            assert_eq!(socket.generation().unwrap(), generation + 1);

            let changed = monitor.changed(&[TABLE]);
            tokio::pin!(changed);
            let at_once = futures_now(changed.as_mut()).await;
            assert!(at_once.is_none(), "neither one's own change nor another table's is news");
            nft(&["flush", "set", "ip", "t", "s"]);
            changed.await.unwrap();

            nft(&["flush", "ruleset"]);
            monitor.changed(&[TABLE]).await.unwrap();
        });
    });
}

/// What the future gives when it is asked once, after its events were delivered.
async fn futures_now<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = async { for _ in 0..3 { tokio::task::yield_now().await } } => None,
    }
}

#[test]
fn flows_are_listed_and_ended() {
    in_namespace(|| {
        Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        // Connections are tracked once a rule asks for it.
        commit(|batch| {
            batch.add_table(TABLE, None);
            batch.add_chain(TABLE, &Chain::base("out", "filter", Hook::Output, 0));
            batch.add_rule(TABLE, &Rule::new("out", is_new(R)));
        })
        .unwrap();
        let (a, b) =
            (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        a.send_to(b"x", b.local_addr().unwrap()).unwrap();
        let mut socket = Socket::open().unwrap();
        let port = b.local_addr().unwrap().port();
        let ours = |socket: &mut Socket| socket.flows(false, |flow| flow.original.destination_port == port).unwrap();
        let flows = ours(&mut socket);
        assert_eq!(flows.len(), 1);
        assert_eq!((flows[0].original.protocol, flows[0].reply.source_port), (17, port));
        socket.delete_flow(&flows[0]).unwrap();
        assert_eq!(ours(&mut socket), []);
        socket.delete_flow(&flows[0]).unwrap();
    });
}
