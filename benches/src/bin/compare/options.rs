//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::load::Load;
use crate::measure::Test;
use crate::world::World;

/// Measures container to container, side by side: tapswitch, the kernel's bridge, a veth pair, vde_switch, Open vSwitch;
/// with --nat a container's way to the outside: tapswitch's packet uplinks, the kernel's bridge and masquerade; with
/// --rootless the ways that an ordinary user can start: tapswitch's relay, pasta, slirp4netns
///
/// Needs root, because the peers do. All of it happens in namespaces that end with the program. Prints for each test and
/// peer the median, the range, the ratio of the medians, and the CPU time; writes results.json and a plot for each test.
#[derive(Parser)]
#[command(name = "compare", after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub options: Options,
}

const EXAMPLES: &str = "Examples:
  benches/compare --quick
  benches/compare --rounds 7 --seconds 5 --load
  benches/compare --peers tapswitch,bridge --tests tcp-rr,udp-rr --variant spin='--poll adaptive --spin 50'
  benches/compare --peers bridge --variant before@old/tapswitch= --variant after@new/tapswitch=
  benches/compare --nat
  benches/compare --nat --peers nat,bridge-nft --tests connect,sessions100k --variant uring='--io uring'
  benches/compare --rootless
  benches/compare --rootless --peers user,pasta --tests flow-memory,startup --flows 4000
  benches/compare --from benches/runs/2026-11-21/results.json";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// A load generator, as it runs inside a container
    #[command(subcommand, hide = true)]
    Load(Load),
}

#[derive(Args)]
pub(crate) struct Options {
    /// From a container to a server outside, through a router that masquerades [default: from container to container]
    #[arg(long)]
    nat: bool,

    /// From a container to a server outside and back, through what an ordinary user can start: tapswitch's relay, pasta
    /// and slirp4netns, all run by one; beside them the kernel's bridge and masquerade, which need root. pasta and
    /// slirp4netns are those on the PATH [default: from container to container]
    #[arg(long, conflicts_with = "nat")]
    rootless: bool,

    /// What to measure [default: tapswitch,bridge,veth,vde,ovs; with --nat nat,tun,bridge-nft; with --rootless
    /// user,pasta,pasta-1500,slirp4netns,slirp4netns-1500,bridge-nft]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    peers: Vec<PeerKind>,

    /// A further tapswitch datapath, called NAME, with ARGS added to its `up`, and with another binary if PATH is given;
    /// may be repeated; with --nat its uplink is nat:, with --rootless user [default: none]
    #[arg(long = "variant", value_name = "NAME[@PATH]=ARGS")]
    pub variants: Vec<Variant>,

    /// The tapswitch to measure
    #[arg(long, value_name = "PATH", default_value = "target/release/tapswitch")]
    pub bin: PathBuf,

    /// Tests to run [default: all but those under load]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    tests: Vec<Test>,

    /// Add the tests under load: with one busy process per CPU in each container [default: off]
    #[arg(long)]
    load: bool,

    /// How often each test measures each peer [default: 5, or 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// How long one measurement lasts [default: 3, or 1 with --quick]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,

    /// With --rootless: TCP connections that the tests of idle ones hold [default: as many as every peer holds, at most
    /// 10000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub flows: Option<u32>,

    /// Short and rough: to see that everything works
    #[arg(long)]
    quick: bool,

    /// Congestion control of TCP in the containers
    #[arg(long, value_enum, default_value = "cubic")]
    pub cc: CongestionControl,

    /// Receive buffer of the UDP tests' receivers, in bytes [default: the kernel's]
    #[arg(long, value_name = "BYTES")]
    pub rcvbuf: Option<usize>,

    /// Endpoints without segmentation, coalescing and checksum offload [default: each with what it has]
    #[arg(long)]
    pub no_offload: bool,

    /// Directory for results.json and the plots [default: benches/runs/YYYY-MM-DD, with --nat YYYY-MM-DD-nat, with
    /// --rootless YYYY-MM-DD-rootless]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Measure nothing: table and plots of an earlier results.json (plots go to --out, if given)
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

impl Options {
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub(crate) fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn world(&self) -> World {
        match (self.nat, self.rootless) {
            (true, _) => World::Nat,
            (false, true) => World::Rootless,
            (false, false) => World::Switch,
        }
    }

    /// What is to be measured beside the variants.
    pub(crate) fn peers(&self) -> Vec<PeerKind> {
        match (self.peers.as_slice(), self.world()) {
            ([], World::Switch) => {
                vec![PeerKind::Tapswitch, PeerKind::Bridge, PeerKind::Veth, PeerKind::Vde, PeerKind::Ovs]
            }
            ([], World::Nat) => vec![PeerKind::Nat, PeerKind::Tun, PeerKind::BridgeNft],
            ([], World::Rootless) => vec![
                PeerKind::User,
                PeerKind::Pasta,
                PeerKind::Pasta1500,
                PeerKind::Slirp4netns,
                PeerKind::Slirp4netns1500,
                PeerKind::BridgeNft,
            ],
            (asked, _) => asked.to_vec(),
        }
    }

