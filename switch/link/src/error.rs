//! What can go wrong with descriptors and namespaces, in words that say what to do.

use std::io;

/// Why a port or a namespace could not be had: what was tried, on what, why it failed, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The name cannot be an interface's.
    #[error(
        "'{name}' cannot name an interface: {why}; choose 1 to 15 bytes without '/', ':', '%' or spaces, and none of \
         'all', 'default', 'lo'"
    )]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The TUN device node is missing.
    #[error(
        "cannot open /dev/net/tun: it does not exist; load the tun module (modprobe tun), or make the node: \
         mkdir -p /dev/net && mknod /dev/net/tun c 10 200 && chmod 0666 /dev/net/tun"
    )]
    NoTunNode,
    /// The node is there, and is another device's.
    #[error(
        "cannot use /dev/net/tun: it is not the TUN device, but a file or device of another kind; make it anew: \
         rm /dev/net/tun && mknod /dev/net/tun c 10 200 && chmod 0666 /dev/net/tun"
    )]
    NotTunNode,
    /// The node is there, and no driver behind it.
    #[error("cannot open /dev/net/tun: the kernel has no driver for it ({0}); load the tun module: modprobe tun")]
    NoTunDriver(io::Error),
    /// The TUN device may not be opened.
    #[error(
        "cannot open /dev/net/tun: permission denied; ask the administrator for mode 0666, the default of most \
         distributions (in a container, for the device: --device /dev/net/tun)"
    )]
    TunDenied,
    /// No right to make an interface in this namespace.
    #[error(
        "cannot make the TAP device '{name}': the kernel demands CAP_NET_ADMIN in this network namespace; run as root, \
         or in a user namespace of your own (unshare -Ur)"
    )]
    TapDenied {
        /// The device's name.
        name: String,
    },
    /// Another process has the device open.
    #[error("cannot open the TAP device '{name}': another process holds it; close that one, or choose another name")]
    TapBusy {
        /// The device's name.
        name: String,
    },
    /// The descriptor that was handed in is something else.
    #[error("the descriptor cannot be a port: {0}; hand over a TAP opened with IFF_TAP and IFF_NO_PI")]
    NotATap(String),
    /// There is no such interface.
    #[error("no interface is named '{name}' in this network namespace; list them with: ip link")]
    NoSuchInterface {
        /// The name.
        name: String,
    },
    /// The interface cannot be this uplink.
    #[error("'{name}' cannot be an uplink of this kind: {why}; {next}")]
    UnfitUplink {
        /// The interface's name.
        name: String,
        /// What it is, or lacks.
        why: String,
        /// What to do next.
        next: String,
    },
    /// No right to use the interface.
    #[error(
        "cannot {tried} '{name}': {source}; run this command with CAP_NET_RAW (as root, for one), or have the \
         administrator make a macvtap that you may open, and name that one: ip link add link {name} name mvt0 type \
         macvtap mode bridge && ip link set mvt0 up && chown USER /dev/tap$(cat /sys/class/net/mvt0/ifindex)"
    )]
    UplinkDenied {
        /// The interface's name.
        name: String,
        /// What was tried on it.
        tried: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The macvtap's device node may not be opened.
    #[error(
        "cannot open {node}, the device of the macvtap '{name}': {source}; ask the administrator to give it to you: \
         chown USER {node}"
    )]
    MacvtapDenied {
        /// The interface's name.
        name: String,
        /// The path of its device node.
        node: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The macvtap's device node is missing, or another interface's.
    #[error(
        "cannot find the device of the macvtap '{name}': {why}; look up its number in /sys/class/net/{name}/tap*/dev and \
         make the node with mknod, or do this as root"
    )]
    NoMacvtapNode {
        /// The interface's name.
        name: String,
        /// What is in its place.
        why: String,
    },
    /// The TUN or TAP device belongs to another user.
    #[error(
        "cannot open the device '{name}': permission denied; run this command with CAP_NET_ADMIN (as root, for one), or \
         have the administrator make it yours: ip tuntap add dev {name} mode tun user USER && ip link set {name} up"
    )]
    TunOwned {
        /// The interface's name.
        name: String,
    },
    /// The interface's name is taken in the target.
    #[error(
        "an interface named '{name}' exists in the target namespace already; choose another name with --ifname, or \
         remove that one first: ip link delete {name}"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is no such process.
    #[error("no process has the pid {pid}: it ended, or never was; list the running ones with: ps -e")]
    NoSuchProcess {
        /// The pid.
        pid: i32,
    },
    /// There is no such named namespace.
    #[error(
        "no network namespace is named '{name}' (tried {tried}); list them with: ip netns list, or name a container by \
         the pid of one of its processes"
    )]
    NoSuchNamespace {
        /// The name.
        name: String,
        /// The paths that were tried.
        tried: String,
    },
    /// The path leads to nothing, or to something else.
    #[error("'{path}' is not a network namespace: {why}; give the path of one, such as /proc/PID/ns/net")]
    NotANamespace {
        /// The path.
        path: String,
        /// What it is instead.
        why: String,
    },
    /// The target belongs to somebody else.
    #[error(
        "no permission to enter {target}: {why}; attach as the user who started the container, or as root if root did"
    )]
    TargetDenied {
        /// The target.
        target: String,
        /// Which step was refused.
        why: String,
    },
    /// The kernel refused user namespaces to this user.
    #[error(
        "cannot make a user namespace: {0}; ask the administrator to allow them: sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone=1 (Debian), kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)"
    )]
    NoUserNamespaces(io::Error),
    /// A step that needs a process of one thread was taken in one of several.
    #[error(
        "cannot fork or change namespaces in a process of {count} threads; do it before any thread is started, or in a \
         program of its own"
    )]
    Threads {
        /// How many there are.
        count: usize,
    },
    /// The child that was to open the device said this.
    #[error("{0}")]
    Child(String),
    /// The child that was to open the device ended without a word.
    #[error("the child process that should have opened the device ended without an answer ({0}); please report this")]
    ChildLost(String),
    /// Any other system call.
    #[error("cannot {tried}: {source}; {next}")]
    System {
        /// What was tried, on what.
        tried: String,
        /// Why it failed.
        source: io::Error,
        /// What to do next.
        next: &'static str,
    },
}

impl LinkError {
    /// A failed system call: what was tried on what, why it failed, what to do next.
    pub(crate) fn system(tried: impl Into<String>, source: impl Into<io::Error>, next: &'static str) -> LinkError {
        LinkError::System { tried: tried.into(), source: source.into(), next }
    }
}
