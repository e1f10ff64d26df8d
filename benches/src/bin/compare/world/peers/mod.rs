//! Peers: each a way from one container to the other, or out.

mod bridge;
mod nat;
mod ovs;
mod tapswitch;
mod vde;
mod veth;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cpu;
use crate::load::udp_errors_of;
use crate::measure::Test;
use crate::options::{Options, PeerKind, Variant};
use crate::process::Process;
use crate::results::About;

use super::{Netns, World};

pub(crate) use nat::{Held, Room};

/// The interface of every container.
const INTERFACE: &str = "eth0";

/// How long a switch may take to start.
const START: Duration = Duration::from_secs(10);

/// How long a switch that was stopped gets to work off what happened meanwhile.
const THAW: Duration = Duration::from_millis(100);

/// Two containers with something between them, or a container and a server outside.
pub(crate) struct Peer {
    pub about: About,
    /// The container that connects, sends and asks.
    pub a: Netns,
    /// The container, or the server outside, that listens and answers, and its address.
    pub b: Netns,
    pub b_addr: Ipv4Addr,
    /// Processes that carry the frames; none where the kernel does.
    switch: Vec<RefCell<Process>>,
    /// Of a tapswitch: whom to ask about drops.
    control: Option<tapswitch::Control>,
    /// Where it is a way out.
    way_out: Option<nat::WayOut>,
}

impl Peer {
    pub(crate) fn name(&self) -> &str {
        &self.about.name
    }

    pub(crate) fn in_user_space(&self) -> bool {
        !self.switch.is_empty()
    }

    /// Whether `test` says something about it.
    pub(crate) fn can(&self, test: Test) -> bool {
        (self.in_user_space() || !test.needs_switch_process())
            && (test.sessions().is_none() || self.tracks())
            && (test.is_of_streams() || !self.only_streams())
    }

    /// CPU time that the switch's processes, and theirs, used so far.
    pub(crate) fn switch_cpu(&self) -> Result<Duration, String> {
        let families = self.switch.iter().map(|process| cpu::family(process.borrow().id()));
        families
            .map(|family| {
                let (first, others) = family.split_first().ok_or("a process without an id")?;
                // A child may end between the two reads.
                Ok(cpu::process(*first)? + others.iter().filter_map(|&pid| cpu::process(pid).ok()).sum::<Duration>())
            })
            .sum()
    }

    /// What the switch has dropped so far, by reason; empty if it cannot say.
    pub(crate) fn drops(&self) -> Result<BTreeMap<String, u64>, String> {
        let mut drops = self.control.as_ref().map_or_else(|| Ok(BTreeMap::new()), tapswitch::Control::drops)?;
        if let (true, Some(relay)) = (self.is_of_user(), self.switch.first()) {
            let pid = relay.borrow().id().to_string();
            drops.insert("sockets full".into(), udp_errors_of(&pid)?);
        }
        Ok(drops)
    }

    /// Which of the switch's processes has ended, and its last words: the reason behind whatever else went wrong.
    pub(crate) fn obituary(&self) -> Option<String> {
        self.switch.iter().find_map(|process| process.borrow_mut().obituary())
    }

    /// Lets the switch run while the guard lives. At all other times it stands still, so that it takes no CPU from
    /// others.
    pub(crate) fn awake(&self) -> Awake<'_> {
        self.freeze(false);
        if self.in_user_space() {
            std::thread::sleep(THAW);
        }
        Awake(self)
    }

    fn freeze(&self, frozen: bool) {
        for process in &self.switch {
            process.borrow().freeze(frozen);
        }
    }
}

/// See [`Peer::awake`].
pub(crate) struct Awake<'a>(&'a Peer);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.freeze(true);
    }
}

/// What a peer is built from.
struct Site {
    name: String,
    a: Netns,
    b: Netns,
    /// Third octet of the addresses: each peer has a subnet of its own.
    net: u8,
    cc: &'static str,
    offload: bool,
    /// For sockets and files.
    dir: PathBuf,
}

impl Site {
    fn new(name: &str, net: u8, options: &Options) -> Result<Self, String> {
        let cc = options.cc.name();
        let dir = Path::new("/run/compare").join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let netns = |which: &str| Netns::new(format!("{name}-{which}"), cc);
        Ok(Self { name: name.into(), a: netns("a")?, b: netns("b")?, net, cc, offload: !options.no_offload, dir })
    }

    /// A namespace for the switch itself.
    fn middle(&self) -> Result<Netns, String> {
        Netns::new(format!("{}-switch", self.name), self.cc)
    }

    fn ends(&self) -> [(&Netns, Ipv4Addr); 2] {
        [(&self.a, self.addr(11)), (&self.b, self.addr(12))]
    }

