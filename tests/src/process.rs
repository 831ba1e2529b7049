//! Child processes: run one to its end with its output in the error, or keep one in the background by a pid file.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait;

/// How long a process may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Runs a command to its end and returns its standard output. A failure carries the command line and both outputs.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} ended with {}\n{stdout}{stderr}", output.status);
    }
    Ok(stdout)
}

/// A command with arguments, ready to be run.
pub fn command<I, S>(program: impl AsRef<OsStr>, args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A process in the background, found again through its pid file: it outlives the program that started it.
pub struct Background {
    pid_file: PathBuf,
}

impl Background {
    /// Starts `command` in its own session with output appended to `log`, and remembers its pid in `pid_file`.
    pub fn start(command: Command, pid_file: &Path, log: &Path) -> Result<Self> {
        Self::start_by(command, pid_file, log, |command| Ok(command.spawn()?))
    }

    /// Like [`Background::start`], with `spawn` as the way to start it, such as on another host.
    pub fn start_by(
        mut command: Command,
        pid_file: &Path,
        log: &Path,
        spawn: impl FnOnce(&mut Command) -> Result<Child>,
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log).with_context(|| format!("open {log:?}"))?;
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
        let child = spawn(&mut command).with_context(|| format!("start {shown}"))?;
        std::fs::write(pid_file, child.id().to_string()).with_context(|| format!("write {pid_file:?}"))?;
        // Reaped by a thread: a zombie would look alive to everyone who asks for its pid.
        std::thread::spawn(move || {
            let mut child = child;
            // The exit status is of no interest here; who waits for the process looks at its log.
            drop(child.wait());
        });
        Ok(Self { pid_file: pid_file.to_owned() })
    }

    /// The process remembered in `pid_file`, whether it runs or not.
    pub fn at(pid_file: &Path) -> Self {
        Self { pid_file: pid_file.to_owned() }
    }

    pub fn pid(&self) -> Option<u32> {
        let pid = std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()?;
        is_running(pid).then_some(pid)
    }

    /// SIGTERM, then SIGKILL after [`STOP_LIMIT`]. Done when the process is gone; true if it had to be killed.
    pub fn stop(&self) -> Result<bool> {
        let killed = self.stop_with("-TERM")?;
        if self.pid_file.exists() {
            std::fs::remove_file(&self.pid_file).with_context(|| format!("remove {:?}", self.pid_file))?;
        }
        Ok(killed)
    }

    /// SIGKILL, as a power cut for one process.
    pub fn kill(&self) -> Result<()> {
        self.stop_with("-KILL").map(drop)
    }

    fn stop_with(&self, signal: &str) -> Result<bool> {
        let Some(pid) = self.pid() else { return Ok(false) };
        if let Err(error) = run(&mut command("kill", [signal, &pid.to_string()])) {
            // It may have ended between the two.
            return if is_running(pid) { Err(error) } else { Ok(false) };
        }
        let gone = || Ok((!is_running(pid)).then_some(()));
        if wait::until("the process to end", STOP_LIMIT, gone).is_ok() {
            return Ok(false);
        }
        run(&mut command("kill", ["-KILL", &pid.to_string()]))?;
        wait::until("the killed process to end", STOP_LIMIT, gone)?;
        Ok(true)
    }
}

/// Whether a process exists and is not a zombie. A leader that is one while other threads still end holds on to files
/// and ports: it counts as running.
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the command name, which is in parentheses and may itself contain parentheses.
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') || threads() > 1)
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// The most resident memory a process ever had, in KiB.
pub fn peak_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, key: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|l| l.starts_with(key)).with_context(|| format!("no line {key}"))?;
    let number = line.split_whitespace().nth(1).with_context(|| format!("{key} has no number"))?;
    number.parse().with_context(|| format!("{key} {number} is no number"))
}

/// CPU time a process has used so far, user and system.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    /// `USER_HZ`: what `/proc/PID/stat` counts in on every Linux architecture Rust supports.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("malformed stat line")?;
    // utime and stime are fields 14 and 15, counted from 1; `rest` begins with field 3.
    let ticks = rest.split(' ').skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}
