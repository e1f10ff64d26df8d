//! `tapswitch run`: a command in new namespaces, with an interface on a network.
//!
//! It behaves as a program would that was started without it. The terminal is the command's: Ctrl-C reaches it, and
//! this process waits for what the command makes of it. Other signals are passed on. The exit status is the command's.
//!
//! The switch is the daemon's if one listens. If none does, and no `--socket` names one, this process brings a switch
//! of its own, which nobody else can see and which ends with the command.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use crate::api::{AttachOffer, AttachRequest, AttachTap};
use crate::args::{Global, RunArgs};
use crate::client::Client;
use crate::config::{Config, Host, check_domain};
use crate::container::{Container, FAILED, Group, InterfacePlan, Plan};
use crate::daemon::{Daemon, Options};
use crate::error::Error;

/// Passed on to the command.
const FORWARDED: [Signal; 4] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
/// From the terminal they reach the command by themselves.
const KEYS: [Signal; 2] = [Signal::SIGINT, Signal::SIGQUIT];
/// What `--socket` is if it is not given.
const SOCKET_VARIABLE: &str = "TAPSWITCH_SOCKET";

pub(super) fn execute(global: &Global, args: &RunArgs) -> Result<u8, Error> {
    match run(global, args) {
        Ok(status) => Ok(status),
        // The other exit codes belong to the command.
        Err(error) => {
            error.report(global.json);
            Ok(FAILED)
        }
    }
}

fn run(global: &Global, args: &RunArgs) -> Result<u8, Error> {
    check(args)?;
    // Before a switch of our own starts its threads, which must not take up signals either.
    let signals = Signals::block()?;
    let terminal = Terminal::held();
    let (own_switch, client) = connect(global, args)?;
    let argv = command(&args.cmd, std::env::var_os("SHELL"));
    let stdin = io::stdin();
    let mut made = None;
    let port = client.attach(&request(args), |offer| {
        let plan = plan(args, offer, argv.clone());
        let (container, tap) = Container::make(plan, stdin.as_fd(), Group::Ours)?;
        made = Some(container);
        Ok((AttachTap { interface: args.port.ifname.clone(), target: target(&argv) }, tap))
    })?;
    // Nobody but us can tell which ports were picked if the switch is our own, and whose name it is may have more.
    let picked = args.port.publish.iter().any(|spec| spec.host_ports.is_none());
    if picked || port.published.len() > args.port.publish.len() {
        eprint!("{}", super::publish::lines(&port.name, &port.published));
    }
    let mut container = made.ok_or_else(|| Error::failed("the switch took a container that was never made"))?;
    container.go()?;
    let status = signals.wait_for(container)?;
    terminal.take_back();
    drop(own_switch);
    Ok(status)
}

/// What the parser could not judge.
fn check(args: &RunArgs) -> Result<(), Error> {
    for domain in &args.dns_search {
        check_domain(domain).map_err(|why| Error::Usage(format!("--dns-search: {why}")))?;
    }
    Ok(())
}

/// The daemon's switch or our own.
fn connect(global: &Global, args: &RunArgs) -> Result<(Option<Daemon>, Client), Error> {
    let named = is_named(global.socket.as_deref(), std::env::var_os(SOCKET_VARIABLE).as_deref());
    match super::connect(global) {
        Ok(_) if !args.allow.is_empty() => Err(Error::Usage(
            "--allow is for a switch of run's own, but a daemon runs, and what may be reached is its decision; start \
             the daemon with `tapswitch up --allow RULE`, or leave --allow out"
                .into(),
        )),
        Ok(client) => Ok((None, client)),
        Err(Error::NoDaemon(_)) if !named => {
            let plans = Config::own(&args.allow).plan(&Host::read(), None)?;
            let daemon = Daemon::start(plans, Options::default())?;
            let client = Client::over(daemon.connect()?)?;
            Ok((Some(daemon), client))
        }
        Err(error) => Err(error),
    }
}

