//! What the world tells a pod's owner. A mailbox holds the latest of everything rather than a queue of messages, so
//! that senders never wait and nothing piles up while an owner is busy.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use super::resize::Pending;
use crate::runtime::Exit;

#[derive(Default)]
pub struct Inbox {
    letters: Mutex<Letters>,
    arrived: Notify,
}

#[derive(Debug, Default)]
pub struct Letters {
    /// The newest version of the pod.
    pub desired: Option<Desired>,
    /// The server has no such pod any more.
    pub gone: bool,
    /// By container id; a container ends once.
    pub exits: BTreeMap<String, Exit>,
    /// Exits may have been missed.
    pub resync: bool,
    /// Full names of images that were added to the node.
    pub images: BTreeSet<String>,
}

#[derive(Debug)]
pub struct Desired {
    /// With the resources this node has allocated to it.
    pub pod: Arc<Pod>,
    /// It asks for others.
    pub resize_pending: Option<Pending>,
}

impl Letters {
    fn is_empty(&self) -> bool {
        self.desired.is_none() && !self.gone && self.exits.is_empty() && !self.resync && self.images.is_empty()
    }
}

impl Inbox {
    pub fn put(&self, write: impl FnOnce(&mut Letters)) {
        write(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_one();
    }

    /// Waits for anything to arrive and takes all of it. Safe to cancel.
    pub async fn take(&self) -> Letters {
        loop {
            let letters = std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner));
            if !letters.is_empty() {
                return letters;
            }
            self.arrived.notified().await;
        }
    }
}
