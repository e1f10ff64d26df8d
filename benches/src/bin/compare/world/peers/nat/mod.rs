//! Ways out: a container, its gateway, and a server outside, each in a namespace of its own.
//!
//! ```text
//! c: eth0 10.91.N.11 -- gw: what is measured -- gw: eth1 192.0.2.2 -- inet: eth0 192.0.2.1, lo 203.0.113.1 to .20
//! ```
//!
//! The server knows no way to the containers' subnet, so what answers was translated. It forwards nothing and has no
//! firewall: what is sent through it to an address that it does not have disappears without a word, and costs it little.
//!
//! All worlds have the same addresses outside, and one subnet each inside. Every one of them, or one like it, can be built
//! again for a single measurement that must find it untouched: [`Peer::own_world`]; or without what is measured, to see
//! how long that takes to start: [`Peer::bare_world`].
//!
//! With `--rootless` the container is an ordinary user's, and so is what is measured; but for the kernel.

mod kernel;
mod memory;
mod ours;
mod publish;
mod rootless;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::options::{Options, PeerKind};
use crate::process::Process;
use crate::results::About;

use super::{INTERFACE, Netns, Peer, Plan, START, World, tapswitch};

pub(crate) use memory::Held;

/// The gateway's interface to the outside.
const UPLINK: &str = "eth1";

/// The gateway's address outside, and the server's.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Last octet of the container's address, and of the gateway's, inside.
const CONTAINER: u8 = 11;
const GATEWAY: u8 = 1;

/// How much a world of its own has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// What the default options allow.
    Default,
    /// Every session that a test opens.
    Sessions,
}

/// What makes a peer a way out.
pub(super) struct WayOut {
    gateway: Netns,
    /// What it was built from.
    plan: Plan,
    net: u8,
    /// With `--rootless`: whether [`publish::PORT`] of the gateway leads into the container.
    published: Result<(), String>,
    /// Whose namespaces the container has, where they are an ordinary user's.
    holder: Option<Process>,
}

/// What a world is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For the whole run.
    Run,
    /// For one measurement.
    Once(Room),
}

impl Purpose {
    /// What names in the world of the peer `name` begin with.
    fn prefix(self, name: &str) -> String {
        match self {
            Self::Run => name.into(),
            Self::Once(_) => format!("{name}-once"),
        }
    }
}

/// The namespaces of a world, by the end of their names: container, gateway, server.
const NAMESPACES: [&str; 3] = ["c", "gw", "inet"];

struct Site {
    name: String,
    container: Netns,
    /// Whose namespaces the container has, where they are an ordinary user's, who then runs what is measured, too.
    holder: Option<Process>,
    gateway: Netns,
    server: Netns,
    /// Third octet of the addresses inside.
    net: u8,
    offload: bool,
    /// For sockets and files.
    dir: PathBuf,
}

impl Site {
    fn new(plan: &Plan, net: u8, options: &Options, purpose: Purpose) -> Result<Self, String> {
        let cc = options.cc.name();
        let name = plan.name().to_owned();
        let prefix = purpose.prefix(&name);
        let dir = Path::new("/run/compare").join(&prefix);
        // Of an earlier measurement.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let [container, gateway, server] = NAMESPACES.map(|end| format!("{prefix}-{end}"));
        let (gateway, server) = (Netns::new(gateway, cc)?, Netns::new(server, cc)?);
        let (container, holder) = if options.world() == World::Rootless && !plan.needs_root() {
            rootless::own(&dir)?;
            let (container, holder) = rootless::container(&gateway, container, cc)?;
            (container, Some(holder))
        } else {
            (Netns::new(container, cc)?, None)
        };
        let site = Self { name, container, holder, gateway, server, net, offload: !options.no_offload, dir };
        // A container that opens many connections to few servers does well to.
        site.container.sysctl("net.ipv4.tcp_tw_reuse", 1)?;
        site.outside()?;
        Ok(site)
    }

    /// The server, and the cable to it.
    fn outside(&self) -> Result<(), String> {
        let Self { gateway, server, .. } = self;
        server.sysctl("net.ipv4.ip_forward", 0)?;
        gateway.ip(&format!("link add {UPLINK} type veth peer name {INTERFACE} netns {}", server.name()))?;
        server.ip(&format!("addr add {SERVER}/24 dev {INTERFACE}"))?;
        for address in crate::load::servers() {
            server.ip(&format!("addr add {address}/32 dev lo"))?;
        }
        for (end, interface) in [(gateway, UPLINK), (server, INTERFACE)] {
            if !self.offload {
                end.no_offload(interface)?;
            }
            end.ip(&format!("link set {interface} mtu 1500 up"))?;
        }
        Ok(())
    }

    /// Lets the kernel of the gateway take part: it has the address outside, and a way there.
    fn kernel_outside(&self) -> Result<(), String> {
        self.gateway.ip(&format!("addr add {OUTSIDE}/24 dev {UPLINK}"))?;
        self.gateway.ip(&format!("route add default via {SERVER}"))
    }

    fn addr(&self, host: u8) -> Ipv4Addr {
        inside(self.net, host)
    }

