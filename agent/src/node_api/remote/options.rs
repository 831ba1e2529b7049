//! Which streams an exec or attach wants.

use super::super::{answer::Refusal, query::Query};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    pub fn parse(query: &Query) -> Result<Self, Refusal> {
        // The kubelet's names; the API server translates its own (`stdin=true`) to them.
        let set = |name: &str| query.get(name) == Some("1");
        let (tty, stdin, stdout) = (set("tty"), set("input"), set("output"));
        // A terminal has one output.
        let stderr = set("error") && !tty;
        if !stdin && !stdout && !stderr {
            return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(Self { stdin, stdout, stderr, tty })
    }
}

#[cfg(test)]
mod tests {
    use super::{Query, Wanted};

    #[test]
    fn a_terminal_has_no_stderr_and_something_must_be_wanted() {
        let parse = |text: &str| Wanted::parse(&Query::parse(text));
        let wanted = parse("tty=1&error=1&output=1&input=1").unwrap();
        assert_eq!(wanted, Wanted { stdin: true, stdout: true, stderr: false, tty: true });
        assert!(parse("tty=1&error=1").is_err());
        assert!(parse("output=true").is_err());
    }
}
