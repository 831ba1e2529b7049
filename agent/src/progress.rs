//! What the agent tells the process around it: whether it is ready, how many pods it has, what it waits for; and the
//! answer of its main loop when asked, which is how a watchdog knows that the loop still turns.
//!
//! Write-only for the agent: nothing here is ever read to decide about a pod.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

/// A handle to one agent's progress; clones are the same.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: watch::Sender<State>,
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

/// A moment of an agent's life. Shown as one line of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The main loop runs: there is somebody to answer.
    pub following: bool,
    pub pods: usize,
    /// Absent while the node is ready.
    pub waits_for: Option<String>,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = if self.pods == 1 { "1 pod".to_owned() } else { format!("{} pods", self.pods) };
        match &self.waits_for {
            Some(cause) if self.following => write!(f, "{pods}; waiting for {cause}"),
            Some(cause) => write!(f, "Waiting for {cause}"),
            None => write!(f, "Ready, {pods}"),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        let state = State { waits_for: Some("the node to be registered".into()), ..State::default() };
        Self(Arc::new(Inner {
            state: watch::Sender::new(state),
            asked: watch::Sender::new(0),
            answered: watch::Sender::new(0),
        }))
    }
}

impl Progress {
    /// The present state, and every later one.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.0.state.subscribe()
    }

    /// Asks the main loop for a sign of life and returns when it gave one. Before that loop has begun the agent waits
    /// for others (see [`State::waits_for`]) and returns at once. The caller sets the limit.
    pub async fn sign_of_life(&self) {
        if !self.0.state.borrow().following {
            return;
        }
        let mut answered = self.0.answered.subscribe();
        let mut question = 0;
        self.0.asked.send_modify(|asked| {
            *asked += 1;
            question = *asked;
        });
        // Fails when the sender is gone only, and we hold it.
        let _closed = answered.wait_for(|answer| *answer >= question).await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.0.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    pub(crate) fn waits_for(&self, cause: impl Into<String>) {
        self.change(|state| state.waits_for = Some(cause.into()));
    }

    pub(crate) fn ready(&self) {
        self.change(|state| state.waits_for = None);
    }

    pub(crate) fn pods(&self, count: usize) {
        self.change(|state| state.pods = count);
    }

    /// From here on the main loop answers.
    pub(crate) fn following(&self) -> Questions {
        self.change(|state| state.following = true);
        Questions { asked: self.0.asked.subscribe(), progress: self.clone() }
    }
}

/// The main loop's side of [`Progress::sign_of_life`].
pub(crate) struct Questions {
    asked: watch::Receiver<u64>,
    progress: Progress,
}

impl Questions {
    /// Waits for the next question and answers it; ends never by itself. Safe to cancel.
    pub(crate) async fn answer(&mut self) {
        if self.asked.changed().await.is_ok() {
            let question = *self.asked.borrow_and_update();
            self.progress.0.answered.send_replace(question);
        }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.progress.change(|state| state.following = false);
        // Whoever waits for an answer now would wait for ever.
        self.progress.0.answered.send_replace(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[test]
    fn a_state_is_one_line() {
        let show = |following, pods, waits_for: Option<&str>| {
            State { following, pods, waits_for: waits_for.map(str::to_owned) }.to_string()
        };
        assert_eq!(show(true, 3, None), "Ready, 3 pods");
        assert_eq!(show(true, 1, None), "Ready, 1 pod");
        assert_eq!(show(false, 0, Some("containerd")), "Waiting for containerd");
        assert_eq!(show(true, 2, Some("a network")), "2 pods; waiting for a network");
    }

    #[tokio::test]
    async fn only_a_turning_loop_gives_a_sign_of_life() {
        let progress = Progress::default();
        // Nothing to ask yet.
        progress.sign_of_life().await;

        let mut questions = progress.following();
        let mut asking = Box::pin(progress.sign_of_life());
        let pending = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context).is_pending())).await;
        assert!(pending, "the loop has not answered");
        questions.answer().await;
        asking.await;

        let mut asking = Box::pin(progress.sign_of_life());
        let pending = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context).is_pending())).await;
        assert!(pending, "an old answer is no sign of life");
        drop(questions);
        asking.await;
    }

    #[test]
    fn watchers_hear_of_changes_only() {
        let progress = Progress::default();
        let mut states = progress.watch();
        states.mark_unchanged();
        progress.ready();
        assert!(states.has_changed().unwrap());
        states.mark_unchanged();
        progress.ready();
        progress.pods(0);
        assert!(!states.has_changed().unwrap());
    }
}