    fn addr(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 91, self.net, host)
    }

    /// Configures the containers' interfaces, which exist, as `attach` would.
    fn configure(&self) -> Result<(), String> {
        for (end, addr) in self.ends() {
            end.ip(&format!("addr add {addr}/24 dev {INTERFACE}"))?;
            if !self.offload {
                end.no_offload(INTERFACE)?;
            }
            end.ip(&format!("link set {INTERFACE} mtu 1500 up"))?;
        }
        Ok(())
    }

    fn peer(self, what: impl Into<String>, switch: Vec<Process>) -> Peer {
        let b_addr = self.addr(12);
        let switch = switch.into_iter().map(RefCell::new).collect();
        Peer {
            about: About { name: self.name, what: what.into() },
            a: self.a,
            b: self.b,
            b_addr,
            switch,
            control: None,
            way_out: None,
        }
    }
}

/// Builds every peer that is asked for; they stand still until [`Peer::awake`].
pub(crate) fn build(options: &Options) -> Result<Vec<Peer>, String> {
    let tapswitches = options.tapswitches().into_iter().map(|(kind, variant)| Plan::Tapswitch(kind, variant));
    let others = options.peers().into_iter().filter(|kind| !kind.is_tapswitch()).map(Plan::Other);
    let plans: Vec<Plan> = tapswitches.chain(others).collect();
    let nets = 0..=u8::MAX;
    if plans.len() > nets.len() {
        return Err(format!("more than {} peers", nets.len()));
    }
    plans.into_iter().zip(nets).map(|(plan, net)| plan.build(net, options)).collect()
}

#[derive(Clone)]
enum Plan {
    Tapswitch(PeerKind, Variant),
    Other(PeerKind),
}

impl Plan {
    /// Whether no ordinary user could set it up.
    fn needs_root(&self) -> bool {
        matches!(self, Self::Other(PeerKind::BridgeNft))
    }

    fn name(&self) -> &str {
        match self {
            Self::Tapswitch(_, variant) => &variant.name,
            Self::Other(kind) => kind.name(),
        }
    }

    fn build(self, net: u8, options: &Options) -> Result<Peer, String> {
        let peer = match options.world() {
            World::Switch => self.between(net, options),
            World::Nat | World::Rootless => nat::build(self, net, options, nat::Purpose::Run),
        }?;
        peer.freeze(true);
        Ok(peer)
    }

    /// Something between two containers.
    fn between(self, net: u8, options: &Options) -> Result<Peer, String> {
        let site = Site::new(self.name(), net, options)?;
        match self {
            Self::Tapswitch(_, variant) => tapswitch::build(site, &variant, &options.bin),
            Self::Other(PeerKind::Bridge) => bridge::build(site),
            Self::Other(PeerKind::Veth) => veth::build(site),
            Self::Other(PeerKind::Vde) => vde::build(site),
            Self::Other(PeerKind::Ovs) => ovs::build(site),
            Self::Other(kind) => Err(format!("{} lies not between two containers", kind.name())),
        }
    }
}

/// Complains about the first program that a run with these options needs and that is not there.
pub(crate) fn check_programs(options: &Options) -> Result<(), String> {
    let streams = options.tests().iter().any(|test| test.needs_iperf3());
    let general = [("ip", "iproute2", true), ("sysctl", "procps", true), ("iperf3", "iperf3", streams)];
    let ethtool = ("ethtool", "ethtool", options.no_offload);
    let rootless = ["setpriv", "unshare"].map(|program| (program, "util-linux", options.world() == World::Rootless));
    for (program, package, needed) in general.into_iter().chain([ethtool]).chain(rootless) {
        if needed && !exists(program) {
            return Err(format!("{program} missing; install it: apt-get install {package}"));
        }
    }
    for (_, variant) in options.tapswitches() {
        if let Some(bin) = variant.bin.filter(|bin| !bin.is_file()) {
            return Err(format!("no {}; build it: cargo build --release, or name it with --bin", bin.display()));
        }
    }
    for kind in options.peers() {
        let (programs, package): (&[&str], _) = match kind {
            PeerKind::Vde => (&["vde_switch", "vde_plug2tap"], "vde2"),
            PeerKind::Ovs => (&["ovs-vswitchd", "ovsdb-server", "ovsdb-tool", "ovs-vsctl"], "openvswitch-switch"),
            PeerKind::Tun | PeerKind::BridgeNft => (&["nft"], "nftables"),
            PeerKind::Pasta | PeerKind::Pasta1500 => (&["pasta"], "passt"),
            PeerKind::Slirp4netns | PeerKind::Slirp4netns1500 => (&["slirp4netns"], "slirp4netns"),
            PeerKind::Tapswitch | PeerKind::Bridge | PeerKind::Veth | PeerKind::Nat | PeerKind::User => continue,
        };
        if let Some(program) = programs.iter().find(|program| !exists(program)) {
            return Err(format!(
                "{program} missing; install it: apt-get install {package}, or leave {} out with --peers",
                kind.name()
            ));
        }
    }
    Ok(())
}

fn exists(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
