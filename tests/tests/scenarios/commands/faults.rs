//! Commands that break things, and mend them.

use super::duration;
use crate::session::Session;
use crate::simulation;
use crate::wire::Faults;

pub async fn component(session: &mut Session, verb: &str, name: &str) -> Result<String, String> {
    let cluster = &mut session.cluster;
    if verb != "start" {
        match name {
            "server" => cluster.stop_server().await?,
            _ => cluster.stop_component(name).await?,
        }
    }
    if verb != "stop" {
        match name {
            "server" => cluster.start_server().await?,
            _ => cluster.start_component(name)?,
        }
    }
    Ok(String::new())
}

/// `delay=2s lag=1s refuse=30% lose-answers=10% only=POST`.
pub fn set(session: &Session, wire: &str, words: &[&str]) -> Result<String, String> {
    let mut faults = Faults::default();
    for word in words {
        let Some((name, value)) = word.split_once('=') else { return Err(format!("{word:?} is no fault")) };
        match name {
            "delay" => faults.delay = duration(value)?,
            "lag" => faults.lag = duration(value)?,
            "refuse" => faults.refuse = share(value)?,
            "lose-answers" => faults.lose_answers = share(value)?,
            "only" => faults.only = value.to_owned(),
            _ => return Err(format!("no fault is named {name}: delay, lag, refuse, lose-answers, only")),
        }
    }
    session.cluster.wires(wire)?.iter().for_each(|wire| wire.set(faults.clone()));
    Ok(String::new())
}

/// `+1h` or `-1h`.
pub fn clock(change: &str) -> Result<String, String> {
    let by = match (change.strip_prefix('+'), change.strip_prefix('-')) {
        (Some(ahead), _) => duration(ahead)?.as_secs() as i64,
        (_, Some(back)) => -(duration(back)?.as_secs() as i64),
        (None, None) => return Err(format!("{change:?} is no change of a clock such as +1h or -1h")),
    };
    simulation::set_clock(by);
    Ok(String::new())
}

pub fn cut(session: &Session, names: &[&str]) -> Result<String, String> {
    for name in names {
        session.cluster.wires(name)?.iter().for_each(|wire| wire.set(Faults { cut: true, ..wire.faults() }));
    }
    Ok(String::new())
}

pub fn lose_watches(session: &Session, names: &[&str]) -> Result<String, String> {
    for name in names {
        session.cluster.wires(name)?.iter().for_each(|wire| wire.break_watches());
    }
    Ok(String::new())
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    percent.map(|p| p / 100.0).ok_or_else(|| format!("{text:?} is no percentage such as 30%"))
}