/// Whether `--socket` names a daemon. The variable only says where one would be.
fn is_named(socket: Option<&Path>, variable: Option<&OsStr>) -> bool {
    socket.is_some_and(|socket| variable != Some(socket.as_os_str()))
}

fn command(given: &[OsString], shell: Option<OsString>) -> Vec<OsString> {
    if given.is_empty() {
        vec![shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into())]
    } else {
        given.to_vec()
    }
}

fn request(args: &RunArgs) -> AttachRequest {
    let port = &args.port;
    AttachRequest {
        network: port.network.clone(),
        name: port.name.clone(),
        ip: port.ip,
        mac: port.mac,
        dhcp: port.dhcp,
        publish: port.publish.clone(),
    }
}

fn plan(args: &RunArgs, offer: &AttachOffer, argv: Vec<OsString>) -> Plan {
    Plan {
        hostname: args.hostname.clone().unwrap_or_else(|| offer.name.clone()),
        resolv_conf: Some(resolv_conf(args, offer)),
        interface: InterfacePlan::new(offer, &args.port.ifname, !args.port.no_offload),
        argv,
    }
}

/// Where it runs, in words: `run: sh`.
fn target(argv: &[OsString]) -> String {
    let program = argv.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    format!("run: {}", program.to_string_lossy())
}

/// The container's resolv.conf.
fn resolv_conf(args: &RunArgs, offer: &AttachOffer) -> String {
    let servers = if args.dns.is_empty() { &offer.dns } else { &args.dns };
    let search = if args.dns_search.is_empty() { &offer.search } else { &args.dns_search };
    let mut text = String::from("# made by tapswitch for this container\n");
    for server in servers {
        text += &format!("nameserver {server}\n");
    }
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    text
}

/// The signals that this process takes up one by one instead of dying of them.
struct Signals(SignalFd);

impl Signals {
    fn block() -> Result<Signals, Error> {
        let failed = |error| Error::failed(format!("cannot block signals: {error}; please report this"));
        let mut taken: SigSet = FORWARDED.into_iter().chain(KEYS).collect();
        taken.add(Signal::SIGCHLD);
        let mut blocked = taken;
        // Blocked, it does not keep us from taking the terminal back.
        blocked.add(Signal::SIGTTOU);
        blocked.thread_block().map_err(failed)?;
        SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC).map(Signals).map_err(failed)
    }

    /// Passes signals on until the container's command has ended.
    fn wait_for(self, mut container: Container) -> Result<u8, Error> {
        loop {
            if let Some(status) = container.ended()? {
                return Ok(status);
            }
            let signal = match self.0.read_signal() {
                Ok(Some(signal)) => signal,
                Ok(None) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    return Err(Error::failed(format!("cannot wait for signals: {error}; please report this")));
                }
            };
            let from_process = signal.ssi_code <= nix::libc::SI_USER;
            if let Some(signal) = passed_on(signal.ssi_signo, from_process) {
                container.signal(signal);
            }
        }
    }
}

/// What the command gets when this process gets a signal. One of the keyboard's that a process sends has reached nobody
/// else, and asks for the end.
fn passed_on(signal: u32, from_process: bool) -> Option<Signal> {
    let signal = Signal::try_from(i32::try_from(signal).ok()?).ok()?;
    if FORWARDED.contains(&signal) {
        Some(signal)
    } else if KEYS.contains(&signal) && from_process {
        Some(Signal::SIGTERM)
    } else {
        None
    }
}

/// The terminal, if this process is in its foreground. The command gets it, and cannot give it back to a process outside
/// of its PID namespace.
struct Terminal(Option<Pid>);

impl Terminal {
    fn held() -> Terminal {
        let stdin = io::stdin();
        let held = stdin.is_terminal() && tcgetpgrp(stdin.as_fd()) == Ok(getpgrp());
        Terminal(held.then(getpgrp))
    }

