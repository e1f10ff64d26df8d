//! TAP devices: a container's interface, seen from the other side. And what else is read and written as one.
//!
//! | [`Kind`] | what it is | its frames | when its interface is deleted |
//! |---|---|---|---|
//! | `Tap` | a TAP: a container's interface, or one of the host | as on a wire | the kernel says so |
//! | `Macvtap` | a macvtap on an interface of the host | as on a wire | must be asked: [`Tap::is_gone`] |
//! | `Tun` | a TUN into the host's own stack | packets: a header is made up | the kernel says so |
//! | `Packet` | a packet socket on an interface of the host | as on a wire | must be asked |
//!
//! A device with *offload* carries a virtio-net header in front of each frame, so that the container's kernel may leave
//! segmentation and checksums undone and super-frames pass whole; its MTU stays that of the wire. One without is the
//! plain TAP that any kernel has had for decades, and the port then cuts and completes in software.
//!
//! One system call moves one frame: a `read` that brings header and frame together, a `writev` that takes them together.
//! A write is atomic, so several threads may write to one device ([`Tap::share`]); its reading side belongs to one.

mod open;

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::{fstat, major, minor};
use serde::{Deserialize, Serialize};
use tapswitch_wire::{DropReason, ETHERNET_HEADER_LEN, GsoKind, MAX_FRAME_LEN, Mac, Meta, VNET_HEADER_LEN};

use crate::port::tx_plain;
use crate::{Buffer, LinkError, Port, Rx, packet, sys, tun};

pub use open::{TapSpec, check_name, open, open_queues};
pub(crate) use open::{explain_device, open_device};

/// The number of that node, wherever it stands.
const TUN_NUMBER: (u64, u64) = (10, 200);
/// Bytes that may be on their way out of a macvtap: without limit, as a TAP has it, for no write may wait. What bounds
/// them is the queueing discipline of the interface beneath.
const SEND_BUFFER: libc::c_int = libc::c_int::MAX;

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

/// What kind of device it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A TAP.
    Tap,
    /// The character device of a macvtap interface.
    Macvtap,
    /// A TUN: packets without Ethernet headers.
    Tun,
    /// A packet socket (`AF_PACKET`).
    Packet,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Tap => "TAP",
            Kind::Macvtap => "macvtap",
            Kind::Tun => "TUN",
            Kind::Packet => "packet socket",
        })
    }
}

/// An open device of one of these [`Kind`]s, or one of several threads' hold on it.
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
    framing: Framing,
}

/// What the file gives and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// Frames, by `read`.
    Frames { is_macvtap: bool },
    /// Packets, by `read`; frames made of them are for this MAC address.
    Packets(Mac),
    /// Frames, by `recvmsg`, with the VLAN tag beside.
    Messages,
}

impl Tap {
    /// Takes over a TAP or macvtap that somebody else opened.
    ///
    /// The kernel is asked what it is; a virtio-net header is set to ten bytes and all offloads it can are turned on. The
    /// descriptor becomes non-blocking, for everybody who shares it.
    ///
    /// # Errors
    /// [`LinkError::NotATap`] for anything else: a file, a TUN, a TAP with packet information, a device that is gone.
    pub fn from_fd(fd: OwnedFd) -> Result<Tap, LinkError> {
        let (device, is_tap) = Self::look(&fd)?;
        if !is_tap {
            return Err(LinkError::NotATap(
                "it is a TUN device, which carries packets without Ethernet headers".into(),
            ));
        }
        let is_macvtap = !is_tun_node(&fd);
        if is_macvtap {
            sys::tun_set_send_buffer(&fd, SEND_BUFFER).map_err(|e| {
                LinkError::system(format!("set the send buffer of '{}'", device.name), e, "please report this")
            })?;
        }
        Self::over_tun(fd, device, Framing::Frames { is_macvtap })
    }

    /// Takes over a TUN that somebody else opened. The frames made of its packets are for `ours`, and from
    /// [`crate::uplink::TUN_PEER`].
    ///
    /// # Errors
    /// As [`Tap::from_fd`], with TUN and TAP exchanged.
    pub fn from_tun(fd: OwnedFd, ours: Mac) -> Result<Tap, LinkError> {
        let (device, is_tap) = Self::look(&fd)?;
        if is_tap {
            return Err(LinkError::NotATap("it is a TAP device where a TUN is meant".into()));
        }
        Self::over_tun(fd, device, Framing::Packets(ours))
    }

