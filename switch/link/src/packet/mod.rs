//! Packet sockets: an interface of the host, read and written beside the host's own stack.
//!
//! # Theory of operation
//!
//! *Goal.* A port on the LAN that an interface is on, without changing that interface: one descriptor, nothing to clean
//! up (closing it undoes the filter and the membership, also after `kill -9`), and super-frames that stay whole.
//!
//! *Receiving.* The socket is bound to the interface with `ETH_P_ALL`. A filter attached before that lets the kernel
//! queue only what is for us ([`filter`]); a membership makes the interface accept frames to our MAC address, or all.
//! With `PACKET_VNET_HDR` each frame comes behind a virtio-net header, as from a TAP: what the interface's receive
//! offload put together arrives whole. One `recvmsg` brings header, frame and two notes:
//!
//! - the direction: this machine's own transmissions are shown to packet sockets too. They are ignored by option
//!   (`PACKET_IGNORE_OUTGOING`, Linux 4.20), by the filter, and here, since each would be a loop (BR-13).
//! - the VLAN tag: the kernel takes it out of the frame and tells it beside (`PACKET_AUXDATA`). It is put back (BR-13):
//!   the two MAC addresses move forward by four bytes, over the virtio-net header that was read already, and what that
//!   header said of offsets moves back by four.
//!
//! *Sending.* A `writev` of header and frame. The interface's queueing discipline gets a super-frame whole, and the
//! kernel cuts it only if the interface cannot.
//!
//! *Ends.* An interface that is set down gives `ENETDOWN` once, to whoever reads or writes first, and the socket works on
//! when it is up again. One that is deleted tells nothing more: the socket is then bound to no interface, which
//! [`is_gone`] asks.

mod filter;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::utsname::uname;
use tapswitch_wire::{ChecksumState, Mac, Meta, ethertype};

use crate::socket::{bind_packet, get, packet_name, set};

/// Bytes of frames, as the kernel counts them, that may wait to be read: 100 super-frames. As for what may wait to be sent.
const SOCKET_BUFFER: libc::c_int = 16 << 20;
const ALL_PROTOCOLS: u16 = (libc::ETH_P_ALL as u16).to_be();

/// Which frames to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Take {
    /// Those to this MAC address and to groups.
    For(Mac),
    /// All.
    Everything,
}

/// Opens a packet socket on the interface of this index in the present network namespace.
///
/// # Errors
/// What was tried, and what the kernel says. EPERM: no CAP_NET_RAW.
pub(crate) fn open(index: u32, take: Take) -> Result<OwnedFd, (&'static str, io::Error)> {
    let tried = |what: &'static str| move |e: io::Error| (what, e);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // Without a protocol nothing arrives until it is bound.
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
        .map_err(|e| ("open a packet socket", io::Error::from(e)))?;
    let program = match take {
        Take::For(mac) => filter::only_for(mac),
        Take::Everything => filter::everything(),
    };
    attach(&socket, &program).map_err(tried("attach a filter to a packet socket"))?;
    prepare(&socket)?;
    enlarge_buffers(&socket);
    let index = libc::c_int::try_from(index).unwrap_or(-1);
    // SAFETY: plain data, for which zeros are valid.
    let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    name.sll_family = libc::AF_PACKET as u16;
    name.sll_protocol = ALL_PROTOCOLS;
    name.sll_ifindex = index;
    bind_packet(&socket, &name).map_err(tried("bind a packet socket to"))?;
    match take {
        // An interface that cannot filter by a second address becomes promiscuous by itself; one that refuses, by our wish.
        Take::For(mac) => join(&socket, index, libc::PACKET_MR_UNICAST, mac)
            .or_else(|_| join(&socket, index, libc::PACKET_MR_PROMISC, Mac::ZERO)),
        Take::Everything => join(&socket, index, libc::PACKET_MR_PROMISC, Mac::ZERO),
    }
    .map_err(tried("receive frames to another MAC address on"))?;
    Ok(socket)
}

