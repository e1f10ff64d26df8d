//! `tapswitch run`: a command in a container of its own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tapswitch_tests::{Cmd, GATEWAY, INET, Person, Running, Stopwatch, Switch, World, eventually, needs};

use crate::outside;

fn sh(world: &World, options: &str, script: &str) -> Cmd {
    world.tapswitch(&format!("run {options} -- sh -c")).arg(script)
}

/// The status is the command's own, and the network works before it starts.
fn runs(world: &World) {
    let gateway = "$(ip route show default | cut -d ' ' -f 3)";
    let done = sh(world, "", &format!("ping -n -c 1 -W 2 {gateway}; exit 7")).fails();
    assert_eq!(done.status.code(), Some(7), "{}", done.report());
    done.says("1 received");
    sh(world, "", &format!("ping -n -c 1 -W 2 {INET}")).ok();
    assert_eq!(sh(world, "--hostname shell", "hostname; cat").input("typed\n").ok(), "shell\ntyped\n");
    assert_eq!(sh(world, "", "kill -9 $$").run().status.code(), Some(128 + 9));
    let absent = world.tapswitch("run -- /no/such/program").fails();
    assert_eq!(absent.status.code(), Some(127), "{}", absent.report());
    let data = world.tapswitch("run -- /etc/passwd").fails();
    assert_eq!(data.status.code(), Some(126), "{}", data.report());
}

#[test]
fn run_works_with_a_daemon() {
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        let switch = Switch::up(&world, "");
        runs(&world);
        eventually("the ports are gone", Duration::from_secs(5), || switch.rows("ls").is_empty().then_some(()));
    }
}

#[test]
fn run_brings_its_own_switch_when_there_is_no_daemon() {
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        runs(&world);
        assert!(!world.socket().exists());
    }
}

#[test]
fn what_runs_gets_the_address_and_the_interface_it_asked_for() {
    let world = World::new();
    let _switch = Switch::up(&world, "");
    let options = "--ip 10.88.0.77 --ifname lan0 --mac 02:00:00:00:00:77";
    let shown = sh(&world, options, "ip addr show dev lan0; ip route").ok();
    for expected in ["10.88.0.77/24", "02:00:00:00:00:77", &format!("default via {GATEWAY}")] {
        assert!(shown.contains(expected), "{expected} is missing: {shown}");
    }
}

#[test]
fn names_resolve_in_what_runs() {
    needs!("dnsmasq", "curl", "nginx");
    let world = World::new();
    let _web = outside::web(&world);
    let _dns = outside::name_server(&world);
    let _switch = Switch::up(&world, &format!("--dns {INET}"));
    assert_eq!(sh(&world, "", "curl -sSf http://web.test/small").ok(), "small\n");
    let resolver = sh(&world, "--dns 192.0.2.53 --dns-search lan.test", "cat /etc/resolv.conf").ok();
    assert!(resolver.contains("nameserver 192.0.2.53") && resolver.contains("lan.test"), "{resolver}");
}

#[test]
fn two_that_run_reach_each_other_on_the_daemons_network() {
    let world = World::of(Person::User);
    let switch = Switch::up(&world, "");
    let _server =
        world.tapswitch("run --name server --ip 10.88.0.50 -- sleep 60").spawn(&world.dir().join("server.log"));
    eventually("the server is attached", Duration::from_secs(10), || switch.port("server"));
    sh(&world, "", "ping -n -c 1 -W 3 10.88.0.50").ok();
}

#[test]
fn a_signal_to_run_ends_the_command() {
    let world = World::new();
    let switch = Switch::up(&world, "");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut run = world.tapswitch("run --name sleeper -- sleep 60").spawn(&world.dir().join("run.log"));
        eventually("it runs", Duration::from_secs(10), || switch.port("sleeper"));
        run.signal_group(signal);
        let status = run.wait(Duration::from_secs(10));
        assert!(!status.success(), "{signal}: {status}\n{}", run.output());
        eventually("the port is gone", Duration::from_secs(10), || switch.port("sleeper").is_none().then_some(()));
    }
}

