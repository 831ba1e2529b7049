//! The state machine in text scenarios: each line is an input, the output is effect, new state and next request.

use expect_test::{Expect, expect};

use super::machine::{Effect, Failure, Input, Machine, Next, State};
use crate::Revision;

fn parse(line: &str) -> Input {
    let words: Vec<&str> = line.split_whitespace().collect();
    let revision = |text: &str| Revision::parse(text);
    match words.as_slice() {
        ["page", rev] => Input::Page { revision: revision(rev), continue_token: None },
        ["page", rev, "more", token] => Input::Page { revision: revision(rev), continue_token: Some((*token).into()) },
        ["opened"] => Input::Opened,
        ["event", rev] => Input::Changed { revision: revision(rev) },
        ["bookmark", rev] => Input::Bookmark { revision: revision(rev), initial_events_end: false },
        ["bookmark", rev, "end"] => Input::Bookmark { revision: revision(rev), initial_events_end: true },
        ["closed"] => Input::Closed,
        ["gone"] => Input::Failed(Failure::Gone),
        ["unsupported"] => Input::Failed(Failure::Unsupported),
        ["broken"] => Input::Failed(Failure::Other),
        _ => panic!("unknown input {line:?}"),
    }
}

fn state(machine: &Machine) -> String {
    match machine.state() {
        State::Empty => "Empty".into(),
        State::Listing { continue_token } => format!("Listing({continue_token})"),
        State::Streaming => "Streaming".into(),
        State::Resuming { revision } => format!("Resuming({revision})"),
        State::Watching { revision } => format!("Watching({revision})"),
    }
}

fn next(machine: &Machine) -> String {
    match machine.next() {
        Next::List { continue_token, paged } => format!("list {} paged={paged}", continue_token.unwrap_or_default()),
        Next::OpenStream => "open stream".into(),
        Next::OpenWatch { from } => format!("watch from {from}"),
        Next::Read => "read".into(),
    }
}

fn check(script: &str, expected: Expect) {
    let mut machine = Machine::new(true);
    let mut out = format!("-> {} | {}\n", state(&machine), next(&machine));
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let step = machine.step(parse(line));
        let effect = match step.effect {
            Effect::Nothing => String::new(),
            effect => format!(" {effect:?}"),
        };
        let wait = if step.wait { " wait" } else { "" };
        out += &format!("{line}:{effect}{wait} -> {} | {}\n", state(&machine), next(&machine));
    }
    expected.assert_eq(&out);
}

#[test]
fn streams_the_initial_state_then_watches() {
    check(
        "opened\nevent 3\nevent 2\nbookmark 9 end\nevent 10\nbookmark 15\nclosed\nopened\nevent 16",
        expect![[r#"
            -> Empty | open stream
            opened: -> Streaming | read
            event 3: Stage -> Streaming | read
            event 2: Stage -> Streaming | read
            bookmark 9 end: Commit(Revision(9)) -> Watching(9) | read
            event 10: Apply -> Watching(10) | read
            bookmark 15: Progress(Revision(15)) -> Watching(15) | read
            closed: -> Resuming(15) | watch from 15
            opened: -> Watching(15) | read
            event 16: Apply -> Watching(16) | read
        "#]],
    );
}

#[test]
fn lists_in_pages_where_streaming_is_refused() {
    check(
        "unsupported\npage 7 more t1\nbroken\npage 7 more t2\npage 7\nopened\nevent 8",
        expect![[r#"
            -> Empty | open stream
            unsupported: -> Empty | list  paged=true
            page 7 more t1: Stage -> Listing(t1) | list t1 paged=true
            broken: wait -> Listing(t1) | list t1 paged=true
            page 7 more t2: Stage -> Listing(t2) | list t2 paged=true
            page 7: Commit(Revision(7)) -> Resuming(7) | watch from 7
            opened: -> Watching(7) | read
            event 8: Apply -> Watching(8) | read
        "#]],
    );
}

#[test]
fn an_expired_continue_token_lists_everything_at_once() {
    check(
        "unsupported\npage 7 more t1\ngone\npage 9",
        expect![[r#"
            -> Empty | open stream
            unsupported: -> Empty | list  paged=true
            page 7 more t1: Stage -> Listing(t1) | list t1 paged=true
            gone: Abandon wait -> Empty | list  paged=false
            page 9: Commit(Revision(9)) -> Resuming(9) | watch from 9
        "#]],
    );
}

#[test]
fn a_broken_initial_stream_leaves_nothing_behind() {
    check(
        "opened\nevent 3\nbroken\nopened\nevent 3\nclosed\nbroken\nopened\nbookmark 4 end",
        expect![[r#"
            -> Empty | open stream
            opened: -> Streaming | read
            event 3: Stage -> Streaming | read
            broken: Abandon wait -> Empty | open stream
            opened: -> Streaming | read
            event 3: Stage -> Streaming | read
            closed: Abandon wait -> Empty | open stream
            broken: wait -> Empty | open stream
            opened: -> Streaming | read
            bookmark 4 end: Commit(Revision(4)) -> Watching(4) | read
        "#]],
    );
}

#[test]
fn repeated_events_are_dropped_and_410_starts_over() {
    check(
        "opened\nbookmark 9 end\nevent 12\nbroken\nopened\nevent 11\nevent 12\nevent 13\ngone\nopened\nevent 13\nbookmark 20 end",
        expect![[r#"
            -> Empty | open stream
            opened: -> Streaming | read
            bookmark 9 end: Commit(Revision(9)) -> Watching(9) | read
            event 12: Apply -> Watching(12) | read
            broken: wait -> Resuming(12) | watch from 12
            opened: -> Watching(12) | read
            event 11: Drop -> Watching(12) | read
            event 12: Drop -> Watching(12) | read
            event 13: Apply -> Watching(13) | read
            gone: wait -> Empty | open stream
            opened: -> Streaming | read
            event 13: Stage -> Streaming | read
            bookmark 20 end: Commit(Revision(20)) -> Watching(20) | read
        "#]],
    );
}

#[test]
fn a_server_that_closes_at_once_is_not_hammered() {
    check(
        "opened\nbookmark 9 end\nclosed\nopened\nclosed\nopened\nclosed",
        expect![[r#"
            -> Empty | open stream
            opened: -> Streaming | read
            bookmark 9 end: Commit(Revision(9)) -> Watching(9) | read
            closed: -> Resuming(9) | watch from 9
            opened: -> Watching(9) | read
            closed: wait -> Resuming(9) | watch from 9
            opened: -> Watching(9) | read
            closed: wait -> Resuming(9) | watch from 9
        "#]],
    );
}
