//! What can go wrong between this process and the kernel.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("netfilter cannot be reached over netlink: {0}")]
    Socket(#[from] io::Error),
    /// Nothing of the transaction took effect.
    #[error("the kernel refused a transaction of {messages} messages at {what}: {source}{detail}")]
    Refused {
        /// Which change it was.
        what: String,
        messages: u32,
        /// What the kernel says beyond the error number; empty where it says nothing.
        detail: String,
        source: io::Error,
    },
    /// The kernel gave no answer to a transaction, which it always does.
    #[error("the kernel did not say what became of a transaction of {messages} messages")]
    NoAnswer { messages: u32 },
    /// What is being read was changed meanwhile, again and again.
    #[error("{what} changed while it was read, {tries} times over")]
    Changing { what: &'static str, tries: u32 },
}

impl Error {
    /// The kernel's error number, if the kernel refused something.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket(source) => source.raw_os_error(),
            Self::NoAnswer { .. } | Self::Changing { .. } => None,
        }
    }
}
