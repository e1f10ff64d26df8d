//! The command line. Here it is only parsed; [`crate::config`] and the daemon judge what it asks for.

#![allow(rustdoc::broken_intra_doc_links, reason = "the comments are help texts, and brackets mean optional there")]

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tapswitch_wire::Mac;

use crate::error::EXIT_STATUS;
use tapswitch_link::pass::MAX_QUEUES;

use crate::threads::{CpuList, MAX_WORKERS};

const STYLES: Styles = Styles::styled().header(AnsiColor::Green.on_default().bold());

const RUN_EXAMPLES: &str = "\
Examples:
  tapswitch run -- sh
  tapswitch run --name db --ip 10.210.0.9 -- ./server --port 80
  tapswitch run --allow 127.0.0.1:8080 -- sh
                          (it may reach the host's port 8080)";

const UP_EXAMPLES: &str = "\
Examples:
  tapswitch up
  tapswitch up --subnet 10.9.0.0/24 --isolate --allow 127.0.0.1:8080
  tapswitch up lan.toml --capture all.pcapng

A file holds one table for each network; every key may be left out, and then
has the default of the option above:
  [[network]]
  name = \"lab\"              # default: \"default\"
  subnet = \"10.9.0.0/24\"
  gateway = \"10.9.0.1\"
  mtu = 1500
  uplink = \"user\"           # \"none\" is --internal
  isolate = false
  dns = \"192.0.2.53:53\"     # the resolver that DNS questions go to
  search = [\"lan.example\"]  # default: none
  allow = [\"127.0.0.1:8080\", \"10.1.0.0/16\", \"192.0.2.1:443\"]
  lease_time = 3600         # seconds

Once containers can be attached, one line on stderr says so; with --json it is
one line of JSON on stdout.";

/// A virtual switch and NAT router that lives wholly in user space: containers get TAP devices and an Ethernet LAN with
/// DHCP, a gateway and a way out, without root and without touching the host's network configuration.
#[derive(Debug, Parser)]
#[command(name = "tapswitch", version, styles = STYLES, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(
    after_help = "Examples:\n  tapswitch demo\n  tapswitch run -- sh\n  tapswitch up &  tapswitch attach 4711 --name web\n\n\
                        Run `tapswitch VERB --help` for the options of a verb and its examples."
)]
#[command(after_long_help = long_help())]
pub struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

fn long_help() -> String {
    format!(
        "Examples:\n  tapswitch demo                    see all of it in ten seconds\n  \
         tapswitch run -- sh               a shell in a container, with network\n  \
         tapswitch up                      the daemon, in the foreground\n  \
         tapswitch attach 4711 --name web  joins the container of process 4711\n  \
         tapswitch show flows --json       for programs\n\n{EXIT_STATUS}"
    )
}

/// Options that every verb takes.
#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// Answer in JSON on stdout, and in {"error": TEXT} on stderr [default: text for people]
    #[arg(long, global = true)]
    pub json: bool,
    /// Control socket of the daemon [default: $XDG_RUNTIME_DIR/tapswitch/tapswitch.sock, for root
    /// /run/tapswitch/tapswitch.sock]
    #[arg(long, global = true, value_name = "PATH", env = "TAPSWITCH_SOCKET", hide_env_values = true)]
    pub socket: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show all of it: two containers, DHCP, ping, HTTP through the NAT, and the journey of one packet, explained
    #[command(
        after_help = "Example:\n  tapswitch demo\n\nIt needs no root, no daemon and no other program, and leaves nothing behind."
    )]
    Demo,
    /// Run a command in new namespaces on a network, with the daemon's switch or, if none runs, with its own
    #[command(after_help = RUN_EXAMPLES, after_long_help = format!("{RUN_EXAMPLES}\n\n{EXIT_STATUS}"))]
    Run(RunArgs),
    /// The daemon, in the foreground, until SIGINT or SIGTERM
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Give a container that already runs an interface on a network
    #[command(
        after_help = "Examples:\n  tapswitch attach 4711 --name web\n  tapswitch attach blue --ip 10.210.0.7      \
                            (the namespace that `ip netns` calls blue)\n  tapswitch attach /proc/4711/ns/net --dhcp"
    )]
    Attach(AttachArgs),
    /// Take a container off its network; its interface loses the carrier and disappears
    #[command(after_help = "Example:\n  tapswitch detach web")]
    Detach {
        /// The container's name, as `tapswitch ls` shows it
        name: String,
    },
    /// List the attached containers
    #[command(after_help = "Examples:\n  tapswitch ls\n  tapswitch ls --json")]
    Ls,
    /// List and describe networks
    #[command(subcommand)]
    #[command(after_help = "Examples:\n  tapswitch network ls\n  tapswitch network inspect default")]
    Network(NetworkVerb),
    /// Show what the daemon knows: ports, FDB, neighbours, leases, flows, drops, its own figures
    #[command(
        after_help = "Examples:\n  tapswitch show fdb\n  tapswitch show drops --network default\n  tapswitch show flows --json"
    )]
    Show {
        /// What to show
        #[arg(value_name = "WHAT")]
        what: Table,
        /// Only of this network [default: all]
        #[arg(long, value_name = "NET")]
        network: Option<String>,
    },
    /// Print the completions of a shell
    #[command(
        after_help = "Example:\n  tapswitch completions bash > ~/.local/share/bash-completion/completions/tapswitch"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write all of them into a directory
    #[command(after_help = "Examples:\n  tapswitch man | man -l -\n  tapswitch man ~/.local/share/man/man1")]
    Man {
        /// The directory, which must exist [default: print tapswitch(1) to stdout]
        dir: Option<PathBuf>,
    },
}

