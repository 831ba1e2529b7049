//! The list-watch state machine, without I/O. It decides what to ask the server next and what to do with what came;
//! the driver holds the objects.
//!
//! ```text
//!            page(more)                 opened
//!   Empty ──────────────▶ Listing     Empty ──────▶ Streaming
//!     ▲  └── page(last) ─────┴──▶ Resuming            │ bookmark(end)
//!     │ gone                       │  ▲ closed        ▼
//!     └────────────────────────────┴──┴────────── Watching
//! ```
//!
//! Invariant: everything up to `revision` in `Resuming` and `Watching` was delivered exactly once.

use crate::Revision;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing (valid) is known.
    Empty,
    /// Pages of a list were staged; more are to come.
    Listing { continue_token: String },
    /// A watch with initial events is open and they are being staged.
    Streaming,
    /// No watch is open; the next one continues after `revision`.
    Resuming { revision: Revision },
    /// A watch is open.
    Watching { revision: Revision },
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read one page of a list (everything at once when not `paged`).
    List { continue_token: Option<String>, paged: bool },
    /// Open a watch with initial events.
    OpenStream,
    /// Open a watch after this revision.
    OpenWatch { from: Revision },
    /// Read the next event of the open watch.
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Page {
        revision: Revision,
        continue_token: Option<String>,
    },
    Opened,
    /// An object was added, modified or deleted at `revision`.
    Changed {
        revision: Revision,
    },
    Bookmark {
        revision: Revision,
        initial_events_end: bool,
    },
    /// The server ended the watch in good order.
    Closed,
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 410: the revision or continue token is too old.
    Gone,
    /// The server doesn't serve this form of request (initial events).
    Unsupported,
    /// Anything else; trying again may help.
    Other,
}

/// What the driver does with the objects of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// Add them to the staged state.
    Stage,
    /// Add them, then the staged state replaces the known one, as of this revision.
    Commit(Revision),
    /// Throw the staged state away.
    Abandon,
    /// Deliver the change.
    Apply,
    /// Delivered before: drop it.
    Drop,
    /// Nothing changed up to this revision.
    Progress(Revision),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub effect: Effect,
    /// Back off before the next request.
    pub wait: bool,
    /// The connection proved good: start backoff afresh.
    pub healthy: bool,
}

impl Step {
    const fn go(effect: Effect) -> Self {
        Self { effect, wait: false, healthy: false }
    }
    const fn wait(effect: Effect) -> Self {
        Self { effect, wait: true, healthy: false }
    }
    const fn healthy(effect: Effect) -> Self {
        Self { effect, wait: false, healthy: true }
    }
}

#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    /// Initial events are worth asking for; false once the server refused.
    stream_initial: bool,
    /// Page the next list; false after a continue token expired midway.
    paged: bool,
    /// The open watch delivered nothing yet. A server that closes at once must not be hammered.
    quiet: bool,
}

impl Machine {
    pub fn new(stream_initial: bool) -> Self {
        Self { state: State::Empty, stream_initial, paged: true, quiet: false }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn next(&self) -> Next {
        match &self.state {
            State::Empty if self.stream_initial => Next::OpenStream,
            State::Empty => Next::List { continue_token: None, paged: self.paged },
            State::Listing { continue_token } => {
                Next::List { continue_token: Some(continue_token.clone()), paged: self.paged }
            }
            State::Resuming { revision } => Next::OpenWatch { from: *revision },
            State::Streaming | State::Watching { .. } => Next::Read,
        }
    }

    pub fn step(&mut self, input: Input) -> Step {
        match self.state {
            State::Empty | State::Listing { .. } => self.while_listing(input),
            State::Streaming => self.while_streaming(input),
            State::Resuming { revision } => self.while_resuming(revision, input),
            State::Watching { revision } => self.while_watching(revision, input),
        }
    }

    fn while_listing(&mut self, input: Input) -> Step {
        match input {
            Input::Opened => {
                self.state = State::Streaming;
                Step::go(Effect::Nothing)
            }
            Input::Page { continue_token: Some(continue_token), .. } => {
                self.state = State::Listing { continue_token };
                Step::go(Effect::Stage)
            }
            Input::Page { revision, continue_token: None } => {
                self.state = State::Resuming { revision };
                self.paged = true;
                Step::go(Effect::Commit(revision))
            }
            Input::Failed(Failure::Unsupported) if self.stream_initial => {
                self.stream_initial = false;
                Step::go(Effect::Nothing)
            }
            Input::Failed(Failure::Gone) => {
                self.state = State::Empty;
                self.paged = false;
                Step::wait(Effect::Abandon)
            }
            // A failed page is read again; the token stays good for minutes.
            _ => Step::wait(Effect::Nothing),
        }
    }

    fn while_streaming(&mut self, input: Input) -> Step {
        match input {
            Input::Changed { .. } => Step::go(Effect::Stage),
            Input::Bookmark { revision, initial_events_end: true } => {
                self.state = State::Watching { revision };
                self.quiet = false;
                Step::healthy(Effect::Commit(revision))
            }
            Input::Bookmark { .. } => Step::go(Effect::Nothing),
            Input::Failed(Failure::Unsupported) => {
                self.state = State::Empty;
                self.stream_initial = false;
                Step::go(Effect::Abandon)
            }
            _ => {
                self.state = State::Empty;
                Step::wait(Effect::Abandon)
            }
        }
    }

    fn while_resuming(&mut self, revision: Revision, input: Input) -> Step {
        match input {
            Input::Opened => {
                self.state = State::Watching { revision };
                self.quiet = true;
                Step::go(Effect::Nothing)
            }
            Input::Failed(Failure::Gone) => {
                self.state = State::Empty;
                Step::wait(Effect::Nothing)
            }
            _ => Step::wait(Effect::Nothing),
        }
    }

    fn while_watching(&mut self, seen: Revision, input: Input) -> Step {
        match input {
            Input::Changed { revision } | Input::Bookmark { revision, .. }
                if !revision.is_none() && revision <= seen =>
            {
                Step::healthy(Effect::Drop)
            }
            Input::Changed { revision } => {
                self.quiet = false;
                // A server without comparable revisions keeps us at the one it understood.
                self.state = State::Watching { revision: if revision.is_none() { seen } else { revision } };
                Step::healthy(Effect::Apply)
            }
            Input::Bookmark { revision, .. } => {
                self.quiet = false;
                self.state = State::Watching { revision };
                Step::healthy(Effect::Progress(revision))
            }
            Input::Closed => {
                self.state = State::Resuming { revision: seen };
                Step { effect: Effect::Nothing, wait: self.quiet, healthy: false }
            }
            Input::Failed(Failure::Gone) => {
                self.state = State::Empty;
                Step::wait(Effect::Nothing)
            }
            Input::Failed(_) => {
                self.state = State::Resuming { revision: seen };
                Step::wait(Effect::Nothing)
            }
            Input::Page { .. } | Input::Opened => Step::go(Effect::Nothing),
        }
    }
}
