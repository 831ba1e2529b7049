//! Conflicts: fields another manager owns that an apply would change, and the words upstream has for them.

use super::element::Path;
use super::entry::{Identity, Operation};
use crate::status::Cause;

/// One field that another manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other manager as messages show it: `"kubectl" using apps/v1`.
    pub manager: String,
    pub path: Path,
}

impl Conflict {
    pub(super) fn new(owner: &Identity, path: Path) -> Self {
        let mut manager = format!("{:?}", owner.manager);
        if !owner.subresource.is_empty() {
            manager = format!("{manager} with subresource {:?}", owner.subresource);
        }
        if owner.operation == Operation::Update {
            manager = format!("{manager} using {}", owner.api_version);
        }
        Self { manager, path }
    }

    /// The cause in the answer's details.
    pub fn cause(&self) -> Cause {
        Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", self.manager),
            field: self.path.to_string(),
        }
    }
}

/// The answer's message. Conflicts come grouped by manager.
pub(super) fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut lines = Vec::new();
    let mut current = "";
    for conflict in conflicts {
        if conflict.manager != current {
            current = &conflict.manager;
            lines.push(format!("conflicts with {current}:"));
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
