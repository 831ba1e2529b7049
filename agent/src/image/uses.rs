//! Which images pods have use for before containerd knows it: from the moment a pod asks for an image to the pod's end.
//! Garbage collection removes nothing that is claimed, and an image is looked for only while none is being removed, so
//! that what was found stays.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::name::Name;

type Counts = Arc<Mutex<HashMap<String, usize>>>;

#[derive(Default)]
pub struct Uses {
    claimed: Counts,
    removal: RwLock<()>,
}

/// Keeps an image until it is dropped.
pub struct Claim {
    name: String,
    claimed: Counts,
}

impl Uses {
    /// By the text of a container's `image` field.
    pub fn claim(&self, text: &str) -> Claim {
        let name = Name::parse(text).map_or_else(|_| text.to_owned(), |name| name.full());
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        *claimed.entry(name.clone()).or_default() += 1;
        Claim { name, claimed: self.claimed.clone() }
    }

    /// While it is held, no image goes. Never held over long work.
    pub async fn looking(&self) -> RwLockReadGuard<'_, ()> {
        self.removal.read().await
    }

    /// While it is held, nobody finds an image. What is claimed has to be asked for after this.
    pub async fn removing(&self) -> RwLockWriteGuard<'_, ()> {
        self.removal.write().await
    }

    pub fn is_claimed(&self, name: &str) -> bool {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = claimed.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                claimed.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Uses;

    #[test]
    fn an_image_is_claimed_until_the_last_claim_is_gone() {
        let uses = Uses::default();
        let (first, second) = (uses.claim("busybox"), uses.claim("docker.io/library/busybox:latest"));
        drop(first);
        assert!(uses.is_claimed("docker.io/library/busybox:latest"));
        drop(second);
        assert!(!uses.is_claimed("docker.io/library/busybox:latest"));
    }
}