/// What `network` does.
#[derive(Debug, Subcommand)]
pub enum NetworkVerb {
    /// List the networks
    #[command(after_help = "Example:\n  tapswitch network ls")]
    Ls,
    /// Describe one network
    #[command(after_help = "Example:\n  tapswitch network inspect default --json")]
    Inspect {
        /// The network's name
        name: String,
    },
}

/// What `show` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// The ports of the switches and what passed through them
    Ports,
    /// Which station stands behind which port
    Fdb,
    /// The gateways' neighbours
    Arp,
    /// Addresses in use
    Leases,
    /// Flows through the uplinks
    Flows,
    /// Dropped frames, by port and reason
    Drops,
    /// The daemon's own figures
    Stats,
}

/// The interface that `attach` and `run` make.
#[derive(Clone, Debug, Args)]
pub struct PortArgs {
    /// Network to join [default: the daemon's first one]
    #[arg(long, value_name = "NET")]
    pub network: Option<String>,
    /// The container's name on the switch [default: made up by the daemon]
    #[arg(long, value_name = "N")]
    pub name: Option<String>,
    /// Name of the interface in the container
    #[arg(long, value_name = "IFNAME", default_value = "eth0")]
    pub ifname: String,
    /// Address of the interface [default: the one that this name had before, else the lowest never used, else the one
    /// released longest ago]
    #[arg(long, value_name = "A", conflicts_with = "dhcp")]
    pub ip: Option<Ipv4Addr>,
    /// MAC address of the interface [default: 02:42: and the four bytes of the address; with --dhcp, one made from the
    /// names of network and container]
    #[arg(long, value_name = "M")]
    pub mac: Option<Mac>,
    /// Set no address: a DHCP client in the container asks for one, and gets the same one under the same name
    /// [default: off, tapswitch sets it]
    #[arg(long)]
    pub dhcp: bool,
    /// A plain TAP: no super-frames, every checksum complete [default: off, offloads are used]
    #[arg(long)]
    pub no_offload: bool,
}

/// Arguments of `attach`.
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// A process id, the name of a namespace (`ip netns list`), or a path such as /proc/4711/ns/net
    pub target: String,
    /// The interface.
    #[command(flatten)]
    pub port: PortArgs,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The interface.
    #[command(flatten)]
    pub port: PortArgs,
    /// Host name in the container [default: the container's name]
    #[arg(long, value_name = "H")]
    pub hostname: Option<String>,
    /// Name server in the container's resolv.conf, may be repeated [default: the network's]
    #[arg(long, value_name = "A")]
    pub dns: Vec<Ipv4Addr>,
    /// Domain that the container's resolver appends, may be repeated [default: the network's]
    #[arg(long, value_name = "D")]
    pub dns_search: Vec<String>,
    /// Destination that may be reached although it is denied by default: ADDR[/LEN][:PORT], an IPv6 one with a port in
    /// brackets, may be repeated. 127.0.0.1:PORT opens that port of the host under the gateway's address. Only where
    /// `run` brings its own switch [default: none]
    #[arg(long, value_name = "RULE")]
    pub allow: Vec<String>,
    /// The command and its arguments [default: $SHELL, or /bin/sh]
    #[arg(value_name = "CMD", trailing_var_arg = true)]
    pub cmd: Vec<OsString>,
}

