//! TAP devices: a container's interface, seen from the other side.
//!
//! A device with *offload* carries a virtio-net header in front of each frame, so that the container's kernel may leave
//! segmentation and checksums undone and super-frames pass whole; its MTU stays that of the wire. One without is the
//! plain TAP that any kernel has had for decades, and the port then cuts and completes in software.
//!
//! One system call moves one frame: a `read` that brings header and frame together, a `writev` that takes them together.
//! A write is atomic, so several threads may write to one device ([`Tap::share`]); its reading side belongs to one.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use tapswitch_wire::{DropReason, ETHERNET_HEADER_LEN, GsoKind, MAX_FRAME_LEN, Meta, VNET_HEADER_LEN};

use crate::port::tx_plain;
use crate::{Buffer, LinkError, Port, Rx, sys};

const TUN_PATH: &str = "/dev/net/tun";

// linux/if_tun.h: what the reader of the device is willing to finish.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;
const WITH_TSO: u32 = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
/// The kernel takes USO for both families or for none.
const WITH_USO: u32 = WITH_TSO | TUN_F_USO4 | TUN_F_USO6;

/// What to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapSpec {
    /// The interface's name: 1 to 15 bytes without `/`, `:`, `%` or spaces, and none of `all`, `default`, `lo`. [`open`]
    /// checks it.
    pub name: String,
    /// Whether super-frames and partial checksums pass whole.
    pub offload: bool,
}

/// What the container's kernel leaves to us, and takes from us, undone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offload {
    /// Nothing: every frame is as on a wire.
    None,
    /// Checksums and TCP segmentation. Kernels before 6.2 know no more.
    Tso,
    /// UDP segmentation (USO) too.
    TsoUso,
}

/// An open TAP device, or one of several threads' hold on it.
#[derive(Debug)]
pub struct Tap {
    device: Arc<Device>,
    /// Where a super-frame is cut for a device without offload.
    scratch: Vec<u8>,
}

/// What all who hold the device share. The kernel takes reads and writes from several threads.
#[derive(Debug)]
struct Device {
    file: File,
    name: String,
    offload: Offload,
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
    let file = OpenOptions::new().read(true).write(true).open(TUN_PATH).map_err(explain_node)?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more;
    sys::tun_set_iff(&file, name, flags).map_err(|e| explain_device(name, e))?;
    Ok(file.into())
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

fn explain_device(name: &str, error: io::Error) -> LinkError {
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

impl Tap {
    /// Takes over a TAP that somebody else opened.
    ///
    /// The kernel is asked what it is; a virtio-net header is set to ten bytes and all offloads it can are turned on. The
    /// descriptor becomes non-blocking, for everybody who shares it.
    ///
    /// # Errors
    /// [`LinkError::NotATap`] for anything else: a file, a TUN, a TAP with packet information, a device that is gone.
    pub fn from_fd(fd: OwnedFd) -> Result<Tap, LinkError> {
        let refuse = |why: &str| LinkError::NotATap(why.into());
        let device = sys::tun_get_iff(&fd).map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBADFD) => refuse("it is /dev/net/tun without a device, or its device is gone"),
            _ => LinkError::NotATap(format!("it is no TUN or TAP device ({e})")),
        })?;
        let has = |flag: libc::c_int| device.flags & flag != 0;
        if !has(libc::IFF_TAP) {
            return Err(refuse("it is a TUN device, which carries packets without Ethernet headers"));
        }
        if has_packet_information(&fd, device.flags) {
            return Err(refuse("it puts packet information in front of each frame"));
        }
        let offload = if has(libc::IFF_VNET_HDR) { enable_offload(&fd, &device.name)? } else { Offload::None };
        let device = Device { file: File::from(fd), name: device.name, offload };
        let tap = Tap { device: Arc::new(device), scratch: Vec::new() };
        tap.set_nonblocking(true)?;
        Ok(tap)
    }

    /// Gives the descriptor up. If the device is shared, a copy of it.
    ///
    /// # Errors
    /// Only if it is shared: when no more descriptors can be opened.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match Arc::try_unwrap(self.device) {
            Ok(device) => Ok(device.file.into()),
            Err(shared) => shared.file.try_clone().map(OwnedFd::from),
        }
    }

    /// The same device once more, for another thread to write to. It costs no descriptor.
    ///
    /// The device lives until the last of them is dropped. Only one may be polled and read.
    pub fn share(&self) -> Tap {
        Tap { device: Arc::clone(&self.device), scratch: Vec::new() }
    }

    /// Whether somebody else has the device too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.device) > 1
    }

    /// Whether a read without a frame returns at once instead of waiting, for everybody who shares the device. On at
    /// first. A write does not wait for the container in either mode, unless whoever opened the
    /// device gave it a small send buffer (TUNSETSNDBUF), which we never do.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_nonblocking(&self, on: bool) -> Result<(), LinkError> {
        let set = || {
            let flags = OFlag::from_bits_retain(fcntl(&self.device.file, FcntlArg::F_GETFL)?);
            let flags = if on { flags | OFlag::O_NONBLOCK } else { flags & !OFlag::O_NONBLOCK };
            fcntl(&self.device.file, FcntlArg::F_SETFL(flags))
        };
        set().map(drop).map_err(|e| {
            LinkError::system(format!("choose whether '{}' blocks", self.device.name), e, "please report this")
        })
    }

    /// The interface's name at the time it was opened or taken over. The container may rename it.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// Which offloads the kernel granted.
    pub fn granted(&self) -> Offload {
        self.device.offload
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> Result<(), DropReason> {
        loop {
            match (&self.device.file).write_vectored(parts) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(tx_reason(&e)),
            }
        }
    }

    /// Whether this frame has to be cut or completed before the kernel takes it.
    fn needs_software(&self, meta: &Meta) -> bool {
        match self.device.offload {
            Offload::None => true,
            Offload::Tso => meta.gso.is_some_and(|gso| gso.kind == GsoKind::Udp),
            Offload::TsoUso => false,
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.file.as_fd()
    }
}

