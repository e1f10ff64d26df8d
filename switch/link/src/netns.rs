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

use std::fmt;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat};
use tapswitch_wire::Mac;

use crate::rtnetlink::{Rtnetlink, index_of};
use crate::tap::{self, TapSpec};
use crate::{LinkError, pass, sys};

/// Where `ip netns` keeps its names.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
const OWN_NET: &str = "/proc/self/ns/net";
const OWN_USER: &str = "/proc/self/ns/user";

/// Whose network namespace is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The one of this process.
    Pid(i32),
    /// The one that `ip netns` knows by this name: /run/netns/NAME or /var/run/netns/NAME.
    Name(String),
    /// The one that this file stands for.
    Path(PathBuf),
}

impl FromStr for Target {
    type Err = LinkError;

    /// Digits are a pid, whatever contains a slash is a path, anything else is a name.
    fn from_str(text: &str) -> Result<Target, LinkError> {
        if text.contains('/') {
            return Ok(Target::Path(text.into()));
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // Digits that are no pid are no name either: nobody would expect them to be looked up as one.
            return match text.parse() {
                Ok(pid) if pid > 0 => Ok(Target::Pid(pid)),
                _ => Err(LinkError::NotANamespace { path: text.into(), why: "no process can have this pid".into() }),
            };
        }
        if text.is_empty() || text == "." || text == ".." || text.contains('\0') {
            return Err(LinkError::NoSuchNamespace { name: text.into(), tried: "nothing: it is no file name".into() });
        }
        Ok(Target::Name(text.into()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Pid(pid) => write!(f, "the network namespace of process {pid}"),
            Target::Name(name) => write!(f, "the network namespace '{name}'"),
            Target::Path(path) => write!(f, "the network namespace {}", path.display()),
        }
    }
}

/// The namespaces of a target. While this is held, they stay alive.
#[derive(Debug)]
pub struct Namespaces {
    /// The user namespace that owns `net`; `None` if it is our own.
    user: Option<OwnedFd>,
    net: OwnedFd,
}

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
}

impl Target {
    /// Opens the target's namespaces.
    ///
    /// # Errors
    /// [`LinkError::NoSuchProcess`], [`LinkError::NoSuchNamespace`], [`LinkError::NotANamespace`], and
    /// [`LinkError::TargetDenied`] if it, or the user namespace that owns it, is out of reach.
    pub fn resolve(&self) -> Result<Namespaces, LinkError> {
        let net = match self {
            Target::Pid(pid) => self.of_process(*pid)?,
            Target::Name(name) => self.named(name)?,
            Target::Path(path) => self.at(path)?.ok_or_else(|| LinkError::NotANamespace {
                path: path.display().to_string(),
                why: "there is no such file".into(),
            })?,
        };
        match sys::namespace_type(net.as_fd()) {
            Ok(kind) if kind == CloneFlags::CLONE_NEWNET.bits() => {}
            Ok(_) => return Err(self.not_a_namespace("it is a namespace of another kind")),
            Err(_) => return Err(self.not_a_namespace("it is an ordinary file or one whose namespace is gone")),
        }
        let owner = sys::owning_user_namespace(&net).map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => {
                self.denied("it belongs to a user namespace that is neither ours nor one beneath ours")
            }
            _ => LinkError::system(format!("find out who owns {self}"), e, "use Linux 4.9 or later"),
        })?;
        let user = if is_own_user_namespace(&owner)? { None } else { Some(owner) };
        Ok(Namespaces { user, net })
    }

    fn of_process(&self, pid: i32) -> Result<OwnedFd, LinkError> {
        // Through one directory descriptor, so that a pid that is reused in between is not mistaken for the first.
        let gone = || LinkError::NoSuchProcess { pid };
        let directory = open(format!("/proc/{pid}").as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|e| match e {
                Errno::ENOENT | Errno::ESRCH => gone(),
                e => LinkError::system(format!("look up process {pid} in /proc"), e, "see that /proc is mounted"),
            })?;
        openat(&directory, "ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|e| match e {
            // A process that ended but was not waited for still has a directory, and no namespaces.
            Errno::ENOENT | Errno::ESRCH | Errno::EINVAL => gone(),
            Errno::EACCES | Errno::EPERM => self.denied("the process belongs to another user"),
            e => LinkError::system(format!("open /proc/{pid}/ns/net"), e, "see that the process still runs"),
        })
    }

    fn named(&self, name: &str) -> Result<OwnedFd, LinkError> {
        for directory in NAMED {
            if let Some(found) = self.at(&Path::new(directory).join(name))? {
                return Ok(found);
            }
        }
        let tried = NAMED.map(|directory| format!("{directory}/{name}")).join(" and ");
        Err(LinkError::NoSuchNamespace { name: name.into(), tried })
    }

    /// The file at this path; `None` if there is none.
    fn at(&self, path: &Path) -> Result<Option<OwnedFd>, LinkError> {
        // A FIFO or a device is opened without waiting and then found to be no namespace.
        match open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(Errno::EACCES | Errno::EPERM) => Err(self.denied("the file may not be opened")),
            Err(e) => Err(LinkError::system(format!("open {}", path.display()), e, "give the path of a namespace")),
        }
    }

    fn denied(&self, why: &str) -> LinkError {
        LinkError::TargetDenied { target: self.to_string(), why: why.into() }
    }

    fn not_a_namespace(&self, why: &str) -> LinkError {
        let path = match self {
            Target::Pid(pid) => format!("/proc/{pid}/ns/net"),
            Target::Name(name) => name.clone(),
            Target::Path(path) => path.display().to_string(),
        };
        LinkError::NotANamespace { path, why: why.into() }
    }
}

