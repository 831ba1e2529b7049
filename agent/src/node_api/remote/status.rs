//! How a session ended, as the client's error stream tells it.

use serde_json::{Value, json};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The command ran and ended so.
    ExitCode(i32),
    /// Something else failed.
    Failure(String),
}

impl Outcome {
    /// Of a process that ended.
    pub fn of_exit(code: i32) -> Self {
        if code == 0 { Self::Success } else { Self::ExitCode(code) }
    }

    /// The status object of protocol version 4 and later.
    pub fn json(&self) -> Value {
        match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::ExitCode(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failure(_) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "InternalError",
                "code": 500,
            }),
        }
    }

    /// What older versions send: failures only, as text.
    pub fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::ExitCode(code) => {
                format!("command terminated with non-zero exit code: command terminated with exit code {code}")
            }
            Self::Failure(problem) => format!("Internal error occurred: {problem}"),
        }
    }

    /// The error stream's contents in a protocol version.
    pub fn text(&self, is_json: bool) -> String {
        if is_json { self.json().to_string() } else { self.message() }
    }
}

/// Versions from 4 on tell the outcome as JSON.
pub fn is_json(protocol: &str) -> bool {
    protocol.starts_with("v4.") || protocol.starts_with("v5.")
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn an_exit_code_is_a_cause() {
        let status = Outcome::of_exit(3).json();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
        assert_eq!(Outcome::of_exit(0).json()["status"], "Success");
        assert_eq!(Outcome::of_exit(0).text(false), "");
    }
}