/// Arguments of `up`.
#[derive(Clone, Debug, Default, Args)]
pub struct UpArgs {
    /// Description of the networks [default: one network, named default, as the options below say]
    #[arg(value_name = "FILE.toml")]
    pub file: Option<PathBuf>,
    /// The network when there is no file.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Directory where leases are kept [default: /var/lib/tapswitch for root, else $XDG_STATE_HOME/tapswitch or
    /// ~/.local/state/tapswitch]
    #[arg(long, value_name = "DIR")]
    pub leases: Option<PathBuf>,
    /// Record every frame that goes to a container into this file [default: no recording]
    #[arg(long, value_name = "FILE.pcapng")]
    pub capture: Option<PathBuf>,
    /// Poll threads, 1 to 64: ports are shared out among them, one network spans them all [default: as many as --cpus
    /// names, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_WORKERS as i64))]
    pub workers: Option<u16>,
    /// CPUs that the poll threads are kept on, one each, as 0-3,8 [default: none, the kernel chooses]
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<CpuList>,
    /// Queues of each container's interface, 1 to 8: poll threads share them, so the flows of one container can be on
    /// several threads; a flow may be reordered once, when it begins, if its other end has fewer queues
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=MAX_QUEUES as i64))]
    pub queues: u8,
    /// How frames are read
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    pub io: IoArg,
    /// What to do when nothing is there
    #[arg(long, value_enum, value_name = "POLICY", default_value = "adaptive")]
    pub poll: PollArg,
    /// Microseconds for which `adaptive` looks again before it sleeps [default: 50, and 0 where fewer than
    /// two CPUs would be left for the containers]
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub spin: Option<u64>,
    /// How much to say on stderr
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    pub log: LogLevel,
}

/// The default network of `up`, when no file describes any.
#[derive(Clone, Debug, Default, Args)]
pub struct NetworkArgs {
    /// Addresses of the network [default: the first /24 of 10.210.0.0/16 that the host does not use]
    #[arg(long, value_name = "CIDR", conflicts_with = "file")]
    pub subnet: Option<String>,
    /// Address of the gateway [default: the first one of the subnet]
    #[arg(long, value_name = "IP", conflicts_with = "file")]
    pub gateway: Option<String>,
    /// MTU of the network, 576 to 65521 [default: 1500]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub mtu: Option<i64>,
    /// No way out: containers reach each other and the gateway only [default: off, uplink user]
    #[arg(long, conflicts_with = "file")]
    pub internal: bool,
    /// Keep the containers from each other [default: off]
    #[arg(long, conflicts_with = "file")]
    pub isolate: bool,
    /// Destination that may be reached although it is denied by default: ADDR[/LEN][:PORT], an IPv6 one with a port in
    /// brackets, may be repeated. 127.0.0.1:PORT opens that port of the host under the gateway's address [default: none;
    /// the host's loopback, its own addresses and metadata addresses are out of reach]
    #[arg(long, value_name = "RULE", conflicts_with = "file")]
    pub allow: Vec<String>,
    /// Resolver that DNS questions to the gateway go to, IP[:PORT] [default: the first nameserver of /etc/resolv.conf]
    #[arg(long, value_name = "RESOLVER", conflicts_with = "file")]
    pub dns: Option<String>,
}

/// How the daemon reads frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum IoArg {
    /// The one that was measured to be best, which is epoll: see docs/performance.md
    #[default]
    Auto,
    /// Readiness by epoll, one read for each frame
    Epoll,
    /// Multishot reads by io_uring (Linux 6.7); epoll where it cannot be used
    Uring,
}

/// What the daemon does when nothing is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PollArg {
    /// Look again for a short while after the last frame, then sleep
    #[default]
    Adaptive,
    /// Look again always: lowest latency, and a CPU of its own
    Busy,
    /// Sleep at once: least CPU
    Sleep,
}

