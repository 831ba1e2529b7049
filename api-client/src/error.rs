//! What a request can end in besides success. The HTTP status code appears only inside the server's own `Status`.

use ::api::status::Status;

/// The boxed error of a transport or of a response body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a failure.
    #[error("{0}")]
    Status(#[from] Status),
    /// No (complete) answer: the write may or may not have happened.
    #[error("{attempted}: {source}")]
    Transport { attempted: String, source: BoxError },
    /// The answer is not what was asked for.
    #[error("{attempted}: decode answer: {source}")]
    Decode { attempted: String, source: serde_json::Error },
    /// The request could not be built or encoded.
    #[error("{attempted}: build request: {source}")]
    Request { attempted: String, source: BoxError },
    /// A named limit of this crate was reached.
    #[error("{attempted}: {limit} exceeded")]
    Limit { attempted: String, limit: &'static str },
    /// A kubeconfig or credential file is unusable.
    #[error("{what}: {source}")]
    Config { what: String, source: BoxError },
}

impl From<tls::Error> for Error {
    fn from(source: tls::Error) -> Self {
        let what = match &source {
            tls::Error::File { path, .. } => format!("read {path}"),
            _ => "set up TLS".to_owned(),
        };
        Self::Config { what, source: source.into() }
    }
}

impl Error {
    /// What is wrong with a certificate, where that is why no server answered.
    pub fn tls_problem(&self) -> Option<tls::Problem> {
        match self {
            Self::Transport { source, .. } => tls::problem(&**source),
            _ => None,
        }
    }

    /// The server's `Status`, where the server answered.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|s| s.reason == reason)
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404)
    }
    pub fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }
    /// An optimistic-concurrency conflict; read again and decide anew.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.code == 409 && s.reason != "AlreadyExists")
    }
    /// The object or request was refused as invalid: repeating it unchanged can't help.
    pub fn is_invalid(&self) -> bool {
        self.status().is_some_and(|s| s.code == 422)
    }
    pub fn is_method_not_allowed(&self) -> bool {
        self.status().is_some_and(|s| s.code == 405)
    }
    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(|s| s.code == 403)
    }
    /// 410: the revision asked for is no longer there; list again.
    pub fn is_gone(&self) -> bool {
        self.status().is_some_and(|s| s.code == 410)
    }
    /// A create that was refused because its namespace is being deleted (`NamespaceTerminating` cause).
    pub fn is_namespace_terminating(&self) -> bool {
        self.status()
            .and_then(|s| s.details.as_ref())
            .is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
    }
    /// How long the server asks to wait, from `details.retryAfterSeconds`.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        let seconds = self.status()?.details.as_ref()?.retry_after_seconds;
        u32::try_from(seconds).ok().filter(|s| *s > 0)
    }
}