fn is_own_user_namespace(other: &OwnedFd) -> Result<bool, LinkError> {
    let compare = || {
        let own = fstat(File::open(OWN_USER)?)?;
        let other = fstat(other)?;
        io::Result::Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    };
    compare().map_err(|e| LinkError::system(format!("look at {OWN_USER}"), e, "see that /proc is mounted"))
}

/// Opens a configured TAP in the target, from a child made for this.
///
/// # Errors
/// [`LinkError::Threads`] in a process of several threads, [`LinkError::Child`] with the text of what [`create_in`] said.
pub fn open_in(namespaces: &Namespaces, interface: &Interface) -> Result<OwnedFd, LinkError> {
    pass::in_child(|| create_in(namespaces, interface))
}

/// Opens a configured TAP in the target, and leaves this process there.
///
/// The process must have one thread, and should end soon: it cannot go back. [`open_in`] makes a child for this.
///
/// # Errors
/// [`LinkError`]: an impossible name, no right to enter, no device node, a name that is taken, an address refused.
pub fn create_in(namespaces: &Namespaces, interface: &Interface) -> Result<OwnedFd, LinkError> {
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
pub fn create_here(interface: &Interface) -> Result<OwnedFd, LinkError> {
    tap::check_name(&interface.name)?;
    let here = File::open("/proc/thread-self/ns/net")
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
fn create(target: &OwnedFd, interface: &Interface) -> Result<OwnedFd, LinkError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| match e {
        Errno::EPERM => denied("making a namespace demands CAP_SYS_ADMIN in the user namespace that owns it"),
        e => LinkError::system("make a network namespace", e, "see the limit: sysctl user.max_net_namespaces"),
    })?;
    let tap = tap::open(&TapSpec { name: interface.name.clone(), offload: interface.offload })?;
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
    Ok(tap.into_fd())
}

fn enter(target: &OwnedFd) -> Result<(), LinkError> {
    setns(target, CloneFlags::CLONE_NEWNET).map_err(|e| match e {
        Errno::EPERM => denied("entering demands CAP_SYS_ADMIN in the user namespace that owns it"),
        e => LinkError::system("enter the target's network namespace", e, "see that the container still runs"),
    })
}

/// Address, links up, route: in this order, since each needs the one before.
fn configure(interface: &Interface) -> Result<(), LinkError> {
    let doing = |what: String, next: &'static str| move |e: io::Error| LinkError::system(what, e, next);
    let name = &interface.name;
    // The index may have changed on the way.
    let index = require_index(name)?;
    let mut netlink = netlink()?;
    if let Some(address) = interface.address {
        add_address(&mut netlink, name, index, address)?;
    }
    if let Some(lo) = index_of("lo").map_err(doing("look up 'lo'".into(), "please report this"))? {
        netlink.set_up(lo).map_err(doing("set 'lo' up".into(), "please report this"))?;
    }
    netlink.set_up(index).map_err(doing(format!("set '{name}' up"), "please report this"))?;
    if let Some(gateway) = interface.gateway {
        add_default_route(&mut netlink, name, index, interface.address, gateway)?;
    }
    Ok(())
}

