//! The command line. Here it is only parsed; [`crate::config`] and the daemon judge what it asks for.

#![allow(rustdoc::broken_intra_doc_links, reason = "the comments are help texts, and brackets mean optional there")]

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tapswitch_wire::Mac;

mod capture;
mod explain;

pub use capture::CaptureArgs;
pub use explain::ExplainArgs;

use crate::error::EXIT_STATUS;
use tapswitch_link::pass::MAX_QUEUES;

use crate::publish::Spec;
use crate::threads::{CpuList, MAX_WORKERS};

const STYLES: Styles = Styles::styled().header(AnsiColor::Green.on_default().bold());

const RUN_EXAMPLES: &str = "\
Examples:
  tapswitch run -- sh
  tapswitch run --name db --ip 10.210.0.9 -- ./server --port 80
  tapswitch run -p 8080:80 -- ./server
                          (port 8080 of the host leads to its port 80)
  tapswitch run --allow 127.0.0.1:8080 -- sh
                          (it may reach the host's port 8080)";

const PUBLISH_EXAMPLES: &str = "\
Examples:
  tapswitch publish web 8080:80             port 8080 of every address
  tapswitch publish web 127.0.0.1:8080:80   of this address only
  tapswitch publish web 80                  a free port, which the answer names
  tapswitch publish dns 53:53/udp 53:53
  tapswitch publish web 8000-8009:80-89     each port leads to its own";

const TRACE_EXAMPLES: &str = "\
Examples:
  tapswitch trace                           every frame, up to 1000 a second
  tapswitch trace container web and tcp port 443
  tapswitch trace drop                      what is dropped, and why
  tapswitch trace -c 1 arp --json           one frame, for programs";

const UPLINK_EXAMPLES: &str = "\
Examples:
  sudo tapswitch --socket $XDG_RUNTIME_DIR/tapswitch/tapswitch.sock network uplink default
  tapswitch network uplink default --macvtap

The device that the network waits for (see tapswitch network inspect NETWORK)
is opened here, with the rights and in the network namespace of the caller,
and handed to the daemon, which needs no rights for it.";

const UP_EXAMPLES: &str = "\
Examples:
  tapswitch up
  tapswitch up --subnet 10.9.0.0/24 --isolate --allow 127.0.0.1:8080
  tapswitch up --uplink nat:eth0
  tapswitch up --uplink tun:ts0 --uplink-ip 192.0.2.2/24
  tapswitch up lan.toml --capture all.pcapng

A file holds one table for each network; every key may be left out, and then
has the default of the option above:
  [[network]]
  name = \"lab\"              # default: \"default\"
  subnet = \"10.9.0.0/24\"
  gateway = \"10.9.0.1\"
  mtu = 1500
  uplink = \"user\"           # \"none\" is --internal; or \"nat:IFACE\",
                            # \"lan:IFACE\", \"tun:NAME\"
  isolate = false
  dns = \"192.0.2.53:53\"     # the resolver that DNS questions go to
  search = [\"lan.example\"]  # default: none
  allow = [\"127.0.0.1:8080\", \"10.1.0.0/16\", \"192.0.2.1:443\"]
  publish = [\"web=8080:80\", \"dns=53:53/udp\"]
                            # NAME=SPEC, see --publish of run; default: none
  routes = [\"10.8.0.0/16 via 10.9.0.5\"]
                            # default: none
  connect = [\"office\"]      # networks that it is routed to; default: none
  lease_time = 3600         # seconds

For the uplinks nat:IFACE and tun:NAME there are also the keys uplink_ip,
uplink_gateway, uplink_mac, uplink_mtu and translate (false is --no-nat), and
a table for how they translate, here with its defaults; times in seconds:
  [network.nat]
  mapping = \"endpoint-independent\"    # or \"address-dependent\" or
  filtering = \"address-dependent\"     # \"address-and-port-dependent\"
  ports = \"random\"                    # or \"preserve\"
  port_range = \"1024-65535\"
  udp_timeout = 300                  # RFC 4787: at least 120
  tcp_established_timeout = 7440     # RFC 5382: at least 7440
  tcp_transitory_timeout = 240       # RFC 5382: at least 240
  icmp_timeout = 60                  # RFC 5508: at least 60
  max_sessions = 262144
  container_sessions = 65536         # of one container,
  container_rate = 50000             # new ones in a second,
  container_ports = 32768            # and its ports of one protocol
  no_translate = []                  # destinations, as [\"10.0.0.0/8\"]
  hairpin = true

An uplink that is a device is opened with the rights of this process. If they
do not suffice, the network waits for it: see tapswitch network uplink --help.

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
         tapswitch publish web 8080:80     port 8080 of the host leads to its port 80\n  \
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
    /// Publish ports of a container, until they are unpublished: whenever a container of that name is attached
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish {
        /// The container's name, as `tapswitch ls` shows it
        name: String,
        /// [HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp]. Without HOSTIP every address of the host leads there, or the
        /// address of the uplink; without HOSTPORT, or with 0, a free port is picked; the protocol is tcp unless udp is
        /// written
        #[arg(required = true)]
        spec: Vec<Spec>,
    },
    /// End what of a container is published; connections that came by a port of the host go on
    #[command(
        after_help = "Examples:\n  tapswitch unpublish web 8080:80\n  tapswitch unpublish web 80     (whatever leads to port 80 of web)"
    )]
    Unpublish {
        /// The container's name, also of one that is away and would have its ports again
        name: String,
        /// As for `publish`; what is left out may be anything there
        #[arg(required = true)]
        spec: Vec<Spec>,
    },
    /// List and describe networks, and give them their uplinks
    #[command(subcommand)]
    #[command(
        after_help = "Examples:\n  tapswitch network ls\n  tapswitch network inspect default\n  sudo tapswitch network uplink default"
    )]
    Network(NetworkVerb),
    /// Show what the daemon knows: ports, FDB, neighbours, leases, flows, drops, its own figures
    #[command(
        after_help = "Examples:\n  tapswitch show fdb\n  tapswitch show drops --network default\n  tapswitch show flows --container web --port 443\n  tapswitch show flows --json"
    )]
    Show {
        /// What to show
        #[arg(value_name = "WHAT")]
        what: Table,
        /// What narrows it.
        #[command(flatten)]
        narrow: NarrowArgs,
    },
    /// Watch frames as they pass: what each stage found, decided and changed, and how it ended
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
    /// Watch what happens: containers that come and go, addresses, published ports, limits that are reached
    #[command(after_help = "Examples:\n  tapswitch events\n  tapswitch events --network lab --json")]
    Events(EventsArgs),
    /// Record frames as they pass into a pcapng file, each with its verdict and its journey as a comment
    #[command(after_help = capture::EXAMPLES)]
    Capture(CaptureArgs),
    /// What would happen to a packet, and why; nothing is sent
    #[command(after_help = explain::EXAMPLES)]
    Explain(ExplainArgs),
    /// End flows at once: whoever uses them starts again, by the rules and forwards of now
    #[command(
        after_help = "Examples:\n  tapswitch flush flows --container web\n  tapswitch flush flows --address 192.0.2.9 --port 443\n  \
                      tapswitch flush flows          (all of them)"
    )]
    Flush {
        /// What to end
        #[arg(value_name = "WHAT")]
        what: Flushable,
        /// What narrows it.
        #[command(flatten)]
        narrow: NarrowArgs,
    },
    /// Explain what the switch says: `help drop REASON` tells what a drop reason means, its usual causes and what to do
    #[command(
        after_help = "Examples:\n  tapswitch help drop policy-denied\n  tapswitch help drop          (all of them)"
    )]
    Help {
        /// What it is about
        topic: Topic,
        /// Which one [default: all]
        name: Option<String>,
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
    /// Open the device of a network's uplink, and hand it to the daemon
    #[command(after_help = UPLINK_EXAMPLES)]
    Uplink {
        /// The network's name
        network: String,
        /// Make a macvtap on the interface, which needs root [default: what the interface is itself, on Ethernet a packet
        /// socket]
        #[arg(long)]
        macvtap: bool,
    },
}