/// Sets the options that [`receive`] relies on. It needs no right, so it is done also for a socket that was handed in.
pub(crate) fn prepare(socket: &OwnedFd) -> Result<(), (&'static str, io::Error)> {
    let on = |name: libc::c_int| set(socket, libc::SOL_PACKET, name, &1);
    on(libc::PACKET_VNET_HDR).map_err(|e| ("turn on the virtio-net header of a packet socket", e))?;
    on(libc::PACKET_AUXDATA).map_err(|e| ("turn on the notes of a packet socket", e))?;
    // Older kernels do not have it; the filter does the same.
    let _ = on(libc::PACKET_IGNORE_OUTGOING);
    Ok(())
}

/// Says why this is not a packet socket that carries whole frames of one interface, if it is not.
pub(crate) fn check(socket: &OwnedFd) -> Result<(), String> {
    let option = |name| get(socket, libc::SOL_SOCKET, name).map_err(|e| format!("it is no socket ({e})"));
    if option(libc::SO_DOMAIN)? != libc::AF_PACKET {
        return Err("it is a socket of another family than AF_PACKET".into());
    }
    if option(libc::SO_TYPE)? != libc::SOCK_RAW {
        return Err("the packet socket leaves Ethernet headers away (SOCK_DGRAM)".into());
    }
    let name = packet_name(socket).map_err(|e| format!("it does not tell its interface ({e})"))?;
    match name {
        _ if name.sll_ifindex <= 0 => {
            Err("the packet socket is bound to no interface, or its interface is gone".into())
        }
        _ if name.sll_protocol != ALL_PROTOCOLS => Err("the packet socket does not take all protocols".into()),
        _ if name.sll_hatype != libc::ARPHRD_ETHER => Err("its interface is no Ethernet".into()),
        _ => Ok(()),
    }
}

/// Whether the interface was deleted.
pub(crate) fn is_gone(socket: impl AsFd) -> bool {
    packet_name(socket).is_ok_and(|name| name.sll_ifindex <= 0)
}

/// Whether the kernel knows UDP segmentation in virtio-net headers: Linux 6.2.
pub(crate) fn has_uso() -> bool {
    let Ok(system) = uname() else { return false };
    let release = system.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

fn attach(socket: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn join(socket: &OwnedFd, index: libc::c_int, kind: libc::c_int, mac: Mac) -> io::Result<()> {
    let mut address = [0; 8];
    address[..6].copy_from_slice(&mac.0);
    let membership = libc::packet_mreq { mr_ifindex: index, mr_type: kind as u16, mr_alen: 6, mr_address: address };
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// As large as we may: with CAP_NET_ADMIN what we want, without as much as `net.core.rmem_max` and `wmem_max` allow. Their
/// defaults hold few super-frames: a fast download then loses some to the kernel, which the sender repeats.
fn enlarge_buffers(socket: &OwnedFd) {
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        let size = |name| set(socket, libc::SOL_SOCKET, name, &SOCKET_BUFFER);
        let _ = size(forced).or_else(|_| size(plain));
    }
}

/// What [`receive`] brought.
pub(crate) struct Received {
    /// Bytes of header and frame.
    pub(crate) len: usize,
    /// Whether the frame was longer than the room.
    pub(crate) is_cut: bool,
    /// The VLAN tag that the kernel took out of it.
    pub(crate) tag: Option<Tag>,
}

/// Four bytes of a frame: TPID and TCI.
pub(crate) type Tag = [u8; 4];

/// Room for one control message, aligned as those are: a header of 16 bytes, and the notes.
#[repr(C, align(8))]
struct Notes([u8; 64]);

/// Receives one frame that came in, with its virtio-net header in front.
///
/// # Errors
/// EAGAIN: there is none. EINVAL: it cannot be described in a virtio-net header, and is lost. What else the kernel says.
pub(crate) fn receive(socket: impl AsFd, room: &mut [u8]) -> io::Result<Received> {
    let socket = socket.as_fd().as_raw_fd();
    loop {
        let mut part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let mut notes = Notes([0; 64]);
        // SAFETY: plain data, for which zeros are valid.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut notes).cast();
        message.msg_controllen = size_of_val(&notes) as _;
        // SAFETY: the message points at `from`, `room` and `notes` with their lengths, and all outlive the call.
        let read = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_DONTWAIT) };
        let Ok(len) = usize::try_from(read) else {
            let error = io::Error::last_os_error();
            match error.raw_os_error().map(Errno::from_raw) {
                // The interface went down, which is said once. Frames that came before may wait still.
                Some(Errno::EINTR | Errno::ENETDOWN) => continue,
                _ => return Err(error),
            }
        };
        if from.sll_pkttype == libc::PACKET_OUTGOING {
            continue;
        }
        let is_cut = message.msg_flags & libc::MSG_TRUNC != 0;
        return Ok(Received { len, is_cut, tag: tag_in(&message) });
    }
}