/// How much the daemon says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What makes it give up something
    Error,
    /// What is worth waking somebody
    Warn,
    /// Containers that come and go
    #[default]
    Info,
    /// What the control API was asked, and how that ended
    Debug,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_parses() {
        for line in [
            "tapswitch demo",
            "tapswitch run",
            "tapswitch run -- sh -c true",
            "tapswitch run --network n --name a --ifname e1 --ip 10.0.0.2 --mac 02:42:0a:00:00:02 --no-offload --hostname h \
             --dns 10.0.0.1 --dns 10.0.0.2 --dns-search lan --allow 127.0.0.1:80 -- cmd",
            "tapswitch up",
            "tapswitch up lan.toml --leases /tmp/x --capture a.pcapng --log debug",
            "tapswitch up --poll busy --spin 20",
            "tapswitch up --workers 2 --cpus 0-1 --queues 2 --io uring",
            "tapswitch up --subnet 10.0.0.0/24 --gateway 10.0.0.9 --mtu 9000 --internal --isolate --allow 10.1.0.0/16 --dns 9.9.9.9:53",
            "tapswitch attach 4711 --dhcp",
            "tapswitch attach blue --socket /tmp/s --json",
            "tapswitch detach web",
            "tapswitch ls",
            "tapswitch --json ls",
            "tapswitch network ls",
            "tapswitch network inspect default",
            "tapswitch show ports",
            "tapswitch show fdb --network default",
            "tapswitch show arp",
            "tapswitch show leases",
            "tapswitch show flows",
            "tapswitch show drops",
            "tapswitch show stats",
            "tapswitch completions bash",
            "tapswitch man",
            "tapswitch man /tmp",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for (line, kind) in [
            ("tapswitch fly", ErrorKind::InvalidSubcommand),
            ("tapswitch help", ErrorKind::InvalidSubcommand),
            ("tapswitch attach", ErrorKind::MissingRequiredArgument),
            ("tapswitch attach 1 --dhcp --ip 10.0.0.2", ErrorKind::ArgumentConflict),
            ("tapswitch attach 1 --ip 10.0.0", ErrorKind::ValueValidation),
            ("tapswitch attach 1 --mac 02:42", ErrorKind::ValueValidation),
            ("tapswitch attach 1 --publish 80", ErrorKind::UnknownArgument),
            ("tapswitch run --nmae web", ErrorKind::UnknownArgument),
            ("tapswitch up lan.toml --subnet 10.0.0.0/24", ErrorKind::ArgumentConflict),
            ("tapswitch up lan.toml --isolate", ErrorKind::ArgumentConflict),
            ("tapswitch up --log loud", ErrorKind::InvalidValue),
            ("tapswitch up --log trace", ErrorKind::InvalidValue),
            ("tapswitch show everything", ErrorKind::InvalidValue),
            ("tapswitch network inspect", ErrorKind::MissingRequiredArgument),
            ("tapswitch completions cmd.exe", ErrorKind::InvalidValue),
            ("tapswitch detach", ErrorKind::MissingRequiredArgument),
        ] {
            match parse(line) {
                Ok(cli) => panic!("{line} was taken: {cli:?}"),
                Err(error) => assert_eq!(error.kind(), kind, "{line}: {error}"),
            }
        }
    }

    #[test]
    fn command_of_run_keeps_its_own_options() {
        for line in ["tapswitch run --name a -- ls -l --json", "tapswitch run --name a ls -l --json"] {
            let cli = parse(line).unwrap();
            assert!(!cli.global.json, "{line}");
            let Verb::Run(run) = cli.verb else { panic!("{line} is not run") };
            assert_eq!(run.cmd, ["ls", "-l", "--json"], "{line}");
        }
    }

    #[test]
    fn every_help_states_defaults_and_an_example() {
        fn check(command: &mut clap::Command, path: &str) {
            let help = command.render_help().to_string();
            assert!(help.contains("Example"), "no example in the help of {path}:\n{help}");
            for argument in command.get_arguments().filter(|a| !a.is_positional()) {
                let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let shown = text.contains("[default: ") || !argument.get_default_values().is_empty();
                let own = ["help", "version"].contains(&argument.get_id().as_str());
                assert!(shown || own, "{path}: {} states no default", argument.get_id());
            }
            for verb in command.get_subcommands_mut() {
                let path = format!("{path} {}", verb.get_name());
                check(verb, &path);
            }
        }
        check(&mut Cli::command(), "tapswitch");
    }
}
