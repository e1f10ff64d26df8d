//! One session, and the places where sessions stand.

use std::sync::OnceLock;

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tapswitch_wire::{Instant, Rewrite};

use crate::hops::Hop;
use crate::tcp::Tracker;
use crate::{Direction, Protocol, Realm, Tuple};

/// Why a session exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A container began it.
    Outbound,
    /// The outside used a container's mapping, as the filter lets it.
    Inbound,
    /// The outside used a port forward.
    Forward,
    /// A container reached another, or itself, by an outside endpoint.
    Hairpin,
    /// Nothing is translated; the session only lets the answers in.
    Routed,
}

impl Reason {
    /// The name that users see.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Outbound => "outbound",
            Reason::Inbound => "inbound",
            Reason::Forward => "forward",
            Reason::Hairpin => "hairpin",
            Reason::Routed => "routed",
        }
    }
}

/// A session's number, good for as long as that session lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SessionId {
    pub(crate) number: u32,
    pub(crate) generation: u32,
}

impl SessionId {
    /// One number for both parts.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.number)
    }
}

/// No mapping.
pub(crate) const NO_MAPPING: u32 = u32::MAX;

/// One session. Its two tuples stand in its rewrites: what the one direction becomes, the other one answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub(crate) rewrites: [Rewrite; 2],
    pub(crate) tracker: Option<Tracker>,
    pub(crate) bytes: [Bytes; 2],
    pub(crate) packets: [u32; 2],
    /// The second at whose end it ends if nothing comes.
    pub(crate) expires: u32,
    pub(crate) owner: u32,
    /// The mapping of the inside end that began it, or that the outside reached.
    pub(crate) mapping: u32,
    /// The mapping by which a hairpin came to its other end.
    pub(crate) target: u32,
    pub(crate) generation: u32,
    pub(crate) hops: [Hop; 2],
    pub(crate) protocol: Protocol,
    /// Where each direction's packets come in.
    pub(crate) realms: [Realm; 2],
    pub(crate) reason: Reason,
}

/// A number of bytes in two halves, so that a session need not be aligned to eight: with its lock it then takes as much
/// as two cache lines.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Bytes([u32; 2]);

impl Bytes {
    #[inline]
    pub(crate) fn get(self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }

    #[inline]
    pub(crate) fn add(&mut self, len: usize) {
        let sum = self.get() + len as u64;
        self.0 = [sum as u32, (sum >> 32) as u32];
    }
}

// What a million of them cost: docs/performance.md.
const _: () = assert!(size_of::<Mutex<Option<Session>>>() <= 128);

impl Session {
    /// The packets that go this way, as they come in.
    #[inline]
    pub(crate) fn tuple(&self, direction: Direction) -> Tuple {
        let after = &self.rewrites[direction.other() as usize];
        Tuple { protocol: self.protocol, src: after.dst(), dst: after.src() }
    }

    /// Where this direction's packets come in.
    #[inline]
    pub(crate) fn ingress(&self, direction: Direction) -> Realm {
        self.realms[direction as usize]
    }

    /// Where this direction's packets go out: where the other one's come in.
    #[inline]
    pub(crate) fn egress(&self, direction: Direction) -> Realm {
        self.realms[direction.other() as usize]
    }

    #[inline]
    pub(crate) fn is_live(&self, now: Instant) -> bool {
        now.as_secs() <= u64::from(self.expires)
    }
}

/// Sessions in one allocation.
const CHUNK: usize = 1024;

type Slot = Mutex<Option<Session>>;

/// All places. They are made by the chunk, and stay where they are, so that any thread may look while another adds.
pub(crate) struct Slots {
    chunks: Box<[OnceLock<Box<[Slot]>>]>,
}

impl Slots {
    pub(crate) fn new(capacity: u32) -> Slots {
        Slots { chunks: (0..(capacity as usize).div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
    }

    /// A place. `None` if there never was a session in it, or in its neighbours.
    #[inline]
    pub(crate) fn lock(&self, number: u32) -> Option<MutexGuard<'_, Option<Session>>> {
        let number = number as usize;
        self.chunks.get(number / CHUNK)?.get()?.get(number % CHUNK).map(Mutex::lock)
    }

    /// A copy of a session.
    pub(crate) fn get(&self, number: u32) -> Option<Session> {
        *self.lock(number)?
    }

    /// Puts a session into a place below the capacity.
    pub(crate) fn put(&self, number: u32, session: Session) {
        let number = number as usize;
        let Some(chunk) = self.chunks.get(number / CHUNK) else { return };
        let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| Mutex::new(None)).collect());
        if let Some(slot) = chunk.get(number % CHUNK) {
            *slot.lock() = Some(session);
        }
    }

    pub(crate) fn take(&self, number: u32) -> Option<Session> {
        self.lock(number)?.take()
    }
}

/// A session, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionView {
    /// Its number.
    pub id: SessionId,
    /// Who pays for it.
    pub owner: u32,
    /// The packets of who began it, as they come in.
    pub original: Tuple,
    /// The answers, as they come in.
    pub reply: Tuple,
    /// Where those of who began it come in.
    pub from: Realm,
    /// State, for TCP.
    pub tcp: Option<crate::tcp::State>,
    /// Whether an answer was seen.
    pub answered: bool,
    /// Why it exists.
    pub reason: Reason,
    /// Packets in the original and in the reply direction; a super-frame counts as one. They wrap at 2^32.
    pub packets: [u32; 2],
    /// Bytes of IP packets in either direction.
    pub bytes: [u64; 2],
    /// Seconds since anything passed that prolongs it.
    pub idle: u32,
    /// Seconds that it lives if nothing comes.
    pub expires: u32,
}
