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
        (&["up", "--uplink", "wifi"], 2, "--uplink: uplink 'wifi' is unknown"),
        (&["up", "--uplink", "tun:ts0"], 2, "set uplink_ip"),
        (&["up", "--no-nat"], 2, "--no-nat: this is for the uplinks nat:IFACE and tun:NAME"),
        (&["publish", "web", "8080-8081:80"], 2, "ranges of equal length"),
        (&["show", "ports", "--port", "80"], 2, "for `tapswitch show flows`"),
        (&["publish", "web", "8080:80"], 3, "no daemon listens on"),
        (&["flush", "flows"], 3, "no daemon listens on"),
        (&["network", "uplink", "default"], 3, "no daemon listens on"),
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

#[test]
fn a_network_waits_for_an_uplink_that_nobody_can_open() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("lan.toml");
    // No interface is called like this.
    let networks =
        "[[network]]\nsubnet = '10.9.7.0/24'\nuplink = 'nat:ts-nowhere-0'\nroutes = ['10.8.0.0/16 via 10.9.7.5']\n";
    std::fs::write(&file, networks).unwrap();
    let mut up = command(home.path(), &["up", "--json"]);
    up.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut daemon = Running(up.spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(daemon.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("one line of JSON");
    assert_eq!(ready["networks"][0]["uplink"], "nat:ts-nowhere-0");

    let network = tapswitch(home.path(), &["network", "inspect", "default", "--json"]);
    let network: serde_json::Value = serde_json::from_slice(&network.stdout).expect("a network in JSON");
    assert_eq!(network["uplink_device"]["state"], "waiting-for-device");
    assert_eq!(network["uplink_device"]["nat"]["udp_timeout"], 300);
    assert_eq!(network["routes"][0], "10.8.0.0/16 via 10.9.7.5");
    let given = tapswitch(home.path(), &["network", "uplink", "default"]);
    assert_eq!(given.status.code(), Some(1), "{given:?}");
    assert!(text(&given.stderr).contains("ts-nowhere-0"), "{given:?}");
    let unknown = tapswitch(home.path(), &["network", "uplink", "nowhere"]);
    assert!(text(&unknown.stderr).contains("there is no network 'nowhere'"), "{unknown:?}");

    kill(Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(daemon.0.wait().unwrap().success());
    let mut log = String::new();
    daemon.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("network default waits for its uplink nat:ts-nowhere-0"), "{log}");
    assert!(log.contains("tapswitch network uplink default"), "{log}");
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