impl Port for Tap {
    fn rx(&mut self, buffer: &mut Buffer) -> Rx {
        let vnet = self.device.offload != Offload::None;
        let read = loop {
            let room = if vnet { buffer.whole() } else { buffer.behind_header() };
            match (&self.device.file).read(room) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let read = match read {
            Ok(0) => return Rx::Gone,
            Ok(read) => read,
            Err(e) => return rx_outcome(&e),
        };
        let header = buffer.header();
        let header = if vnet { &header[..read.min(VNET_HEADER_LEN)] } else { &[] };
        let len = read - header.len();
        if len > MAX_FRAME_LEN {
            return Rx::Bad(DropReason::FrameTooLong);
        }
        match describe(vnet, header, buffer.frame(len)) {
            Ok(meta) => Rx::Frame(meta, len),
            Err(reason) => Rx::Bad(reason),
        }
    }

    fn tx(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        if !self.needs_software(meta) {
            return self.write(&[IoSlice::new(&meta.encode(frame)), IoSlice::new(frame)]);
        }
        let header = Meta::PLAIN.encode(&[]);
        let vnet = self.device.offload != Offload::None;
        let mut scratch = std::mem::take(&mut self.scratch);
        let sent = tx_plain(meta, frame, &mut scratch, |segment| {
            let parts = [IoSlice::new(&header), IoSlice::new(segment)];
            self.write(if vnet { &parts } else { &parts[1..] })
        });
        self.scratch = scratch;
        sent
    }

    fn offload(&self) -> bool {
        self.device.offload != Offload::None
    }
}

/// Whether four bytes of packet information stand in front of each frame.
///
/// TUNGETIFF answers with IFF_NO_PI also for a device that has them, as long as it has no socket filter: IFF_NOFILTER is
/// the same bit. So a device without one gets one that lets everything pass, for the time of the question. A macvtap
/// takes no filter, and tells the truth.
fn has_packet_information(fd: &OwnedFd, flags: libc::c_int) -> bool {
    let none = |flags: libc::c_int| flags & libc::IFF_NO_PI != 0;
    if none(flags) && sys::tun_has_filter(fd).is_ok_and(|has| !has) {
        let asked = sys::tun_with_filter(fd, || sys::tun_get_iff(fd));
        return !none(asked.map_or(flags, |device| device.flags));
    }
    !none(flags)
}

/// What a device with or without a virtio-net header says of a frame that was just read.
pub(crate) fn describe(vnet: bool, header: &[u8], frame: &[u8]) -> Result<Meta, DropReason> {
    if frame.len() < ETHERNET_HEADER_LEN {
        return Err(DropReason::FrameTooShort);
    }
    if frame.len() > MAX_FRAME_LEN {
        return Err(DropReason::FrameTooLong);
    }
    if !vnet {
        return Ok(Meta::PLAIN);
    }
    let header = header.first_chunk().ok_or(DropReason::FrameTooShort)?;
    Meta::decode(header, frame)
}

/// What a failed write says about the frame.
fn tx_reason(error: &io::Error) -> DropReason {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => DropReason::TxFull,
        // The interface is down, or the device is gone with its namespace.
        Some(Errno::EIO | Errno::EBADFD | Errno::ENODEV | Errno::ENXIO) => DropReason::PortDown,
        _ => DropReason::TxFailed,
    }
}

