//! How the agent and this engine meet in one process: the agent tells of a pod's addresses before anything runs behind
//! them and waits until they are protected, so that no pod is open for a moment after its start.
//!
//! The other way, to have the kernel drop what comes to addresses it does not know, would cost every pod its first
//! packets until the API server has told its address to everybody, and a lost first packet costs a second.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::objects::Pod;

#[derive(Debug)]
pub(crate) enum Message {
    /// The pod has its addresses. Answered when the kernel knows the policies that select it; a pod that was there
    /// before has nobody waiting.
    Came { pod: Arc<Pod>, protected: Option<oneshot::Sender<()>> },
    /// The pod of this uid has given its addresses back.
    Left { uid: String },
}

/// The agent's end.
#[derive(Clone, Debug)]
pub struct Gate(mpsc::UnboundedSender<Message>);

/// The engine's end.
#[derive(Debug)]
pub struct Arrivals(pub(crate) mpsc::UnboundedReceiver<Message>);

pub fn gate() -> (Gate, Arrivals) {
    // Without a limit of its own: there are two messages in a pod's life, and pods of a node are limited.
    let (sender, receiver) = mpsc::unbounded_channel();
    (Gate(sender), Arrivals(receiver))
}

impl Gate {
    /// Returns when the pod is protected. Without an engine, which ends at shutdown only, it never does: dropping it
    /// is the caller's way out.
    pub async fn admit(&self, pod: Pod) {
        let (protected, done) = oneshot::channel();
        let message = Message::Came { pod: Arc::new(pod), protected: Some(protected) };
        if self.0.send(message).is_err() || done.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Tells of a pod that runs already.
    pub fn tell(&self, pod: Pod) {
        // Nobody is told anything by an engine that has ended.
        drop(self.0.send(Message::Came { pod: Arc::new(pod), protected: None }));
    }

    pub fn leave(&self, uid: &str) {
        // As above.
        drop(self.0.send(Message::Left { uid: uid.to_owned() }));
    }
}