/// The VLAN tag that the notes of a received message tell.
fn tag_in(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: the kernel has filled the control buffer and its length, and the buffer is alive in the caller.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() };
    while let Some(header) = control {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: such a control message holds one struct tpacket_auxdata, which is plain data.
            let notes = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
            return tag_of(&notes);
        }
        // SAFETY: as above; null behind the last one.
        control = unsafe { libc::CMSG_NXTHDR(message, header).as_ref() };
    }
    None
}

fn tag_of(notes: &libc::tpacket_auxdata) -> Option<Tag> {
    let has = |status: u32| notes.tp_status & status != 0;
    if !has(libc::TP_STATUS_VLAN_VALID) {
        return None;
    }
    // Kernels before 3.14 knew one kind of tag only.
    let tpid = if has(libc::TP_STATUS_VLAN_TPID_VALID) { notes.tp_vlan_tpid } else { ethertype::VLAN };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), notes.tp_vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}

/// What is known about a frame once a tag of four bytes was put in behind its MAC addresses.
pub(crate) fn behind_tag(mut meta: Meta) -> Meta {
    if let ChecksumState::Partial { start, .. } = &mut meta.checksum {
        *start = start.saturating_add(size_of::<Tag>() as u16);
    }
    meta
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(status: u32, tci: u16, tpid: u16) -> libc::tpacket_auxdata {
        libc::tpacket_auxdata {
            tp_status: status,
            tp_len: 0,
            tp_snaplen: 0,
            tp_mac: 0,
            tp_net: 0,
            tp_vlan_tci: tci,
            tp_vlan_tpid: tpid,
        }
    }

    #[test]
    fn br_13_tag_beside_the_frame_is_told_with_its_kind_priority_zero_and_vid_zero_included() {
        let (valid, kind) = (libc::TP_STATUS_VLAN_VALID, libc::TP_STATUS_VLAN_TPID_VALID);
        assert_eq!(tag_of(&notes(0, 0, 0)), None);
        assert_eq!(tag_of(&notes(valid | kind, 0x6064, 0x88a8)), Some([0x88, 0xa8, 0x60, 0x64]));
        assert_eq!(tag_of(&notes(valid | kind, 0, 0x8100)), Some([0x81, 0, 0, 0]));
        assert_eq!(tag_of(&notes(valid, 7, 0)), Some([0x81, 0, 0, 7]));
    }

    #[test]
    fn checksum_begins_four_bytes_later_behind_a_tag() {
        let (meta, _) = crate::testing::partial_frame(10);
        assert_eq!(meta.checksum, ChecksumState::Partial { start: 34, offset: 16 });
        assert_eq!(behind_tag(meta).checksum, ChecksumState::Partial { start: 38, offset: 16 });
        assert_eq!(behind_tag(Meta::PLAIN), Meta::PLAIN);
    }

    #[test]
    fn check_refuses_other_files_and_sockets() {
        let file = OwnedFd::from(tempfile::tempfile().unwrap());
        assert!(check(&file).unwrap_err().contains("no socket"));
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(check(&socket.into()).unwrap_err().contains("AF_PACKET"));
    }
}