/// What a failed read says about the port.
pub(crate) fn rx_outcome(error: &io::Error) -> Rx {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => Rx::WouldBlock,
        // The kernel could not describe a frame in a virtio-net header; the frame is consumed and the next may be good.
        Some(Errno::EINVAL) => Rx::Bad(DropReason::BadVnetHeader),
        // EBADFD: the device is deleted. Any other error would come again at once, and a loop must not spin on it.
        _ => Rx::Gone,
    }
}

fn enable_offload(fd: &OwnedFd, name: &str) -> Result<Offload, LinkError> {
    let explain = |what: &'static str| {
        move |e: io::Error| {
            LinkError::system(format!("{what} of '{name}'"), e, "open it without offload, or use Linux 4.8 or later")
        }
    };
    if sys::tun_vnet_header_len(fd).map_err(explain("read the virtio-net header size"))? != VNET_HEADER_LEN {
        sys::tun_set_vnet_header_len(fd, VNET_HEADER_LEN).map_err(explain("set the virtio-net header size"))?;
    }
    if sys::tun_set_offload(fd, WITH_USO).is_ok() {
        return Ok(Offload::TsoUso);
    }
    sys::tun_set_offload(fd, WITH_TSO).map_err(explain("turn on the segmentation offload"))?;
    Ok(Offload::Tso)
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn from_fd_refuses_what_is_no_tap_and_says_so() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let null = File::open("/dev/null").unwrap();
        for fd in [OwnedFd::from(a), OwnedFd::from(file), OwnedFd::from(null)] {
            let error = Tap::from_fd(fd).unwrap_err();
            assert!(matches!(error, LinkError::NotATap(_)), "{error}");
            assert!(error.to_string().contains("IFF_TAP"), "{error}");
        }
    }

    #[test]
    fn read_and_write_errors_have_the_meaning_the_loop_relies_on() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno as i32);
        assert_eq!(tx_reason(&error(Errno::EAGAIN)), DropReason::TxFull);
        assert_eq!(tx_reason(&error(Errno::ENOBUFS)), DropReason::TxFull);
        assert_eq!(tx_reason(&error(Errno::EIO)), DropReason::PortDown);
        assert_eq!(tx_reason(&error(Errno::EBADFD)), DropReason::PortDown);
        assert_eq!(tx_reason(&error(Errno::EINVAL)), DropReason::TxFailed);
        assert_eq!(rx_outcome(&error(Errno::EAGAIN)), Rx::WouldBlock);
        assert_eq!(rx_outcome(&error(Errno::EINVAL)), Rx::Bad(DropReason::BadVnetHeader));
        assert_eq!(rx_outcome(&error(Errno::EBADFD)), Rx::Gone);
        assert_eq!(rx_outcome(&error(Errno::EFAULT)), Rx::Gone);
    }
}