/// What narrows a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct NarrowArgs {
    /// Only of this network [default: all]
    #[arg(long, value_name = "NET")]
    pub network: Option<String>,
    /// Only flows of this container [default: all]
    #[arg(long, value_name = "C")]
    pub container: Option<String>,
    /// Only flows with this address at one of their ends [default: all]
    #[arg(long, value_name = "A")]
    pub address: Option<IpAddr>,
    /// Only flows with this port at one of their ends, that of --address if both are given [default: all]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

/// What `trace` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct TraceArgs {
    /// Which frames, in the words of tcpdump (host, net, port, proto, ether, and, or, not), and: container NAME, drop,
    /// reason R [default: all]
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    pub filter: Vec<String>,
    /// Only of this network [default: all]
    #[arg(long, value_name = "NET")]
    pub network: Option<String>,
    /// End after so many frames [default: never]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// At most so many frames a second; how many more there were is said [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// The bytes of each frame too, in hexadecimal
    #[arg(long, short = 'x')]
    pub bytes: bool,
}

/// What `events` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// Only of this network [default: all]
    #[arg(long, value_name = "NET")]
    pub network: Option<String>,
}

/// What `help` explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Reasons for which frames are dropped
    Drop,
}

/// What `flush` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Flushable {
    /// Flows through the uplinks
    Flows,
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
    /// Publish ports of the container, [HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp], may be repeated. Without HOSTIP every
    /// address of the host leads there, or the address of the uplink; without HOSTPORT, or with 0, a free port is picked,
    /// the one that this name had before if it is free [default: none]
    #[arg(short = 'p', long, value_name = "SPEC")]
    pub publish: Vec<Spec>,
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
    /// The way out: user (each flow is a socket of the host), nat:IFACE (packets of our own on the LAN of IFACE),
    /// lan:IFACE (the switch is joined to that LAN), tun:NAME (packets into the host's stack), none [default: user]
    #[arg(long, value_name = "U", conflicts_with_all = ["file", "internal"])]
    pub uplink: Option<String>,
    /// Address of uplink nat: or tun:, ADDR/LEN or dhcp [default: dhcp for nat:, must be given for tun:]
    #[arg(long, value_name = "CIDR|dhcp", conflicts_with = "file")]
    pub uplink_ip: Option<String>,
    /// Router that leads on from uplink nat: or tun: [default: the one that DHCP names; must be given with a static
    /// address of nat:, tun: needs none]
    #[arg(long, value_name = "IP", conflicts_with = "file")]
    pub uplink_gateway: Option<String>,
    /// MAC address on uplink nat: or tun: [default: 02:42: and the four bytes of a static address; with DHCP one made from
    /// the names of host, user and network]
    #[arg(long, value_name = "M", conflicts_with = "file")]
    pub uplink_mac: Option<String>,
    /// MTU of uplink nat: or tun:, 576 to 65521 [default: the device's]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub uplink_mtu: Option<i64>,
    /// Packets leave uplink nat: or tun: with the containers' own addresses, to a LAN that knows the way back
    /// [default: off, they leave with the uplink's address]
    #[arg(long, conflicts_with = "file")]
    pub no_nat: bool,
    /// No way out: containers reach each other and the gateway only, as --uplink none [default: off]
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
mod tests;