/// Gives an interface of the present network namespace an address with its prefix length, and a default route: what is
/// left to do when a lease comes later than the interface. The interface must be up.
///
/// # Errors
/// [`LinkError::System`] if there is no such interface, or it has the address, or there is a default route already.
pub fn set_address(name: &str, address: (Ipv4Addr, u8), gateway: Option<Ipv4Addr>) -> Result<(), LinkError> {
    let index = require_index(name)?;
    let mut netlink = netlink()?;
    add_address(&mut netlink, name, index, address)?;
    gateway.map_or(Ok(()), |gateway| add_default_route(&mut netlink, name, index, Some(address), gateway))
}

fn add_address(
    netlink: &mut Rtnetlink,
    name: &str,
    index: u32,
    (address, prefix): (Ipv4Addr, u8),
) -> Result<(), LinkError> {
    netlink.add_address(index, address, prefix).map_err(|e| {
        let tried = format!("give '{name}' the address {address}/{prefix}");
        LinkError::system(tried, e, "choose an address of one host and a prefix length up to 32")
    })
}

fn add_default_route(
    netlink: &mut Rtnetlink,
    name: &str,
    index: u32,
    address: Option<(Ipv4Addr, u8)>,
    gateway: Ipv4Addr,
) -> Result<(), LinkError> {
    let onlink = address.is_none_or(|(address, prefix)| !same_subnet(address, gateway, prefix));
    netlink.add_default_route(index, gateway, onlink).map_err(|e| {
        let tried = format!("set the default route via {gateway} over '{name}'");
        LinkError::system(tried, e, "if the container has a default route already, attach without a gateway")
    })
}

fn same_subnet(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    u32::from(a) | host_bits == u32::from(b) | host_bits
}

fn require_index(name: &str) -> Result<u32, LinkError> {
    let missing = || Err(io::Error::from(Errno::ENODEV));
    index_of(name)
        .and_then(|index| index.map_or_else(missing, Ok))
        .map_err(|e| LinkError::system(format!("find the interface '{name}'"), e, "see that nobody removed it"))
}

fn netlink() -> Result<Rtnetlink, LinkError> {
    Rtnetlink::open().map_err(|e| LinkError::system("open a netlink socket", e, "see that no filter forbids it"))
}

fn denied(why: &str) -> LinkError {
    LinkError::TargetDenied { target: "the target's network namespace".into(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_is_a_pid_a_path_or_a_name_by_its_looks() {
        let parse = |text: &str| text.parse::<Target>();
        assert_eq!(parse("4711").unwrap(), Target::Pid(4711));
        assert_eq!(parse("/proc/1/ns/net").unwrap(), Target::Path("/proc/1/ns/net".into()));
        assert_eq!(parse("./12").unwrap(), Target::Path("./12".into()));
        assert_eq!(parse("blue-1").unwrap(), Target::Name("blue-1".into()));
        for bad in ["", "..", "0", "99999999999999999999"] {
            assert!(parse(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn each_way_a_target_can_be_missing_has_an_error_of_its_own() {
        let error = |target: Target| target.resolve().unwrap_err();
        // Above the kernel's highest pid (4 194 304).
        assert!(matches!(error(Target::Pid(i32::MAX)), LinkError::NoSuchProcess { .. }));
        assert!(matches!(error(Target::Name("no-such-name".into())), LinkError::NoSuchNamespace { .. }));
        for path in ["/no/such/file", "/dev/null", "/proc/self/ns/uts"] {
            let error = error(Target::Path(path.into()));
            assert!(matches!(error, LinkError::NotANamespace { .. }), "{path}: {error}");
            assert!(error.to_string().contains(path), "{error}");
        }
    }

    #[test]
    fn own_namespace_needs_no_other_user_namespace() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let namespaces = Target::Pid(pid).resolve().unwrap();
        assert!(namespaces.user.is_none());
    }

    #[test]
    fn subnet_of_any_prefix_length() {
        let address = |last| Ipv4Addr::new(10, 0, 0, last);
        assert!(same_subnet(address(2), address(1), 24));
        assert!(!same_subnet(address(2), address(1), 32));
        assert!(same_subnet(address(2), Ipv4Addr::new(192, 0, 2, 1), 0));
    }
}
