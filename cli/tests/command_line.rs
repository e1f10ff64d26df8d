//! The program from outside: exit codes, what goes to stdout and what to stderr, and a daemon's whole life.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Kills a daemon that a failed test would leave behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn completions_and_manual_pages_are_printed() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = tapswitch(home.path(), &["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("tapswitch"), "{shell}: {output:?}");
    }
    let output = tapswitch(home.path(), &["man"]);
    assert!(text(&output.stdout).contains(".TH tapswitch 1"), "{output:?}");
    let output = tapswitch(home.path(), &["man", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn exit_codes_tell_usage_failure_and_absence_apart() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, code, said) in [
        (&["--version"][..], 0, ""),
        (&["run", "--help"], 0, ""),
        (&["fly"], 2, "unrecognized subcommand"),
        (&["ls", "--fly"], 2, "unexpected argument"),
        (&["up", "--mtu", "9"], 2, "--mtu: mtu 9 is out of range"),
        (&["up", "/nonexistent.toml"], 1, "cannot read the networks from /nonexistent.toml"),
        (&["attach", "no-such-netns"], 1, "no-such-netns"),
        (&["ls"], 3, "start one with `tapswitch up`"),
        (&["show", "flows"], 3, "no daemon listens on"),
    ] {
        let output = tapswitch(home.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {output:?}");
        if code == 0 {
            continue;
        }
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let with_json: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
        let output = tapswitch(home.path(), &with_json);
        assert_eq!(output.status.code(), Some(code), "{with_json:?}: {output:?}");
        let body: serde_json::Value = serde_json::from_slice(&output.stderr).expect("an error in JSON");
        assert!(body["error"].as_str().is_some_and(|error| error.contains(said)), "{with_json:?}: {body}");
    }
}

#[test]
fn a_daemon_says_when_it_is_ready_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let state = home.path().join("state");
        let arguments = ["up", "--json", "--subnet", "10.9.8.0/24", "--internal", "--leases"];
        let mut up = command(home.path(), &arguments);
        up.arg(&state).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut daemon = Running(up.spawn().unwrap());
        let mut ready = String::new();
        BufReader::new(daemon.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).expect("one line of JSON");
        assert_eq!(ready["networks"][0]["subnet"], "10.9.8.0/24");
        assert_eq!(ready["networks"][0]["uplink"], "none");

        assert_eq!(text(&tapswitch(home.path(), &["ls", "--json"]).stdout), "[]\n");
        let networks = tapswitch(home.path(), &["network", "ls"]);
        assert!(text(&networks.stdout).contains("10.9.8.1"), "{networks:?}");
        let unknown = tapswitch(home.path(), &["detach", "nobody"]);
        assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
        let second = command(home.path(), &["up", "--leases"]).arg(&state).output().unwrap();
        assert_eq!(second.status.code(), Some(1), "{second:?}");
        let expected = format!("a daemon (pid {}) already listens on", daemon.0.id());
        assert!(text(&second.stderr).contains(&expected), "{second:?}");

        kill(Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()), signal).unwrap();
        let status = daemon.0.wait().unwrap();
        let mut log = String::new();
        daemon.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(status.success(), "{status}: {log}");
        assert!(!socket(home.path()).exists(), "the socket file was left behind: {log}");
    }
}

fn tapswitch(home: &Path, arguments: &[&str]) -> Output {
    command(home, arguments).output().unwrap()
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapswitch"));
    command.args(arguments).env("TAPSWITCH_SOCKET", socket(home)).env("XDG_STATE_HOME", home).env("HOME", home);
    command
}

fn socket(home: &Path) -> std::path::PathBuf {
    home.join("run/tapswitch.sock")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
