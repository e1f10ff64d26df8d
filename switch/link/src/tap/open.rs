//! Making and opening TUN and TAP devices, and what their errors mean.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::Tap;
use crate::{LinkError, sys};

const TUN_PATH: &str = "/dev/net/tun";

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapSpec {
    /// The interface's name: 1 to 15 bytes without `/`, `:`, `%` or spaces, and none of `all`, `default`, `lo`. [`open`]
    /// checks it.
    pub name: String,
    /// Whether super-frames and partial checksums pass whole.
    pub offload: bool,
}

/// Says what is wrong with an interface name, if anything.
///
/// # Errors
/// [`LinkError::BadName`].
pub fn check_name(name: &str) -> Result<(), LinkError> {
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it is a directory's",
        // Directories of /proc/sys/net/ipv4/conf, and the loopback of every namespace.
        "all" | "default" | "lo" => "the kernel uses it for something else",
        _ if name.len() >= libc::IFNAMSIZ => "it is longer than 15 bytes",
        // The kernel replaces "%d" by a number of its own choice.
        _ if name.contains(['/', ':', '%']) => "it contains '/', ':' or '%'",
        _ if name.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control() || b == 0x0b) => {
            "it contains a space or a control character"
        }
        _ => return Ok(()),
    };
    Err(LinkError::BadName { name: name.into(), why })
}

/// Opens a TAP device in the present network namespace. It vanishes when the descriptor is closed.
///
/// # Errors
/// [`LinkError`]: the name, the device node, the right to make an interface, or the name's being taken.
pub fn open(spec: &TapSpec) -> Result<Tap, LinkError> {
    check_name(&spec.name)?;
    let fd = if spec.offload { open_offload(&spec.name, 0)? } else { open_plain(&spec.name)? };
    Tap::from_fd(fd)
}

/// Opens a TAP device of so many queues. The container's kernel keeps each flow in one queue, and chooses the one by
/// which the flow's frames in the other direction came. One queue makes an ordinary device, and so does no offload.
///
/// # Errors
/// As [`open`].
pub fn open_queues(spec: &TapSpec, queues: usize) -> Result<Vec<Tap>, LinkError> {
    if queues <= 1 || !spec.offload {
        return Ok(vec![open(spec)?]);
    }
    check_name(&spec.name)?;
    (0..queues).map(|_| open_offload(&spec.name, libc::IFF_MULTI_QUEUE).and_then(Tap::from_fd)).collect()
}

fn open_offload(name: &str, more: libc::c_int) -> Result<OwnedFd, LinkError> {
    open_device(name, libc::IFF_TAP | more)?.map_err(|e| explain_device(name, e))
}

/// A device with a virtio-net header, made, or opened if it is there. `kind` is IFF_TAP or IFF_TUN, and what else is
/// wanted. The inner error is about the device, the outer about the node by which all of them are opened.
pub(crate) fn open_device(name: &str, kind: libc::c_int) -> Result<io::Result<OwnedFd>, LinkError> {
    let file = OpenOptions::new().read(true).write(true).open(TUN_PATH).map_err(explain_node)?;
    let flags = kind | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    Ok(sys::tun_set_iff(&file, name, flags).map(|()| file.into()))
}

fn open_plain(name: &str) -> Result<OwnedFd, LinkError> {
    let device = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tap).map_err(|e| {
        match e.raw_os_error().map(Errno::from_raw) {
            // The library opens the node and then makes the device; only these can come from the node.
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO | Errno::EACCES) => explain_node(e),
            _ => explain_device(name, e),
        }
    })?;
    // SAFETY: the library gives up the descriptor, which is open, and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) })
}

fn explain_node(error: io::Error) -> LinkError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR) => LinkError::NoTunNode,
        Some(Errno::ENODEV | Errno::ENXIO) => LinkError::NoTunDriver(error),
        Some(Errno::EACCES | Errno::EPERM) => LinkError::TunDenied,
        _ => LinkError::system(format!("open {TUN_PATH}"), error, "free descriptors or memory, then try again"),
    }
}

pub(crate) fn explain_device(name: &str, error: io::Error) -> LinkError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => LinkError::TapDenied { name: name.into() },
        Some(Errno::ENOTTY) => LinkError::NotTunNode,
        Some(Errno::EBUSY) => LinkError::TapBusy { name: name.into() },
        _ => LinkError::system(
            format!("make the TAP device '{name}'"),
            error,
            "see whether an interface of another kind has this name: ip link",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_sees_them() {
        for good in ["eth0", "a", "fifteen-bytes-x", "veth.100"] {
            check_name(good).unwrap();
        }
        for bad in
            ["", ".", "..", "sixteen-bytes-xx", "a/b", "a b", "a\tb", "tap%d", "eth0:1", "a\0b", "all", "default", "lo"]
        {
            let error = check_name(bad).unwrap_err().to_string();
            assert!(error.contains("cannot name an interface"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn node_of_another_device_is_named_as_the_culprit() {
        let null = File::open("/dev/null").unwrap();
        let error = sys::tun_set_iff(&null, "eth0", libc::IFF_TAP).unwrap_err();
        let error = explain_device("eth0", error).to_string();
        assert!(error.contains("/dev/net/tun") && error.contains("mknod"), "{error}");
    }
}
