//! A TAP in somebody else's network namespace.
//!
//! # Theory of operation
//!
//! *Goal.* Open a TAP that stands in a container's network namespace, with address, route and MTU set, and have its
//! descriptor here. When the container dies, its namespace and the TAP shall die with it, whoever holds the descriptor.
//!
//! *The difficulty.* An open `/dev/net/tun` holds a reference on the network namespace in which it was **opened**. Opened
//! inside the container's namespace, the descriptor would keep that namespace alive for as long as the daemon runs:
//! the container's processes end, yet its interfaces, addresses and ports in use stay.
//!
//! *The way round.* The reference is on where the device was opened, not on where it is now:
//!
//! 1. Enter the user namespace that owns the target, if it is not ours. This gives the rights that all else needs.
//! 2. Unshare a network namespace: an empty *scratch* namespace, and open the TAP there under the wanted name.
//! 3. Set MAC address and MTU, which survive a move, and move the link to the target (RTM_SETLINK with IFLA_NET_NS_FD).
//!    A name that is taken there makes the move fail and changes nothing.
//! 4. Enter the target; set the address, `lo` and the link up, then the default route, which needs a link that is up.
//!
//! What the descriptor keeps alive is the scratch namespace, which holds nothing but a `lo`. When the target dies, the
//! kernel deletes the TAP; polling the descriptor reports an error and reading it gives EBADFD: [`crate::Rx::Gone`].
//! On any failure in between, closing the descriptor deletes the device, so nothing is left behind.
//!
//! *Limits.* Entering a user namespace demands a process of one thread, and there is no way back out of it: so
//! [`create_in`] is for a child made for this, which [`open_in`] makes. The target must be owned by our own user
//! namespace or one beneath it.

mod configure;
mod target;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use tapswitch_wire::Mac;

pub use configure::set_address;
pub use target::{Namespaces, Target};

use crate::tap::{self, Tap, TapSpec};
use crate::{LinkError, pass};
use configure::{configure, netlink, require_index};

/// The namespace that the calling thread is in, which need not be that of the process.
const OWN_NET: &str = "/proc/thread-self/ns/net";

/// What the container's side shall look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name: 1 to 15 bytes without `/`, `:`, `%` or spaces.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU: the largest IP packet, in bytes.
    pub mtu: u16,
    /// Its IPv4 address and prefix length; `None` if the container is to ask DHCP.
    pub address: Option<(Ipv4Addr, u8)>,
    /// The next hop of its default route.
    pub gateway: Option<Ipv4Addr>,
    /// Whether super-frames and partial checksums pass whole.
    pub offload: bool,
    /// How many queues the device has, each with a descriptor of its own; 1 is the rule, and all that one without
    /// offload can have.
    pub queues: usize,
}

/// Opens a configured TAP in the target, from a child made for this.
///
/// # Errors
/// [`LinkError::Threads`] in a process of several threads, [`LinkError::Child`] with the text of what [`create_in`] said.
pub fn open_in(namespaces: &Namespaces, interface: &Interface) -> Result<Vec<OwnedFd>, LinkError> {
    pass::in_child(|| create_in(namespaces, interface))
}

/// Opens a configured TAP in the target, and leaves this process there.
///
/// The process must have one thread, and should end soon: it cannot go back. [`open_in`] makes a child for this.
///
/// # Errors
/// [`LinkError`]: an impossible name, no right to enter, no device node, a name that is taken, an address refused.
pub fn create_in(namespaces: &Namespaces, interface: &Interface) -> Result<Vec<OwnedFd>, LinkError> {
    enter_and_create(namespaces, interface).map_err(|error| match error {
        LinkError::TargetDenied { why, .. } => LinkError::TargetDenied { target: namespaces.target.clone(), why },
        other => other,
    })
}

fn enter_and_create(namespaces: &Namespaces, interface: &Interface) -> Result<Vec<OwnedFd>, LinkError> {
    tap::check_name(&interface.name)?;
    if let Some(user) = &namespaces.user {
        setns(user, CloneFlags::CLONE_NEWUSER).map_err(|e| match e {
            Errno::EINVAL => LinkError::Threads { count: pass::thread_count().unwrap_or(0) },
            Errno::EPERM => denied("the user namespace that owns it was made by another user"),
            e => LinkError::system("enter the target's user namespace", e, "see that the container still runs"),
        })?;
    }
    create(&namespaces.net, interface)
}

/// Opens a configured TAP in the present network namespace, by way of a scratch namespace all the same.
///
/// For the child of `run`, after it unshared its namespaces. Only the calling thread changes namespaces, and it is back
/// when this returns.
///
/// # Errors
/// As [`create_in`].
pub fn create_here(interface: &Interface) -> Result<Vec<OwnedFd>, LinkError> {
    tap::check_name(&interface.name)?;
    let here = File::open(OWN_NET)
        .map_err(|e| LinkError::system(format!("open {OWN_NET}"), e, "see that /proc is mounted"))?;
    let here = OwnedFd::from(here);
    let created = create(&here, interface);
    if created.is_err() {
        // Wherever it failed, the thread goes back to where it was.
        enter(&here)?;
    }
    created
}

/// From the scratch namespace to the target, where the calling thread then stays.
fn create(target: &OwnedFd, interface: &Interface) -> Result<Vec<OwnedFd>, LinkError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| match e {
        Errno::EPERM => denied("making a namespace demands CAP_SYS_ADMIN in the user namespace that owns it"),
        e => LinkError::system("make a network namespace", e, "see the limit: sysctl user.max_net_namespaces"),
    })?;
    let queues =
        tap::open_queues(&TapSpec { name: interface.name.clone(), offload: interface.offload }, interface.queues)?;
    let doing = |what: String, next: &'static str| move |e: io::Error| LinkError::system(what, e, next);
    let name = &interface.name;
    let index = require_index(name)?;
    let mut netlink = netlink()?;
    netlink.set_mac_and_mtu(index, interface.mac, interface.mtu).map_err(doing(
        format!("give '{name}' the MAC address {} and the MTU {}", interface.mac, interface.mtu),
        "choose a unicast MAC address and an MTU from 68 to 65535",
    ))?;
    netlink.move_link(index, target).map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EEXIST) => LinkError::NameTaken { name: name.clone() },
        Some(Errno::EPERM) => denied("moving the interface there demands CAP_NET_ADMIN in it"),
        _ => LinkError::system(format!("move '{name}' to the target"), e, "see that the container still runs"),
    })?;
    drop(netlink);
    enter(target)?;
    configure(interface)?;
    let fds = queues.into_iter().map(Tap::into_fd).collect::<io::Result<_>>();
    fds.map_err(|e| LinkError::system("keep the TAP device", e, "raise the limit of open files: ulimit -n"))
}

fn enter(target: &OwnedFd) -> Result<(), LinkError> {
    setns(target, CloneFlags::CLONE_NEWNET).map_err(|e| match e {
        Errno::EPERM => denied("entering demands CAP_SYS_ADMIN in the user namespace that owns it"),
        e => LinkError::system("enter the target's network namespace", e, "see that the container still runs"),
    })
}

fn denied(why: &str) -> LinkError {
    LinkError::TargetDenied { target: "the present network namespace".into(), why: why.into() }
}
