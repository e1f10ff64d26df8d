//! Packets that wait until their next hop's MAC address is known.

use std::collections::VecDeque;
use std::net::IpAddr;

use tapswitch_wire::{DropReason, Mac, Meta};

/// Packets waiting for one next hop that stations of the LAN sent.
pub(crate) const PER_HOP: usize = 3;
/// Packets waiting for one next hop that are not of the LAN: all that leaves by a router is for one hop, and a datagram of
/// 64 KiB is 45 fragments.
pub(crate) const PER_HOP_OTHERS: usize = 128;
/// Packets waiting that one station of the LAN sent.
pub(crate) const PER_STATION: usize = 16;
/// Packets waiting in all.
pub(crate) const PACKETS: usize = 256;
/// Bytes waiting in all: sixteen of the longest super-frames.
pub(crate) const BYTES: usize = 1 << 20;

/// A packet that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) hop: IpAddr,
    /// The station of the LAN that sent it; `None` if it came from the uplink.
    pub(crate) sender: Option<Mac>,
    pub(crate) meta: Meta,
    /// The whole frame. The MAC addresses are still those it came with.
    pub(crate) frame: Vec<u8>,
}

/// All packets that wait, in the order they came. It is short enough to be walked from end to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    packets: VecDeque<Waiting>,
}

impl Queue {
    /// Whether a packet of `len` bytes from `sender` may wait for `hop`.
    ///
    /// A station of the LAN is refused once half of the queue is full: the rest is kept for what the uplink brings.
    ///
    /// # Errors
    /// [`DropReason::NeighbourQueueFull`].
    pub(crate) fn admit(&self, hop: IpAddr, sender: Option<Mac>, len: usize) -> Result<(), DropReason> {
        let gives_way = self.gives_way(hop, sender).and_then(|index| self.packets.get(index));
        let freed = |w: &&Waiting| gives_way.is_some_and(|other| std::ptr::eq(*w, other));
        let (mut packets, mut bytes, mut from_sender) = (0, 0, 0);
        for packet in self.packets.iter().filter(|w| !freed(w)) {
            packets += 1;
            bytes += packet.frame.len();
            from_sender += usize::from(sender.is_some() && packet.sender == sender);
        }
        let share = if sender.is_some() { 2 } else { 1 };
        let fits = packets < PACKETS / share && bytes + len <= BYTES / share && from_sender < PER_STATION;
        if fits { Ok(()) } else { Err(DropReason::NeighbourQueueFull) }
    }

    /// Adds a packet that was admitted. Returns the one that gave way to it.
    pub(crate) fn push(&mut self, packet: Waiting) -> Option<Waiting> {
        let gave_way = self.gives_way(packet.hop, packet.sender).and_then(|index| self.packets.remove(index));
        self.packets.push_back(packet);
        gave_way
    }

    /// Index of the packet that a further one for `hop` replaces: one of the same kind.
    fn gives_way(&self, hop: IpAddr, sender: Option<Mac>) -> Option<usize> {
        let most = if sender.is_some() { PER_HOP } else { PER_HOP_OTHERS };
        let is_alike = |w: &Waiting| w.hop == hop && w.sender.is_some() == sender.is_some();
        let mut waiting = self.packets.iter().enumerate().filter(|(_, w)| is_alike(w));
        let (oldest, _) = waiting.next()?;
        (waiting.count() + 1 >= most).then_some(oldest)
    }

    /// Takes out all that wait for `hop`, oldest first.
    pub(crate) fn take(&mut self, hop: IpAddr) -> VecDeque<Waiting> {
        let (taken, kept) = std::mem::take(&mut self.packets).into_iter().partition(|w| w.hop == hop);
        self.packets = kept;
        taken
    }
}
