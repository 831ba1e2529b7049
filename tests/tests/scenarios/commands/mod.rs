//! The commands of scenarios, by their first word. `tests/scenarios/README.md` is their reference.

mod faults;
mod looks;
mod nodes;
mod objects;

use std::time::Duration;

use crate::session::Session;
use crate::text::Command;

pub use looks::list;

/// Runs one command and gives its output.
pub async fn execute(session: &mut Session, command: &Command) -> Result<String, String> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["apply", ..] => objects::apply(session, &command.input).await,
        ["create", kind, name, fields @ ..] => objects::create(session, kind, name, fields, &command.input).await,
        ["patch" | "set", object, fields @ ..] => objects::patch(session, object, fields, &command.input).await,
        ["status", object, fields @ ..] => objects::patch_status(session, object, fields, &command.input).await,
        ["image", object, image, rest @ ..] => objects::image(session, object, image, rest).await,
        ["scale", object, count, rest @ ..] => objects::scale(session, object, count, rest).await,
        ["delete", object, options @ ..] => objects::delete(session, object, options).await,
        ["evict", object, rest @ ..] => objects::evict(session, object, rest).await,
        ["undo", object, rest @ ..] => objects::undo(session, object, rest).await,

        ["nodes", names @ ..] => nodes::add(session, names, &command.input).await,
        ["agent", verb, name] => nodes::agent(session, verb, name).await,
        ["crash", "node", name] => session.cluster.crash_node(name).await.map(|()| String::new()),
        ["lose", "node", name] => session.cluster.lose_node(name).await.map(|()| String::new()),
        ["exit", object, code, rest @ ..] => nodes::exit(session, object, code, rest).await,
        ["running"] => nodes::running(session),

        ["stop" | "start" | "restart", "always"] => Err("conditions hold to the end of their scenario".to_owned()),
        [verb @ ("stop" | "start" | "restart"), name] => faults::component(session, verb, name).await,
        ["faults", wire, faults @ ..] => faults::set(session, wire, faults),
        ["cut", wires @ ..] => faults::cut(session, wires),
        ["lose", "watches", wires @ ..] => faults::lose_watches(session, wires),
        ["heal"] => {
            session.cluster.heal();
            Ok(String::new())
        }

        ["clock", change] => faults::clock(change),
        ["advance", time] => {
            tokio::time::sleep(duration(time)?).await;
            Ok(String::new())
        }
        ["settle"] => session.settle().await.map(|()| String::new()),
        ["wait", ..] => looks::wait(session, &command.words[1..]).await,
        ["expect", ..] => looks::expect(session, &command.words[1..]),
        ["always", ..] => looks::always(session, &command.words[1..]),
        ["why", ..] => looks::why(session, &command.words[1..]).await,
        ["show", ..] => looks::show(session, &command.words[1..]),
        ["writes", time, most, ..] => looks::writes(session, time, most, &command.words[3..]).await,
        [other, ..] => Err(format!("no command is {other:?} in this form; see tests/scenarios/README.md")),
        [] => Ok(String::new()),
    }
}

/// `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
    parsed.ok_or_else(|| format!("{text:?} is no duration such as 30s or 1m30s"))
}
