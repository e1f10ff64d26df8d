//! The character device of a macvtap: finding it, and making a macvtap that goes when its descriptor goes.
//!
//! The kernel makes a node /dev/tapN, N being the interface's index. Indices are told apart by network namespace and the
//! names of nodes are not, so the node there may be another interface's, or missing. Which number is the right one stands
//! in sysfs, which shows the namespace in which it was mounted. So whoever may goes to mount and network namespaces of
//! its own: a thread that ends thereafter mounts a sysfs, reads the number and makes a node for it that nobody else sees.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode as FileMode, SFlag, makedev, mknod};
use tapswitch_wire::Mac;

use crate::rtnetlink::{Rtnetlink, index_of};
use crate::{LinkError, sys};

/// The name of a macvtap that is made, in a namespace where it is alone.
const NAME: &str = "uplink";
/// A directory that every system has, and that nobody needs who looks at what is mounted over it.
const SCRATCH: &str = "/sys";

/// Opens the device of the macvtap of this name, index and address.
pub(super) fn open(iface: &str, index: u32, mac: Mac) -> Result<OwnedFd, LinkError> {
    let node = format!("/dev/tap{index}");
    let why = match open_node(&node) {
        Ok(fd) if is_of(&fd, iface, mac) => return Ok(fd),
        Ok(_) => format!("{node} is another interface's, of another network namespace"),
        Err(source) if source.kind() == io::ErrorKind::NotFound => format!("{node} does not exist"),
        Err(source) if source.kind() == io::ErrorKind::ResourceBusy => {
            return Err(LinkError::TapBusy { name: iface.into() });
        }
        Err(source) => format!("{node} cannot be opened: {source}"),
    };
    let opened = apart(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        open_privately(iface)
    });
    match opened {
        Ok(fd) if is_of(&fd, iface, mac) => Ok(fd),
        _ if why.contains("cannot be opened") => {
            let source = open_node(&node).err().unwrap_or_else(|| Errno::EACCES.into());
            Err(LinkError::MacvtapDenied { name: iface.into(), node, source })
        }
        _ => Err(LinkError::NoMacvtapNode { name: iface.into(), why }),
    }
}

/// Makes a macvtap on `iface`, in a namespace that lives as long as the descriptor.
pub(super) fn make(netlink: &mut Rtnetlink, iface: &str, index: u32, mac: Mac) -> Result<OwnedFd, LinkError> {
    let made = apart(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        let here = File::open("/proc/thread-self/ns/net")?;
        // The conversation stays with the namespace that `iface` is in.
        netlink.add_macvtap(index, NAME, mac, &here)?;
        let made = index_of(NAME)?.ok_or(Errno::ENODEV)?;
        Rtnetlink::open()?.set_up(made)?;
        open_privately(NAME)
    });
    made.map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            LinkError::UplinkDenied { name: iface.into(), tried: "make a macvtap on", source: e }
        }
        Some(Errno::EBUSY) => LinkError::UnfitUplink {
            name: iface.into(),
            why: "something else has it for itself: a bridge, a bond, or a macvtap in mode passthru".into(),
            next: "name that bridge or bond instead".into(),
        },
        _ => LinkError::system(format!("make a macvtap on '{iface}'"), e, "use a packet socket instead"),
    })
}

/// Runs `open` on a thread of its own, which may go to other namespaces.
fn apart(open: impl FnOnce() -> io::Result<OwnedFd> + Send) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, open)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that opens it panicked")))
    })
}

/// Opens the device of a macvtap of the present network namespace, in a mount namespace that is ours alone.
fn open_privately(iface: &str) -> io::Result<OwnedFd> {
    // What is mounted here must not be seen anywhere else.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some("tmpfs"), SCRATCH, Some("tmpfs"), MsFlags::MS_NOEXEC, None::<&str>)?;
    let (sys, node) = (Path::new(SCRATCH).join("sys"), Path::new(SCRATCH).join("tap"));
    fs::create_dir(&sys)?;
    mount(Some("sysfs"), &sys, Some("sysfs"), MsFlags::MS_RDONLY, None::<&str>)?;
    let number = device_number(&sys, iface)?;
    mknod(&node, SFlag::S_IFCHR, FileMode::S_IRUSR | FileMode::S_IWUSR, number)?;
    open_node(&node)
}

/// The device number that sysfs tells: major and minor in class/net/IFACE/tapN/dev.
fn device_number(sys: &Path, iface: &str) -> io::Result<u64> {
    for entry in fs::read_dir(sys.join("class/net").join(iface))? {
        let entry = entry?;
        let is_tap = entry.file_name().to_str().is_some_and(|name| name.starts_with("tap"));
        if !is_tap {
            continue;
        }
        let Ok(text) = fs::read_to_string(entry.path().join("dev")) else { continue };
        if let Some((Ok(major), Ok(minor))) = text.trim().split_once(':').map(|(a, b)| (a.parse(), b.parse())) {
            return Ok(makedev(major, minor));
        }
    }
    Err(Errno::ENOENT.into())
}

fn open_node(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open(path)?.into())
}

/// Whether a descriptor is the device of the interface of this name and address.
fn is_of(fd: &OwnedFd, iface: &str, mac: Mac) -> bool {
    sys::tun_get_iff(fd).is_ok_and(|device| device.name == iface)
        && sys::tun_hardware_address(fd).is_ok_and(|address| address == mac.0)
}
