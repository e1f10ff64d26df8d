//! Commands with a time limit, and processes that end with the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::clock::{Stopwatch, eventually};

/// A command that has not run yet.
pub struct Cmd {
    command: Command,
    input: Option<Vec<u8>>,
    limit: Duration,
}

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// The command line, for messages.
    pub line: String,
    /// Its status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Cmd {
    /// The command `line[0]` with the arguments that follow it.
    pub fn new<S: AsRef<OsStr>>(line: impl IntoIterator<Item = S>) -> Self {
        let mut line = line.into_iter();
        let program = line.next().expect("a command line has a program");
        let mut command = Command::new(program);
        command.args(line).process_group(0);
        Self { command, input: None, limit: Duration::from_secs(30) }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads from standard input; nothing otherwise.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// How long it may take (30 s otherwise). Whoever takes longer is killed, and the test fails.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// `next` as the last arguments of this command, which has to execute them. Keeps the environment of `next`.
    #[must_use]
    pub fn then(mut self, next: Cmd) -> Self {
        self.command.arg(next.command.get_program()).args(next.command.get_args());
        self.command.envs(next.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self
    }

    fn line(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end, whatever that is.
    #[track_caller]
    pub fn run(mut self) -> Done {
        let line = self.line();
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let watch = Stopwatch::start();
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("cannot start `{line}`: {e}"));
        if let (Some(input), Some(mut stdin)) = (self.input.take(), child.stdin.take()) {
            // A command that does not read its input closes the pipe; its status tells the test enough.
            thread::spawn(move || stdin.write_all(&input).ok());
        }
        let stdout = drain(child.stdout.take());
        let stderr = drain(child.stderr.take());
        let status = wait(&mut child, self.limit);
        let took = watch.elapsed();
        if status.is_none() {
            end_group(&mut child);
        }
        let (stdout, stderr) = (collect(stdout), collect(stderr));
        let status =
            status.unwrap_or_else(|| panic!("`{line}` did not end within {:?}\n{stdout}\n{stderr}", self.limit));
        Done { line, status, stdout, stderr, took }
    }

    /// Runs it and returns its standard output. Panics with everything it said if it fails.
    #[track_caller]
    pub fn ok(self) -> String {
        let done = self.run();
        assert!(done.status.success(), "{}", done.report());
        done.stdout
    }

    /// Runs it and panics if it succeeds.
    #[track_caller]
    pub fn fails(self) -> Done {
        let done = self.run();
        assert!(!done.status.success(), "should have failed: {}", done.report());
        done
    }

    /// Starts it; its output goes to the file `log`.
    pub fn spawn(mut self, log: &Path) -> Running {
        let line = self.line();
        let file = File::create(log).unwrap_or_else(|e| panic!("cannot create {}: {e}", log.display()));
        let again = file.try_clone().expect("a log can be shared");
        self.command.stdin(Stdio::null()).stdout(file).stderr(again);
        let child = self.command.spawn().unwrap_or_else(|e| panic!("cannot start `{line}`: {e}"));
        Running { line, child, log: log.to_owned() }
    }
}

impl Done {
    /// Everything about it, for the message of a failing test.
    pub fn report(&self) -> String {
        format!(
            "`{}` ended with {} after {:?}\nstdout:\n{}\nstderr:\n{}",
            self.line, self.status, self.took, self.stdout, self.stderr
        )
    }

    /// Panics unless one of its outputs contains `text`, in whatever case.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        let all = format!("{}\n{}", self.stdout, self.stderr).to_lowercase();
        assert!(all.contains(&text.to_lowercase()), "{text:?} is missing: {}", self.report());
        self
    }

    /// Panics unless it ended within `limit`.
    #[track_caller]
    pub fn within(&self, limit: Duration) -> &Self {
        assert!(self.took <= limit, "took longer than {limit:?}: {}", self.report());
        self
    }
}

/// A process in the background. Dropping it kills it and everything in its process group.
pub struct Running {
    line: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal, to it alone.
    pub fn signal(&self, signal: Signal) {
        kill(id(&self.child), signal).unwrap_or_else(|e| panic!("cannot signal `{}`: {e}", self.line));
    }

    /// Sends its whole process group a signal, as a terminal does on Ctrl-C.
    pub fn signal_group(&self, signal: Signal) {
        killpg(id(&self.child), signal).unwrap_or_else(|e| panic!("cannot signal `{}`: {e}", self.line));
    }

    /// Waits for its end. Panics with its output if that does not come in time.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait(&mut self.child, limit)
            .unwrap_or_else(|| panic!("`{}` did not end within {limit:?}\n{}", self.line, self.output()))
    }

    /// Kills it, and only it, the hard way.
    pub fn kill_9(&mut self) {
        self.signal(Signal::SIGKILL);
        let status = self.wait(Duration::from_secs(10));
        assert_eq!(status.signal(), Some(9), "`{}` ended before it was killed: {status}", self.line);
    }

    /// Waits until its output contains `text`.
    #[track_caller]
    pub fn until_says(&mut self, text: &str, limit: Duration) {
        eventually(&format!("`{}` says {text:?}", self.line), limit, || {
            let found = self.output().contains(text);
            assert!(found || self.is_alive(), "`{}` ended without {text:?}:\n{}", self.line, self.output());
            found.then_some(())
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

fn id(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn end_group(child: &mut Child) {
    // Both fail only if nobody is left to kill.
    let _ = killpg(id(child), Signal::SIGKILL);
    let _ = child.kill();
    let _ = child.wait();
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let watch = Stopwatch::start();
    eventually("a child ends", limit + Duration::from_secs(1), || match child.try_wait() {
        Ok(Some(status)) => Some(Some(status)),
        Ok(None) if watch.elapsed() < limit => None,
        _ => Some(None),
    })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is what there is to show.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn collect(reader: JoinHandle<String>) -> String {
    reader.join().expect("the reader of a pipe does not panic")
}