    fn peer(self, plan: Plan, launched: Launched, published: Result<(), String>) -> Peer {
        Peer {
            about: About { name: self.name, what: launched.what },
            a: self.container,
            b: self.server,
            b_addr: SERVER,
            switch: launched.process.into_iter().map(RefCell::new).collect(),
            control: launched.control,
            way_out: Some(WayOut { gateway: self.gateway, plan, net: self.net, published, holder: self.holder }),
        }
    }
}

/// What is measured: started, and maybe not ready yet.
pub(crate) struct Launched {
    /// For people.
    what: String,
    /// None where the kernel does it all.
    process: Option<Process>,
    control: Option<tapswitch::Control>,
    /// Just before its program was started.
    pub begun: SystemTime,
}

fn launch(site: &Site, plan: &Plan, options: &Options, purpose: Purpose) -> Result<Launched, String> {
    match plan {
        Plan::Tapswitch(kind, variant) => {
            let up = ours::start(site, *kind, variant, &options.bin, purpose)?;
            let what = if site.holder.is_some() { format!("{}, {}", up.what, rootless::RUN) } else { up.what };
            Ok(Launched { what, process: Some(up.daemon), control: Some(up.control), begun: up.begun })
        }
        Plan::Other(PeerKind::BridgeNft) => {
            let begun = SystemTime::now();
            kernel::build(site)?;
            let what = "the kernel's bridge, a veth pair to the container, masquerade by nft; all set up by root";
            Ok(Launched { what: what.into(), process: None, control: None, begun })
        }
        Plan::Other(kind) if kind.is_rootless_peer() => rootless::start(site, *kind),
        Plan::Other(kind) => Err(format!("{} is no way out", kind.name())),
    }
}

pub(super) fn build(plan: Plan, net: u8, options: &Options, purpose: Purpose) -> Result<Peer, String> {
    let site = Site::new(&plan, net, options, purpose)?;
    let mut launched = launch(&site, &plan, options, purpose)?;
    if let (Some(_), Some(process)) = (&site.holder, &mut launched.process) {
        process.until(|| site.container.has_default_route(), START)?;
    }
    let published = match (options.world(), purpose) {
        (World::Rootless, Purpose::Run) => publish::publish(&site, &plan, &launched),
        _ => Err("nothing is published here".into()),
    };
    Ok(site.peer(plan, launched, published))
}

fn inside(net: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 91, net, host)
}

impl Peer {
    /// The address of the container behind the gateway.
    pub(crate) fn container_addr(&self) -> Result<Ipv4Addr, String> {
        let way_out = self.way_out.as_ref().ok_or("it has no gateway")?;
        Ok(inside(way_out.net, CONTAINER))
    }

    /// Whether it is a relay of an ordinary user's, with sockets in the gateway's namespace.
    pub(crate) fn is_of_user(&self) -> bool {
        self.way_out.as_ref().is_some_and(|way_out| way_out.holder.is_some())
    }

    /// The same once more, untouched, for as long as the result lives.
    pub(crate) fn own_world(&self, options: &Options, room: Room) -> Result<OwnWorld, String> {
        let way_out = self.way_out.as_ref().ok_or("only a way out can be built for one measurement")?;
        let purpose = Purpose::Once(room);
        let namespaces = Namespaces { prefix: purpose.prefix(self.name()) };
        let peer = build(way_out.plan.clone(), way_out.net, options, purpose)?;
        Ok(OwnWorld { peer, _namespaces: namespaces })
    }

    /// The same once more, without what is measured.
    pub(crate) fn bare_world<'a>(&'a self, options: &'a Options) -> Result<BareWorld<'a>, String> {
        let way_out = self.way_out.as_ref().ok_or("only a way out can be built for one measurement")?;
        let purpose = Purpose::Once(Room::Default);
        let namespaces = Namespaces { prefix: purpose.prefix(self.name()) };
        let site = Site::new(&way_out.plan, way_out.net, options, purpose)?;
        Ok(BareWorld { site, plan: &way_out.plan, options, purpose, _namespaces: namespaces })
    }
}

/// See [`Peer::bare_world`].
pub(crate) struct BareWorld<'a> {
    site: Site,
    plan: &'a Plan,
    options: &'a Options,
    purpose: Purpose,
    _namespaces: Namespaces,
}

impl BareWorld<'_> {
    pub(crate) fn container(&self) -> &Netns {
        &self.site.container
    }

    pub(crate) fn server(&self) -> (&Netns, Ipv4Addr) {
        (&self.site.server, SERVER)
    }

    /// Starts what is measured.
    pub(crate) fn launch(&self) -> Result<Launched, String> {
        launch(&self.site, self.plan, self.options, self.purpose)
    }
}

/// See [`Peer::own_world`].
pub(crate) struct OwnWorld {
    peer: Peer,
    _namespaces: Namespaces,
}

impl Deref for OwnWorld {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

/// Removes what a world consists of, if it was ever built, when it is dropped.
struct Namespaces {
    prefix: String,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for end in NAMESPACES {
            // If it still has its name, the next world of that name will say so.
            let _ = Netns::remove(&format!("{}-{end}", self.prefix));
        }
    }
}
