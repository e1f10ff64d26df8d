//! Child processes, each with a time limit, none outliving its handle.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Lines of a process's stderr that are kept to explain a failure.
const KEPT_LINES: usize = 12;

enum Line {
    Out(String),
    Err(String),
}

/// A running child. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<Line>,
    what: String,
    last_words: VecDeque<String>,
}

impl Process {
    /// Starts `command`, called `what` where something has to be said about it. Its stdin stays open, and empty, for as
    /// long as the handle lives.
    pub(crate) fn start(what: impl Into<String>, command: &mut Command) -> Result<Self, String> {
        let what = what.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {what}: {error}"))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, sender.clone(), Line::Out);
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, sender, Line::Err);
        }
        Ok(Self { child, lines, what, last_words: VecDeque::new() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it writes a line that contains `text`.
    pub(crate) fn expect(&mut self, text: &str, limit: Duration) -> Result<String, String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Line::Out(line) | Line::Err(line)) if line.contains(text) => return Ok(line),
                Ok(Line::Out(line) | Line::Err(line)) => self.remember(line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("did not start within {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure("ended at once")),
            }
        }
    }

    /// Waits until `sign` is there: for those that say nothing when they are ready.
    pub(crate) fn until(&mut self, sign: impl Fn() -> bool, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        while !sign() {
            if Instant::now() > deadline {
                return Err(self.failure(&format!("was not ready within {} s", limit.as_secs())));
            }
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(Line::Out(line) | Line::Err(line)) => self.remember(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.failure("ended at once")),
            }
        }
        Ok(())
    }

    /// Waits until it ends, and returns what it wrote to stdout. Kills it if it takes longer than `limit`.
    pub(crate) fn finish(mut self, limit: Duration) -> Result<String, String> {
        let deadline = Instant::now() + limit;
        let mut output = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Line::Out(line)) => {
                    output.push_str(&line);
                    output.push('\n');
                }
                Ok(Line::Err(line)) => self.remember(line),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.failure(&format!("did not end within {} s and was killed", limit.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait().map_err(|error| format!("cannot wait for {}: {error}", self.what))?;
        if status.success() {
            return Ok(output);
        }
        // Where a program writes its reason to stdout (iperf3 -J does), that is the reason.
        match output.trim() {
            "" => Err(self.failure(&format!("failed ({status})"))),
            said => Err(said.to_owned()),
        }
    }

    /// How it ended, if it has, and its last words.
    pub(crate) fn obituary(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(self.failure(&format!("has ended ({status})")))
    }

    /// Stops it where it stands, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        // It can only fail if the process has ended, which whoever needs it will notice.
        let _ =
            kill(Pid::from_raw(self.child.id().cast_signed()), if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    fn remember(&mut self, line: String) {
        if self.last_words.len() == KEPT_LINES {
            self.last_words.pop_front();
        }
        self.last_words.push_back(line);
    }

    fn failure(&mut self, how: &str) -> String {
        while let Ok(Line::Out(line) | Line::Err(line)) = self.lines.try_recv() {
            self.remember(line);
        }
        let words: Vec<&str> = self.last_words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [] => format!("{} {how}", self.what),
            words => format!("{} {how}: {}", self.what, words.join("\n  ")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end, within ten seconds, and returns its stdout.
pub(crate) fn output(what: &str, command: &mut Command) -> Result<String, String> {
    Process::start(what, command)?.finish(Duration::from_secs(10))
}

fn collect(from: impl Read + Send + 'static, lines: Sender<Line>, wrap: fn(String) -> Line) {
    thread::spawn(move || {
        // Not `lines()`: what a peer logs need not be UTF-8, and one odd byte must not end the reading.
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { break };
            if lines.send(wrap(String::from_utf8_lossy(&line).into_owned())).is_err() {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::start("the script", Command::new("sh").args(["-c", script])).expect("sh starts")
    }

    #[test]
    fn a_process_is_heard_and_its_output_returned() {
        let mut process = shell("echo ready; echo 1; echo 2");
        assert_eq!(process.expect("read", Duration::from_secs(5)), Ok("ready".into()));
        assert_eq!(process.finish(Duration::from_secs(5)), Ok("1\n2\n".into()));
    }

    #[test]
    fn a_failure_says_who_how_and_the_last_words() {
        let failure = shell("echo no such thing >&2; exit 3").finish(Duration::from_secs(5));
        assert_eq!(failure, Err("the script failed (exit status: 3): no such thing".into()));
    }

    #[test]
    fn a_process_that_takes_too_long_is_killed() {
        let process = shell("exec sleep 60");
        let id = process.id();
        assert!(process.finish(Duration::from_millis(50)).is_err_and(|reason| reason.contains("was killed")));
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
