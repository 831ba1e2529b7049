//! Explanations as text and as JSON.

use std::fmt;

use crate::chain::{Cause, Explanation, Reference};

/// One line per cause, indented below what it causes; below each, what would help.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.object.namespace.as_str() {
            "" => String::new(),
            namespace => format!(" in {namespace}"),
        };
        writeln!(f, "{}{place}: {}", self.object.short(), self.state)?;
        for cause in &self.causes {
            write(f, cause, &self.object, 1)?;
        }
        if self.healthy {
            writeln!(f, "  nothing is wrong with it")?;
        } else if self.causes.is_empty() {
            writeln!(f, "  nothing that the API server shows says why")?;
        }
        for unread in &self.unread {
            writeln!(f, "  could not be looked at: {unread}")?;
        }
        Ok(())
    }
}

fn write(f: &mut fmt::Formatter<'_>, cause: &Cause, above: &Reference, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    let about = cause.object.as_ref().filter(|object| *object != above);
    let subject = about.map(|object| subject(object, above)).unwrap_or_default();
    // A message that says which object that is joins it without a blank: `replicaset/web-1, the newest, has ...`.
    let blank = if subject.is_empty() || cause.message.starts_with(',') { "" } else { " " };
    writeln!(f, "{indent}because {subject}{blank}{}", cause.message)?;
    for below in &cause.causes {
        write(f, below, about.unwrap_or(above), depth + 1)?;
    }
    for fix in &cause.fixes {
        match fix.what.as_str() {
            "" => writeln!(f, "{indent}  fix: {}", fix.command)?,
            what => writeln!(f, "{indent}  fix: {}  # {what}", fix.command)?,
        }
    }
    Ok(())
}

/// The namespace is told where it is another one.
fn subject(object: &Reference, above: &Reference) -> String {
    match object.namespace.as_str() {
        namespace if namespace.is_empty() || namespace == above.namespace => object.short(),
        namespace => format!("{} in {namespace}", object.short()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_from_top_to_bottom() {
        let quota =
            Cause::new("QuotaExceeded", "allows 2 pods").named("ResourceQuota", "a", "q").fix("more", "kubectl x");
        let set = Cause::new("FailedCreate", "has no pods").named("ReplicaSet", "a", "web-1").because([quota]);
        let node = Cause::new("NotReady", "is not ready").named("Node", "", "n").fix("", "kubectl y");
        let explanation = Explanation {
            object: Reference::new("Deployment", "a", "web"),
            state: "0 of 2".into(),
            healthy: false,
            causes: vec![set, node],
            unread: vec!["secrets: no".into()],
        };
        let expected = "\
deployment/web in a: 0 of 2
  because replicaset/web-1 has no pods
    because resourcequota/q allows 2 pods
      fix: kubectl x  # more
  because node/n is not ready
    fix: kubectl y
  could not be looked at: secrets: no
";
        assert_eq!(explanation.to_string(), expected);
    }
}
