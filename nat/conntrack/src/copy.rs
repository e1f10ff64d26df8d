//! A translator of its own for one packet: it says what would become of that packet, and nothing happens here.
//!
//! A network may have a million sessions, and a packet has to do with a few of them. Copied are settings, forwards, ports
//! in use, what owners use and next hops, all of which are bounded; of the mappings those that the packet's ends may use;
//! of the sessions the one with its tuple, the one that an ICMP error is about, and the one that a new session would
//! collide with. For any other packet the copy knows too little.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU16, Ordering};

use parking_lot::Mutex;
use tapswitch_wire::{FrameOf, Instant};

use crate::control::{Control, Place};
use crate::hops::Hops;
use crate::index::Index;
use crate::mapping::Inner;
use crate::session::{NO_MAPPING, Session, Slots};
use crate::wheel::Wheel;
use crate::{Conntrack, Direction, Protocol, Realm, Tuple};

/// Places for new sessions in a copy: more than one packet can begin.
const ROOM: u32 = 16;

impl Conntrack {
    /// A copy that treats this packet as the original would, down to the outside port that is drawn for it. `owner` is who
    /// would pay.
    ///
    /// The control lock is held meanwhile, for as long as copying the ports takes.
    pub fn copy_for<B: Deref<Target = [u8]>>(
        &self,
        realm: Realm,
        frame: &FrameOf<B>,
        owner: u32,
        now: Instant,
    ) -> Conntrack {
        let control = self.control.lock();
        let mut places: Vec<Place> = Vec::new();
        let mut mappings: Vec<u32> = Vec::new();
        let mut remotes: Vec<Ipv4Addr> = Vec::new();
        if let Some(tuple) = Tuple::read(frame) {
            places.extend(self.find(realm, &tuple));
            let inner = Inner::new(tuple.protocol, tuple.src, tuple.dst, self.config.mapping);
            mappings.extend(control.mappings.of_inner(&inner).map(|(number, _)| number));
            mappings.extend(control.mappings.of_port(tuple.protocol, tuple.dst.port).map(|(number, _)| number));
            remotes.extend([tuple.src.ip, tuple.dst.ip]);
            let mut trial = control.copy(self, &mappings, &remotes, 0);
            let reply = trial.reply_of_new(&self.config, realm, tuple, owner, now);
            places.extend(reply.and_then(|(realm, reply)| self.find(realm, &reply)));
        }
        if let Ok(quoted) = frame.quoted()
            && let Some(protocol) = Protocol::from_number(quoted.protocol)
        {
            places.extend(self.find(realm, &Tuple { protocol, src: quoted.dst, dst: quoted.src }));
        }
        let mut numbers: Vec<u32> = places.iter().map(|place| place.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let sessions: Vec<Session> = numbers.iter().filter_map(|number| self.slots.get(*number)).collect();
        for session in &sessions {
            mappings.extend([session.mapping, session.target]);
            let original = session.tuple(Direction::Original);
            remotes.extend([original.src.ip, original.dst.ip]);
        }
        self.with(&control, sessions, mappings, &remotes)
    }

    /// A copy with these sessions and mappings only.
    fn with(
        &self,
        control: &Control,
        sessions: Vec<Session>,
        mut mappings: Vec<u32>,
        remotes: &[Ipv4Addr],
    ) -> Conntrack {
        mappings.sort_unstable();
        mappings.dedup();
        mappings.retain(|number| control.mappings.get(*number).is_some());
        let mut own = control.copy(self, &mappings, remotes, sessions.len() as u32);
        let slots = Slots::new(own.capacity());
        let index = Index::new();
        // In the copy a mapping's number is its place in the list.
        let renamed =
            |number: u32| mappings.iter().position(|other| *other == number).map_or(NO_MAPPING, |at| at as u32);
        for (number, session) in (0..).zip(sessions) {
            let session = Session { mapping: renamed(session.mapping), target: renamed(session.target), ..session };
            slots.put(number, session);
            for direction in [Direction::Original, Direction::Reply] {
                index.insert(self.hash(&session, direction), Place { number, direction }.to_bits(), |other| {
                    let place = Place::from_bits(other);
                    slots.get(place.number).map_or(0, |session| self.hash(&session, place.direction))
                });
            }
            own.wheel.hang(number, u64::from(session.expires) + 1);
        }
        Conntrack {
            config: self.config.clone(),
            hasher: self.hasher,
            index,
            slots,
            hops: self.hops.copy(),
            mtu: AtomicU16::new(self.mtu.load(Ordering::Relaxed)),
            control: Mutex::new(own),
        }
    }
}

impl Control {
    /// A copy with these mappings, for a table of `sessions` sessions in the first places, that is full if this one is.
    fn copy(&self, nat: &Conntrack, mappings: &[u32], remotes: &[Ipv4Addr], sessions: u32) -> Control {
        let mut copy = Control::new(&nat.config, nat.hasher, 0);
        copy.outside = self.outside;
        copy.forwards.clone_from(&self.forwards);
        copy.mappings = self.mappings.only(mappings, remotes);
        copy.quotas.clone_from(&self.quotas);
        copy.pool.clone_from(&self.pool);
        copy.wheel = Wheel::new();
        copy.begin_at(sessions, self.room().min(ROOM), self);
        copy
    }
}

impl Hops {
    fn copy(&self) -> Hops {
        Hops {
            known: self.known.iter().map(|known| known.load(Ordering::Relaxed).into()).collect(),
            numbers: Mutex::new(self.numbers.lock().clone()),
        }
    }
}