    /// The tests, in the order in which they are run and shown.
    pub(crate) fn tests(&self) -> Vec<Test> {
        let asked = |test: &Test| {
            self.tests.contains(test)
                || (self.tests.is_empty() && !test.under_load() && test.is_of(self.world()))
                || (self.load && test.under_load())
        };
        Test::value_variants().iter().copied().filter(asked).collect()
    }

    /// Kind, name, binary and extra arguments of every tapswitch that is to be measured.
    pub(crate) fn tapswitches(&self) -> Vec<(PeerKind, Variant)> {
        let plain = |kind: PeerKind| (kind, Variant { name: kind.name().into(), bin: None, args: Vec::new() });
        let of_variants = match self.world() {
            World::Switch => PeerKind::Tapswitch,
            World::Nat => PeerKind::Nat,
            World::Rootless => PeerKind::User,
        };
        let variants = self.variants.iter().cloned().map(|variant| (of_variants, variant));
        let with_bin =
            |variant: Variant| Variant { bin: Some(variant.bin.unwrap_or_else(|| self.bin.clone())), ..variant };
        let kinds = self.peers().into_iter().filter(|kind| kind.is_tapswitch());
        kinds.map(plain).chain(variants).map(|(kind, variant)| (kind, with_bin(variant))).collect()
    }

    /// What clap cannot know: that names are unique, and that peers and tests belong to the world that is measured.
    pub(crate) fn check(&self) -> Result<(), String> {
        let here = match self.world() {
            World::Switch => "without --nat or --rootless",
            World::Nat => "with --nat",
            World::Rootless => "with --rootless",
        };
        let peers = self.peers();
        if let Some(peer) = peers.iter().find(|peer| !peer.is_of(self.world())) {
            return Err(format!("there is no peer {} {here}", peer.name()));
        }
        if let Some(test) = self.tests().iter().find(|test| !test.is_of(self.world())) {
            return Err(format!("there is no test {} {here}", test.name()));
        }
        let mut names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
        names.extend(self.variants.iter().map(|variant| variant.name.as_str()));
        match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            Some((_, name)) => Err(format!("two peers are called {name}; give each --variant a name of its own")),
            None => Ok(()),
        }
    }
}

/// Something that containers can hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PeerKind {
    /// tapswitch with its default options
    Tapswitch,
    /// The kernel's bridge, a veth pair to each container
    Bridge,
    /// A veth pair from container to container: the limit
    Veth,
    /// vde_switch, a vde_plug2tap in each container
    Vde,
    /// Open vSwitch's datapath in user space, with userspace TSO, a TAP in each container
    Ovs,
    /// With --nat: tapswitch with its default options and the uplink nat:
    Nat,
    /// With --nat: tapswitch with the uplink tun:, which routes; the kernel masquerades
    Tun,
    /// With --nat or --rootless: tapswitch with the uplink user, which relays
    User,
    /// With --nat or --rootless: the kernel's bridge, and masquerade by nft
    BridgeNft,
    /// With --rootless: pasta with its default MTU, 65520
    Pasta,
    /// With --rootless: pasta with MTU 1500, in the tests of streams
    #[value(name = "pasta-1500")]
    Pasta1500,
    /// With --rootless: slirp4netns with MTU 65520
    #[value(name = "slirp4netns")]
    Slirp4netns,
    /// With --rootless: slirp4netns with its default MTU, 1500, in the tests of streams
    #[value(name = "slirp4netns-1500")]
    Slirp4netns1500,
}

impl PeerKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tapswitch => "tapswitch",
            Self::Bridge => "bridge",
            Self::Veth => "veth",
            Self::Vde => "vde",
            Self::Ovs => "ovs",
            Self::Nat => "nat",
            Self::Tun => "tun",
            Self::User => "user",
            Self::BridgeNft => "bridge-nft",
            Self::Pasta => "pasta",
            Self::Pasta1500 => "pasta-1500",
            Self::Slirp4netns => "slirp4netns",
            Self::Slirp4netns1500 => "slirp4netns-1500",
        }
    }

    pub(crate) fn is_tapswitch(self) -> bool {
        matches!(self, Self::Tapswitch | Self::Nat | Self::Tun | Self::User)
    }

    /// What carries the frames of others than tapswitch, as an ordinary user.
    pub(crate) fn is_rootless_peer(self) -> bool {
        matches!(self, Self::Pasta | Self::Pasta1500 | Self::Slirp4netns | Self::Slirp4netns1500)
    }

    fn is_of(self, world: World) -> bool {
        match self {
            Self::Tapswitch | Self::Bridge | Self::Veth | Self::Vde | Self::Ovs => world == World::Switch,
            Self::Nat | Self::Tun => world == World::Nat,
            Self::User | Self::BridgeNft => world != World::Switch,
            Self::Pasta | Self::Pasta1500 | Self::Slirp4netns | Self::Slirp4netns1500 => world == World::Rootless,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CongestionControl {
    Cubic,
    Bbr,
}

impl CongestionControl {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

/// A tapswitch with other options, or another tapswitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub name: String,
    pub bin: Option<PathBuf>,
    pub args: Vec<String>,
}

impl std::str::FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (left, args) = text.split_once('=').ok_or("write NAME=ARGS or NAME@PATH=ARGS; ARGS may be empty")?;
        let (name, bin) = match left.split_once('@') {
            Some((_, "")) => return Err("no path after the @".into()),
            Some((name, path)) => (name, Some(PathBuf::from(path))),
            None => (left, None),
        };
        if name.is_empty() || !name.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char)) {
            return Err("a name is made of letters, digits, dots, dashes and underscores".into());
        }
        Ok(Self { name: name.into(), bin, args: args.split_whitespace().map(str::to_owned).collect() })
    }
}

