//! The three patch formats that change an object in place: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and
//! strategic merge patch. Values in, a new value out; the document given is never changed. What the server does with
//! the result (decode, default, validate) is not known here.

mod gofmt;
mod json;
mod merge;
mod order;
mod strategic;

use crate::status::Status;

pub use json::{MAX_OPERATIONS, json, unknown_fields};
pub use merge::merge;
pub use strategic::strategic;

/// Why a patch was refused. [`Error::status`] is the answer a client gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch document itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// More operations than [`MAX_OPERATIONS`].
    #[error("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
    /// Well formed, but it does not apply to this document: a failed test, a missing path.
    #[error("{0}")]
    DoesNotApply(String),
    /// Strategic merge met a combination upstream answers with a bare 500 (such as an item without its merge key).
    #[error("{0}")]
    Unmergeable(String),
}

impl Error {
    /// The answer upstream's patch handler gives (`applyJSPatch`, `interpretStrategicMergePatchError`).
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(message) => Status::bad_request(message.clone()),
            Self::TooManyOperations(_) => Status::too_large(self.to_string()),
            // Upstream hides what exactly failed behind this generic server response.
            Self::DoesNotApply(_) => {
                let text = "the server rejected our request due to an error in our request";
                let mut status = Status::new(422, "Invalid", text);
                status.details = Some(Box::default());
                status
            }
            Self::Unmergeable(message) => Status::new(500, "", message.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::properties::arbitrary;