/// An interactive shell on a terminal of its own. What is expected on the screen must differ from what is typed, which
/// the terminal shows too.
struct Terminal {
    shell: Running,
    keys: PathBuf,
}

impl Terminal {
    fn new(world: &World) -> Self {
        let keys = world.home().join("keys");
        // Opened for both directions, the FIFO has no end between two strokes. Tests that were started in the background
        // may ignore SIGINT, and all their children with them.
        let line = r#"rm -f "$KEYS" && mkfifo "$KEYS" && exec env --default-signal=INT script -qec 'sh -i' /dev/null <>"$KEYS""#;
        let person =
            world.person_cmd("sh -c").arg(line).env("KEYS", &keys).env("SHELL", "/bin/sh").env("PS1", "prompt> ");
        let mut terminal = Self { shell: person.spawn(&world.dir().join("screen.log")), keys };
        terminal.shows("prompt> ");
        terminal
    }

    fn types(&self, keys: &str) {
        fs::write(&self.keys, keys).expect("the terminal takes keys");
    }

    /// Types until it shows: a shell may throw away what was typed before its prompt was back.
    #[track_caller]
    fn answers(&self, keys: &str, text: &str) {
        let mut typed: Option<Stopwatch> = None;
        eventually(text, Duration::from_secs(10), || {
            if self.shell.output().contains(text) {
                return Some(());
            }
            if typed.as_ref().is_none_or(|typed| typed.elapsed() > Duration::from_secs(1)) {
                self.types(keys);
                typed = Some(Stopwatch::start());
            }
            None
        });
    }

    #[track_caller]
    fn shows(&mut self, text: &str) {
        self.shell.until_says(text, Duration::from_secs(10));
    }
}

#[test]
fn shell_that_runs_gets_the_terminal_and_gives_it_back() {
    needs!("script", "dash", "bash", "busybox");
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        for shell in ["dash", "bash --norc", "busybox sh"] {
            let mut terminal = Terminal::new(&world);
            terminal.types(&format!("\"$TAPSWITCH_BIN\" run -- {shell}; echo \"status=$?\"\n"));
            terminal.types("echo pid=$$\n");
            terminal.shows("pid=2");
            terminal.types("sh -c 'echo rea\"\"dy; exec sleep 60'\n");
            terminal.shows("ready");
            terminal.types("\x03");
            terminal.answers("echo inter\"\"rupted\n", "interrupted");
            terminal.types("exit 5\n");
            terminal.shows("status=5");
            terminal.types("echo out\"\"side\n");
            terminal.shows("outside");
            let screen = terminal.shell.output();
            assert!(!screen.contains("tty") && !screen.contains("job control"), "{shell}: {screen}");
            terminal.types("exit 6\n");
            assert_eq!(terminal.shell.wait(Duration::from_secs(10)).code(), Some(6), "{shell}: {screen}");
        }
    }
}

#[test]
fn command_that_is_suspended_gives_the_terminal_to_the_shell_outside_until_it_is_continued() {
    needs!("script");
    for person in [Person::Root, Person::User] {
        let world = World::of(person);
        let mut terminal = Terminal::new(&world);
        terminal.types("\"$TAPSWITCH_BIN\" run -- sh -c 'echo rea\"\"dy; read word; echo got-$word'\n");
        terminal.shows("ready");
        terminal.types("\x1a");
        terminal.shows("Stopped");
        terminal.types("echo out\"\"side\n");
        terminal.shows("outside");
        terminal.types("fg\n");
        terminal.types("typed\n");
        terminal.shows("got-typed");
        terminal.types("exit 6\n");
        assert_eq!(terminal.shell.wait(Duration::from_secs(10)).code(), Some(6), "{}", terminal.shell.output());
    }
}