/// The command line as it may be shown to others: of a path from the root, only the last part.
pub(crate) fn shown(args: impl IntoIterator<Item = String>) -> String {
    let words = args.into_iter().map(|arg| {
        let arg: Vec<String> = arg.split(' ').map(without_directories).collect();
        let arg = arg.join(" ");
        if arg.contains(' ') || arg.is_empty() { format!("'{arg}'") } else { arg }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `/a/b/c` is `c`, `x@/a/b/c=y` is `x@c=y`, `a/b` stays.
fn without_directories(word: &str) -> String {
    let Some(start) = word.find('/').filter(|&at| at == 0 || matches!(word.as_bytes()[at - 1], b'@' | b'=')) else {
        return word.into();
    };
    let end = word[start..].find('=').map_or(word.len(), |at| start + at);
    let file = Path::new(&word[start..end]).file_name().map(|name| name.to_string_lossy().into_owned());
    format!("{}{}{}", &word[..start], file.unwrap_or_default(), &word[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        Cli::try_parse_from(line.split_whitespace()).expect("a valid command line").options
    }

    #[test]
    fn a_variant_has_a_name_arguments_and_maybe_a_binary() {
        let variant = |name: &str, bin: Option<&str>, args: &[&str]| Variant {
            name: name.into(),
            bin: bin.map(PathBuf::from),
            args: args.iter().map(|&arg| arg.into()).collect(),
        };
        assert_eq!("spin=--poll busy".parse(), Ok(variant("spin", None, &["--poll", "busy"])));
        assert_eq!("old@a/b=--cpus=0".parse(), Ok(variant("old", Some("a/b"), &["--cpus=0"])));
        assert_eq!("old@a/b=".parse(), Ok(variant("old", Some("a/b"), &[])));
        for wrong in ["spin", "=x", "a b=", "a@=x"] {
            assert!(wrong.parse::<Variant>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_load_tests_are_run_when_asked_for() {
        assert!(options("compare").tests().iter().all(|test| !test.under_load()));
        assert!(options("compare --load").tests().iter().any(|test| test.under_load()));
        assert_eq!(options("compare --tests udp-rr,tcp1").tests(), [Test::Tcp1, Test::UdpRr]);
    }

    #[test]
    fn variants_share_the_binary_unless_they_name_one() {
        let bins: Vec<_> = options("compare --bin x --peers bridge --variant a= --variant b@y=")
            .tapswitches()
            .into_iter()
            .map(|(_, variant)| (variant.name, variant.bin))
            .collect();
        assert_eq!(bins, [("a".to_owned(), Some("x".into())), ("b".to_owned(), Some("y".into()))]);
        assert!(options("compare --variant bridge=").check().is_err());
    }

    #[test]
    fn each_world_has_peers_and_tests_of_its_own() {
        let nat = options("compare --nat");
        assert_eq!(nat.peers(), [PeerKind::Nat, PeerKind::Tun, PeerKind::BridgeNft]);
        assert!(nat.tests().contains(&Test::Connect) && nat.tests().contains(&Test::Tcp1));
        assert!(nat.tests().iter().all(|test| !test.under_load()));
        assert!(!options("compare").tests().contains(&Test::Connect));
        assert_eq!(options("compare --nat --peers user --variant x=").tapswitches().len(), 2);
        for (line, whole) in [
            ("compare", true),
            ("compare --nat", true),
            ("compare --nat --peers user,bridge-nft --tests connect", true),
            ("compare --peers nat", false),
            ("compare --nat --peers bridge", false),
            ("compare --tests connect", false),
            ("compare --rootless", true),
            ("compare --rootless --peers user,pasta-1500 --tests startup,udp-down,tcp1 --variant x=", true),
            ("compare --rootless --tests sessions100k", false),
            ("compare --rootless --peers nat", false),
            ("compare --nat --peers pasta", false),
            ("compare --nat --tests startup", false),
        ] {
            assert_eq!(options(line).check().is_ok(), whole, "{line}");
        }
    }

    #[test]
    fn no_absolute_path_is_shown() {
        let args = ["--bin", "/a/b/tapswitch", "--variant", "x@/c/d=--log debug", "--out", "e/f"];
        let expected = "--bin tapswitch --variant 'x@d=--log debug' --out e/f";
        assert_eq!(shown(args.map(str::to_owned)), expected);
    }
}
