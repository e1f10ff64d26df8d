//! Ways out at the packet level: an interface of the host, opened by whoever has the right to, used by the daemon.
//!
//! # Theory of operation
//!
//! *Goal.* The daemon is an ordinary user and stays one. What demands a right, opening the device, is done by the client
//! ([`open()`]), which hands the descriptor over together with what there is to know of it ([`About`]); the daemon looks
//! at both and makes a [`Tap`] of them ([`from_fd`]). What was opened works without any right.
//!
//! *What an interface is opened as:*
//!
//! | the interface is | opened as | for | needs |
//! |---|---|---|---|
//! | a macvtap, made beforehand | its /dev/tapN | `nat`; `lan` in mode passthru | that this file may be opened: no capability |
//! | a TUN, made beforehand | that | `tun` | to be its owner (`user U`), or CAP_NET_ADMIN |
//! | a TAP, made beforehand | that | `tun`, `nat`, `lan` | the same |
//! | an Ethernet interface | a packet socket | `nat`, `lan` | CAP_NET_RAW |
//! | the same, on demand | a macvtap made on it | `nat` | root: CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_MKNOD |
//! | not there | a TUN made under that name | `tun` | CAP_NET_ADMIN |
//!
//! *What is left behind: nothing.* A packet socket, a TUN that was made and a macvtap that was made vanish with the last
//! copy of the descriptor, also after `kill -9`. Of a macvtap that is no matter of course, since an open descriptor does
//! not own the interface. But the descriptor holds the network namespace in which it was opened: so the macvtap is made
//! in a scratch namespace that nothing else holds (see [`crate::netns`], where a TAP goes the other way). What an
//! administrator made stays.
//!
//! *Frames.* With a TUN there is no Ethernet: its frames are made up, and come from [`TUN_PEER`]. Nothing answers ARP
//! there, so its address is the next hop's. What is not IP and is written to it is dropped (`UnknownEthertype`).
//!
//! *Limits.* The host's own stack is not reached through its interface, neither by a packet socket nor by a macvtap:
//! both stand beside it, and see only what comes over the wire. Wireless stations and many clouds pass on no frames from
//! a second MAC address, of whatever kind the uplink is; there the uplink `user` or a TUN is the way.

mod macvtap;
mod open;

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tapswitch_wire::Mac;

pub use crate::tap::Kind;
pub use crate::tun::PEER as TUN_PEER;
pub use open::open;

use crate::LinkError;
use crate::tap::Tap;

/// What the uplink is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A router of ours with a MAC address of its own: it gets what is for this address, and for groups.
    Nat,
    /// A switch of ours is joined to the LAN: it gets everything.
    Lan,
    /// Packets into the host's own stack.
    Tun,
}

/// What there is to know of an opened uplink beside its descriptor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct About {
    /// As what it was opened.
    pub kind: Kind,
    /// The MAC address that our router must use on it; with [`Mode::Lan`] it has no meaning.
    pub mac: Mac,
    /// The interface's MTU: the largest IP packet, in bytes.
    pub mtu: u16,
    /// The interface's name, as it was asked for.
    pub name: String,
}

/// An opened uplink, to be handed over or used.
#[derive(Debug)]
pub struct Opened {
    /// The device. It keeps alive what was made for it.
    pub fd: OwnedFd,
    /// What it is.
    pub about: About,
}

impl Opened {
    /// To be used here.
    ///
    /// # Errors
    /// As [`from_fd`].
    pub fn into_tap(self) -> Result<Tap, LinkError> {
        from_fd(self.fd, &self.about)
    }
}

/// Takes over what a client opened and handed in.
///
/// # Errors
/// [`LinkError::NotATap`] if it is not what `about` says.
pub fn from_fd(fd: OwnedFd, about: &About) -> Result<Tap, LinkError> {
    let tap = match about.kind {
        Kind::Tap | Kind::Macvtap => Tap::from_fd(fd)?,
        Kind::Tun => Tap::from_tun(fd, about.mac)?,
        Kind::Packet => Tap::from_packet_socket(fd, &about.name)?,
    };
    match tap.kind() {
        kind if kind == about.kind => Ok(tap),
        kind => Err(LinkError::NotATap(format!("it is a {kind} where a {} was announced", about.kind))),
    }
}
