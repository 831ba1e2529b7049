//! A process for each trial: what a process counts up from its start (tokio's seeds do), and where things lie in its
//! memory, must not depend on the trials that ran before.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use crate::{cluster, simulation};

/// Names the one trial that this process is for.
pub const TRIAL: &str = "KEELSON_TRIAL";
/// The seed of a trial.
pub const SEED: &str = "KEELSON_SEED";
/// A `tracing` filter; the log has simulated times. Best with one trial.
pub const LOG: &str = "KEELSON_LOG";

/// A trial that loops ends here; the longest take a few seconds. Time of the processor, so that a busy machine counts
/// for nothing.
const CPU_SECONDS_MAX: libc::rlim_t = 60;

/// Runs a trial in a process of its own; gives what it said, or why it failed.
pub fn run(trial: &str, seed: u64) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    let mut command = Command::new(program);
    command.env(TRIAL, trial).env(SEED, seed.to_string()).stdin(Stdio::null());
    if std::env::var_os(LOG).is_some() {
        command.stderr(Stdio::inherit());
    }
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(|| {
            // Hashes of some maps are seeded with addresses. A kernel that refuses leaves them random.
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            let limit = libc::rlimit { rlim_cur: CPU_SECONDS_MAX, rlim_max: CPU_SECONDS_MAX };
            libc::setrlimit(libc::RLIMIT_CPU, &limit);
            Ok(())
        });
    }
    let output = command.output().map_err(|e| format!("start a process: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{}({})", String::from_utf8_lossy(&output.stderr), output.status)),
    }
}

/// The process of a trial.
pub fn child(trial: &str, work: impl FnOnce(&str) -> Result<String, String>) -> ExitCode {
    if let Ok(filter) = std::env::var(LOG) {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    cluster::prepare();
    simulation::note_panics();
    match work(trial) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
