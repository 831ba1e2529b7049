//! Who may use an image that is on the node: kept beside the image as a label, so that it is as old as the image and goes
//! with it. Pure.
//!
//! As the kubelet's `ImagePullManager` with its default policy (`NeverVerifyPreloadedImages`): an image that this agent
//! pulled with a pod's Secret may be used by pods that have the same Secret or the same credential; everybody else has to
//! ask the registry. Images that came by themselves, or without a Secret, are for every pod.

use std::collections::BTreeSet;

use super::credentials::{Credential, Secret};

/// Label of image records.
pub const LABEL: &str = "keelson.io/pulled-with";
/// Key and value of a label may have 4096 bytes; an entry has at most 54. The kubelet keeps 100 per image.
const SECRETS_MAX: usize = 64;
const EVERYBODY: &str = "node";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not pulled by this agent.
    Preloaded,
    /// Pulled without a Secret.
    Everybody,
    /// By `uid:hash`.
    Secrets(BTreeSet<String>),
}

impl Access {
    /// What a label says; none says that the image is preloaded.
    pub fn of(label: Option<&str>) -> Self {
        match label {
            None => Access::Preloaded,
            Some(EVERYBODY) => Access::Everybody,
            Some(list) => Access::Secrets(list.split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect()),
        }
    }

    pub fn label(&self) -> Option<String> {
        match self {
            Access::Preloaded => None,
            Access::Everybody => Some(EVERYBODY.to_owned()),
            Access::Secrets(list) => Some(list.iter().cloned().collect::<Vec<_>>().join(" ")),
        }
    }

    /// After a pull with a credential.
    pub fn of_pull(credential: Option<&Credential>) -> Self {
        match credential.and_then(Credential::secret) {
            None => Access::Everybody,
            Some(secret) => Access::Secrets([entry(&secret)].into()),
        }
    }

    /// Of the same content, after another pull of it.
    pub fn joined(self, other: Access) -> Access {
        match (self, other) {
            (Access::Preloaded, _) => Access::Preloaded,
            (Access::Everybody, _) | (_, Access::Everybody) => Access::Everybody,
            (kept, Access::Preloaded) => kept,
            (Access::Secrets(mut list), Access::Secrets(more)) => {
                list.retain(|old| !more.iter().any(|new| uid(new) == uid(old)));
                while list.len() + more.len() > SECRETS_MAX {
                    list.pop_first();
                }
                list.extend(more);
                Access::Secrets(list)
            }
        }
    }

    /// Does it matter what the pod has?
    pub fn asks(&self) -> bool {
        matches!(self, Access::Secrets(_))
    }

    /// The same Secret, though it may have changed, or the same credential in another one.
    pub fn admits(&self, credentials: &[Credential]) -> bool {
        let Access::Secrets(list) = self else { return true };
        let mut secrets = credentials.iter().filter_map(Credential::secret);
        secrets.any(|secret| {
            list.iter().any(|known| uid(known) == secret.uid || known.ends_with(&format!(":{}", secret.hash)))
        })
    }
}

fn entry(secret: &Secret) -> String {
    format!("{}:{}", secret.uid, secret.hash)
}

fn uid(entry: &str) -> &str {
    entry.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Access, Credential, SECRETS_MAX};

    fn with(uid: &str, password: &str) -> Credential {
        Credential { username: "u".into(), password: password.into(), secret_uid: Some(uid.into()) }
    }

    #[test]
    fn the_same_secret_or_credential_is_let_in() {
        let access = Access::of_pull(Some(&with("one", "p")));
        assert!(access.admits(&[with("one", "changed")]));
        assert!(access.admits(&[with("two", "p")]));
        assert!(!access.admits(&[with("two", "q")]));
        assert!(!access.admits(&[]));
        assert!(!access.admits(&[Credential { secret_uid: None, ..with("", "p") }]));
        let both = access.joined(Access::of_pull(Some(&with("two", "q"))));
        assert!(both.admits(&[with("one", "-")]) && both.admits(&[with("two", "-")]));
        assert_eq!(Access::of(both.label().as_deref()), both);
        assert!(both.joined(Access::of_pull(None)).admits(&[]));
    }

    #[test]
    fn what_came_by_itself_is_for_everybody_and_stays_so() {
        assert!(Access::of(None).admits(&[]));
        assert_eq!(Access::of(None).joined(Access::of_pull(Some(&with("one", "p")))), Access::Preloaded);
        assert_eq!(Access::Preloaded.label(), None);
    }

    #[test]
    fn a_label_does_not_grow_without_end() {
        let uid = |number: usize| format!("{number:036}");
        let all = (0..2 * SECRETS_MAX).map(|number| Access::of_pull(Some(&with(&uid(number), &uid(number)))));
        let label = all.reduce(Access::joined).unwrap().label().unwrap();
        assert!(label.len() + super::LABEL.len() < 4096, "{}", label.len());
        assert!(label.contains(&uid(2 * SECRETS_MAX - 1)));
    }
}
