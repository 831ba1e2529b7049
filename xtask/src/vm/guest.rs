//! Commands inside a machine, through QEMU's guest agent: JSON lines over a socket, no network and no password.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// One answer. An emulated machine that is busy takes its time.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const POLL_PAUSE: Duration = Duration::from_millis(200);

/// The guest agent of one machine. Every command has a connection of its own, so that a machine which was slow once
/// does not answer the next question with an old answer.
pub struct Guest {
    socket: PathBuf,
}

struct Connection {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Guest {
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn connect(&self) -> Result<Connection> {
        let stream = UnixStream::connect(&self.socket).with_context(|| format!("connect to {:?}", self.socket))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let answers = BufReader::new(stream.try_clone()?);
        let mut connection = Connection { stream, answers };
        let mark = u64::from(std::process::id()) << 16 | u64::from(next_mark());
        connection.send(&json!({"execute": "guest-sync", "arguments": {"id": mark}}))?;
        // What an earlier, abandoned connection asked may still be answered first.
        while connection.receive()?["return"] != json!(mark) {}
        Ok(connection)
    }

    /// Whether the machine is up far enough to take commands.
    pub fn is_up(&self) -> Result<()> {
        self.connect()?.call("guest-ping", &json!({})).map(drop)
    }

    /// Runs a shell command as root and returns its standard output.
    pub fn run(&self, script: &str, limit: Duration) -> Result<String> {
        let arguments = json!({"path": "/bin/sh", "arg": ["-c", script], "capture-output": true});
        let started = self.connect()?.call("guest-exec", &arguments)?;
        let start = Instant::now();
        loop {
            let status = self.connect()?.call("guest-exec-status", &json!({"pid": started["pid"]}))?;
            if status["exited"] == true {
                let text = |name: &str| decode(status[name].as_str().unwrap_or_default());
                let (output, errors) = (text("out-data")?, text("err-data")?);
                if status["exitcode"] != 0 {
                    bail!("in the machine, {script:?} ended with {}\n{output}{errors}", status["exitcode"]);
                }
                return Ok(output);
            }
            if start.elapsed() > limit {
                bail!("in the machine, {script:?} did not end within {limit:?}");
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// Asks the machine to shut down as its power button would.
    pub fn power_down(&self) -> Result<()> {
        // There is no answer: whoever would give it is shutting down.
        self.connect()?.send(&json!({"execute": "guest-shutdown", "arguments": {"mode": "powerdown"}}))
    }
}

impl Connection {
    fn send(&mut self, request: &Value) -> Result<()> {
        writeln!(self.stream, "{request}").context("ask the guest agent")
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let size = self.answers.read_line(&mut line).context("wait for the guest agent")?;
        if size == 0 {
            bail!("the machine is gone");
        }
        serde_json::from_str(&line).with_context(|| format!("the guest agent's answer {line:?}"))
    }

    fn call(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        self.send(&json!({"execute": name, "arguments": arguments}))?;
        let answer = self.receive()?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("{name}: {}", answer["error"]["desc"]),
        }
    }
}

/// Tells the connections of one process apart.
fn next_mark() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Base64 (RFC 4648) to text; not worth a dependency of the one crate that builds on a bare machine.
fn decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for symbol in text.bytes().filter(|symbol| *symbol != b'=') {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("{other:#x} is no base64"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn base64_is_decoded_with_any_padding() {
        for (coded, plain) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("w7wK", "ü\n")] {
            assert_eq!(decode(coded).expect("decodes"), plain);
        }
        assert!(decode("Zm 9v").is_err());
    }
}