    fn take_back(self) {
        let stdin = io::stdin();
        if let Some(group) = self.0
            // Every group of the container is gone; one that lives is of a shell that sent us to the background.
            && tcgetpgrp(stdin.as_fd()).is_ok_and(|holder| killpg(holder, None) == Err(Errno::ESRCH))
        {
            // A terminal that was hung up meanwhile has no foreground any more.
            let _ = tcsetpgrp(stdin.as_fd(), group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser;

    use crate::args::{Cli, Verb};

    fn args(line: &str) -> RunArgs {
        match Cli::try_parse_from(line.split_whitespace()).unwrap().verb {
            Verb::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn offer() -> AttachOffer {
        AttachOffer {
            network: "default".into(),
            name: "web".into(),
            mac: "02:42:0a:00:00:02".parse().unwrap(),
            ip: Some("10.0.0.2".parse().unwrap()),
            subnet: "10.0.0.0/24".parse().unwrap(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            dns: vec!["10.0.0.1".parse().unwrap()],
            search: vec!["lan".into()],
            mtu: 1500,
            queues: 1,
        }
    }

    #[test]
    fn command_is_the_given_one_or_the_shell() {
        let strings = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(command(&strings(&["ls", "-l"]), Some("/bin/zsh".into())), strings(&["ls", "-l"]));
        assert_eq!(command(&[], Some("/bin/zsh".into())), strings(&["/bin/zsh"]));
        assert_eq!(command(&[], Some("".into())), strings(&["/bin/sh"]));
        assert_eq!(command(&[], None), strings(&["/bin/sh"]));
        assert_eq!(target(&strings(&["/usr/bin/env", "-i"])), "run: env");
    }

    #[test]
    fn only_the_option_insists_on_a_daemon() {
        let (a, b) = (Path::new("/a.sock"), OsStr::new("/b.sock"));
        assert!(is_named(Some(a), None));
        assert!(is_named(Some(a), Some(b)));
        assert!(!is_named(Some(a), Some(a.as_os_str())));
        assert!(!is_named(None, None));
    }

    #[test]
    fn resolver_is_the_offered_one_unless_options_say_otherwise() {
        let text = |line: &str| resolv_conf(&args(line), &offer());
        let head = "# made by tapswitch for this container\n";
        assert_eq!(text("tapswitch run"), format!("{head}nameserver 10.0.0.1\nsearch lan\n"));
        assert_eq!(
            text("tapswitch run --dns 192.0.2.1 --dns 192.0.2.2 --dns-search a.example --dns-search b.example"),
            format!("{head}nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example b.example\n")
        );
    }

    #[test]
    fn search_domain_cannot_smuggle_lines_into_the_resolver() {
        let mut args = args("tapswitch run");
        args.dns_search = vec!["a\nnameserver 192.0.2.66".into()];
        assert!(matches!(check(&args), Err(Error::Usage(_))));
    }

    #[test]
    fn container_is_named_after_its_port_unless_told_otherwise() {
        assert_eq!(plan(&args("tapswitch run"), &offer(), Vec::new()).hostname, "web");
        assert_eq!(plan(&args("tapswitch run --hostname db"), &offer(), Vec::new()).hostname, "db");
    }

    #[test]
    fn keys_are_left_to_the_terminal_and_all_else_is_passed_on() {
        let number = |signal: Signal| signal as u32;
        assert_eq!(passed_on(number(Signal::SIGINT), false), None);
        assert_eq!(passed_on(number(Signal::SIGINT), true), Some(Signal::SIGTERM));
        assert_eq!(passed_on(number(Signal::SIGTERM), true), Some(Signal::SIGTERM));
        assert_eq!(passed_on(number(Signal::SIGHUP), false), Some(Signal::SIGHUP));
        assert_eq!(passed_on(number(Signal::SIGCHLD), false), None);
    }
}
