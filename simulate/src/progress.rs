//! What a node does next about one pod: a pure function of what is wanted, what runs and what was reported.

use std::time::Duration;

use tokio::time::Instant;

use crate::behaviour::Behaviour;
use crate::runtime::Container;

/// First pause before a container that exited is started again; doubles with each restart up to the maximum
/// (upstream's `containerRestart` backoff).
const BACKOFF: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What the API server wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Running,
    /// Deleted; stopping may take this long.
    Stopped {
        grace: Duration,
    },
    /// The object is gone: nobody waits for an answer.
    Gone,
}

/// What is said of the containers in the pod's status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub phase: &'static str,
    pub ready: bool,
    pub restarts: u32,
    pub state: State,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Creating,
    Running,
    BackOff {
        code: i32,
    },
    Exited {
        code: i32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again then, or when something changes.
    Wait(Option<Instant>),
    Start,
    /// Note that the stop is done then.
    StopAt(Instant),
    /// The containers end now.
    Exit(i32),
    Report(Report),
    /// Forget the containers and confirm the deletion.
    Remove,
    /// Forget the containers.
    Forget,
}

/// The facts about one pod.
#[derive(Debug)]
pub struct Facts<'a> {
    pub wanted: &'a Wanted,
    pub behaviour: &'a Behaviour,
    /// The pod's phase is terminal: it never starts again.
    pub terminal: bool,
    pub restart: Restart,
    /// When this agent saw the pod first.
    pub seen: Instant,
    pub container: Option<&'a Container>,
    pub reported: Option<&'a Report>,
}

/// A pod's restart policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    #[default]
    Always,
    OnFailure,
    Never,
}

impl Restart {
    /// Whether an exit with this code is followed by another run.
    fn after(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

pub fn plan(facts: &Facts<'_>, now: Instant) -> Step {
    match facts.wanted {
        Wanted::Gone => gone(facts),
        Wanted::Stopped { grace } => stop(facts, *grace, now),
        Wanted::Running => run(facts, now),
    }
}

fn gone(facts: &Facts<'_>) -> Step {
    if facts.container.is_some() { Step::Forget } else { Step::Wait(None) }
}

/// The signal's exit code, when a stop was asked for: 128 + SIGTERM.
const TERMINATED: i32 = 143;

fn stop(facts: &Facts<'_>, grace: Duration, now: Instant) -> Step {
    let Some(container) = facts.container else { return Step::Remove };
    if let Some((code, _)) = container.exited {
        // Only what nobody restarts has a result that others count.
        let report = finished(container, code);
        let counts = !facts.restart.after(code) && !facts.terminal;
        return if counts && facts.reported != Some(&report) { Step::Report(report) } else { Step::Remove };
    }
    let done = now + facts.behaviour.stop.min(grace);
    match container.stopping {
        Some(at) if at <= now => Step::Exit(TERMINATED),
        Some(at) if at <= done => Step::Wait(Some(at)),
        _ => Step::StopAt(done),
    }
}

fn run(facts: &Facts<'_>, now: Instant) -> Step {
    if facts.terminal {
        return Step::Wait(None);
    }
    let Some(container) = facts.container else { return create(facts, now) };
    match container.exited {
        Some((code, at)) => after_exit(facts, container, code, at, now),
        None => while_running(facts, container, now),
    }
}

fn create(facts: &Facts<'_>, now: Instant) -> Step {
    let Some(start) = facts.behaviour.start else { return Step::Wait(None) };
    let due = facts.seen + start;
    if due <= now { Step::Start } else { Step::Wait(Some(due)) }
}

fn while_running(facts: &Facts<'_>, container: &Container, now: Instant) -> Step {
    let ready_at = facts.behaviour.ready.map(|delay| container.started + delay);
    let exit_at = facts.behaviour.run.map(|delay| container.started + delay);
    if exit_at.is_some_and(|at| at <= now) {
        return Step::Exit(facts.behaviour.exit_code(container.restarts));
    }
    let ready = ready_at.is_some_and(|at| at <= now);
    let report = Report { phase: "Running", ready, restarts: container.restarts, state: State::Running };
    if facts.reported != Some(&report) {
        return Step::Report(report);
    }
    let next = [ready_at.filter(|_| !ready), exit_at].into_iter().flatten().min();
    Step::Wait(next)
}

fn after_exit(facts: &Facts<'_>, container: &Container, code: i32, at: Instant, now: Instant) -> Step {
    if !facts.restart.after(code) {
        let report = finished(container, code);
        return if facts.reported == Some(&report) { Step::Wait(None) } else { Step::Report(report) };
    }
    let pause = match container.restarts {
        0 => Duration::ZERO,
        n => BACKOFF.saturating_mul(1 << (n - 1).min(8)).min(BACKOFF_MAX),
    };
    if at + pause <= now {
        return Step::Start;
    }
    let report =
        Report { phase: "Running", ready: false, restarts: container.restarts, state: State::BackOff { code } };
    if facts.reported == Some(&report) { Step::Wait(Some(at + pause)) } else { Step::Report(report) }
}

fn finished(container: &Container, code: i32) -> Report {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    Report { phase, ready: false, restarts: container.restarts, state: State::Exited { code } }
}