    /// Takes over a packet socket that somebody else opened on the interface of this name, with whatever filter it has.
    ///
    /// # Errors
    /// [`LinkError::NotATap`] for anything but a raw packet socket for all protocols, bound to an Ethernet interface.
    pub fn from_packet_socket(fd: OwnedFd, name: &str) -> Result<Tap, LinkError> {
        packet::check(&fd).map_err(LinkError::NotATap)?;
        packet::prepare(&fd).map_err(|(what, e)| LinkError::system(what, e, "use Linux 4.8 or later"))?;
        let offload = if packet::has_uso() { Offload::TsoUso } else { Offload::Tso };
        Self::new(Device { file: File::from(fd), name: name.into(), offload, framing: Framing::Messages })
    }

    /// What a TUN or TAP device says of itself, and whether it is a TAP.
    fn look(fd: &OwnedFd) -> Result<(sys::Interface, bool), LinkError> {
        let refuse = |why: &str| LinkError::NotATap(why.into());
        let device = sys::tun_get_iff(fd).map_err(|e| match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBADFD) => refuse("it is /dev/net/tun without a device, or its device is gone"),
            Some(Errno::ENOLINK) => refuse("its macvtap interface is gone"),
            _ => LinkError::NotATap(format!("it is no TUN or TAP device ({e})")),
        })?;
        if has_packet_information(fd, device.flags) {
            return Err(refuse("it puts packet information in front of each frame"));
        }
        let is_tap = device.flags & libc::IFF_TAP != 0;
        Ok((device, is_tap))
    }

    fn over_tun(fd: OwnedFd, device: sys::Interface, framing: Framing) -> Result<Tap, LinkError> {
        let has_header = device.flags & libc::IFF_VNET_HDR != 0;
        let offload = if has_header { enable_offload(&fd, &device.name)? } else { Offload::None };
        Self::new(Device { file: File::from(fd), name: device.name, offload, framing })
    }

    fn new(device: Device) -> Result<Tap, LinkError> {
        let tap = Tap { device: Arc::new(device), scratch: Vec::new() };
        tap.set_nonblocking(true)?;
        Ok(tap)
    }

    /// What kind of device it is.
    pub fn kind(&self) -> Kind {
        match self.device.framing {
            Framing::Frames { is_macvtap: false } => Kind::Tap,
            Framing::Frames { is_macvtap: true } => Kind::Macvtap,
            Framing::Packets(_) => Kind::Tun,
            Framing::Messages => Kind::Packet,
        }
    }

    /// Whether its interface was deleted. Reading tells it too, but for kinds of which the kernel says nothing:
    /// [`crate::intake::Intake`] asks those now and then.
    pub fn is_gone(&self) -> bool {
        let gone = |e: io::Error| matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::EBADFD | Errno::ENOLINK));
        match self.device.framing {
            Framing::Frames { .. } | Framing::Packets(_) => sys::tun_get_iff(&self.device.file).is_err_and(gone),
            Framing::Messages => packet::is_gone(&self.device.file),
        }
    }

    /// Whether the kernel says nothing when the interface is deleted.
    pub(crate) fn ends_silently(&self) -> bool {
        matches!(self.kind(), Kind::Macvtap | Kind::Packet)
    }

    /// Whether a plain `read` brings virtio-net header and frame.
    pub(crate) fn reads_frames(&self) -> bool {
        matches!(self.device.framing, Framing::Frames { .. })
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

    /// Writes one frame that the device takes as it is.
    fn send(&self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        let mut header = meta.encode(frame);
        let frame = match self.device.framing {
            Framing::Frames { .. } | Framing::Messages => frame,
            Framing::Packets(_) => {
                tun::to_packet(&mut header);
                tun::packet(frame)?
            }
        };
        let parts = [IoSlice::new(&header), IoSlice::new(frame)];
        self.write(if self.device.offload == Offload::None { &parts[1..] } else { &parts })
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
        let outcome = match self.device.framing {
            Framing::Frames { .. } => self.device.rx_frame(buffer),
            Framing::Packets(ours) => self.device.rx_packet(ours, buffer),
            Framing::Messages => self.device.rx_message(buffer),
        };
        match outcome {
            Ok(Ok((meta, len))) => Rx::Frame(meta, len),
            Ok(Err(reason)) => Rx::Bad(reason),
            Err(e) => rx_outcome(&e),
        }
    }

    fn tx(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        if !self.needs_software(meta) {
            return self.send(meta, frame);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let sent = tx_plain(meta, frame, &mut scratch, |segment| self.send(&Meta::PLAIN, segment));
        self.scratch = scratch;
        sent
    }

    fn offload(&self) -> bool {
        self.device.offload != Offload::None
    }
}

/// A frame and its length, or why it is dropped.
type Described = Result<(Meta, usize), DropReason>;

impl Device {
    fn has_header(&self) -> bool {
        self.offload != Offload::None
    }

    fn rx_frame(&self, buffer: &mut Buffer) -> io::Result<Described> {
        let vnet = self.has_header();
        let read = uninterrupted(|| {
            let room = if vnet { buffer.whole() } else { buffer.behind_header() };
            (&self.file).read(room)
        })?;
        Ok(describe_read(vnet, read, buffer))
    }

    fn rx_packet(&self, ours: Mac, buffer: &mut Buffer) -> io::Result<Described> {
        let vnet = self.has_header();
        let mut header = [0; VNET_HEADER_LEN];
        let read = uninterrupted(|| {
            let packet = &mut buffer.behind_header()[ETHERNET_HEADER_LEN..];
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(packet)];
            (&self.file).read_vectored(if vnet { &mut parts } else { &mut parts[1..] })
        })?;
        let header_len = if vnet { VNET_HEADER_LEN.min(read) } else { 0 };
        let len = ETHERNET_HEADER_LEN + read - header_len;
        if len > MAX_FRAME_LEN {
            return Ok(Err(DropReason::FrameTooLong));
        }
        tun::to_frame(&mut header);
        let frame = buffer.frame(len);
        Ok(tun::header(ours, &frame[ETHERNET_HEADER_LEN..]).and_then(|ethernet| {
            frame[..ETHERNET_HEADER_LEN].copy_from_slice(&ethernet);
            Ok((describe(vnet, &header[..header_len], frame)?, len))
        }))
    }

    fn rx_message(&self, buffer: &mut Buffer) -> io::Result<Described> {
        let received = packet::receive(&self.file, buffer.whole())?;
        if received.is_cut {
            return Ok(Err(DropReason::FrameTooLong));
        }
        let described = describe_read(true, received.len, buffer);
        let (Ok((meta, len)), Some(tag)) = (described, received.tag) else { return Ok(described) };
        if len + tag.len() > MAX_FRAME_LEN {
            return Ok(Err(DropReason::FrameTooLong));
        }
        buffer.insert_tag(tag);
        Ok(Ok((packet::behind_tag(meta), len + tag.len())))
    }
}

/// Reads again after a signal. A device that gives nothing is at its end.
fn uninterrupted(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => return Err(Errno::EBADFD.into()),
            read => return read,
        }
    }
}

/// What was read into the buffer: so many bytes of header and frame.
fn describe_read(vnet: bool, read: usize, buffer: &mut Buffer) -> Described {
    let header = buffer.header();
    let header = if vnet { &header[..read.min(VNET_HEADER_LEN)] } else { &[] };
    let len = read - header.len();
    if len > MAX_FRAME_LEN {
        return Err(DropReason::FrameTooLong);
    }
    Ok((describe(vnet, header, buffer.frame(len))?, len))
}

/// Whether this is /dev/net/tun, and no macvtap's node.
fn is_tun_node(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|node| (major(node.st_rdev), minor(node.st_rdev)) == TUN_NUMBER)
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
        Some(Errno::EIO | Errno::EBADFD | Errno::ENODEV | Errno::ENXIO | Errno::ENETDOWN) => DropReason::PortDown,
        // A packet socket checks it; nothing else does.
        Some(Errno::EMSGSIZE) => DropReason::AboveMtu,
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
