//! The translator: the way of a packet through it.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use parking_lot::Mutex;
use tapswitch_wire::{DropReason, Endpoint, Frame, Instant, L4, Mac, Quoted, Rewrite, Unquotable};

use crate::control::{Control, Place};
use crate::hops::{Hop, Hops};
use crate::index::Index;
use crate::session::{Session, SessionId, SessionView, Slots};
use crate::tcp::{Change, Lifetime, Segment};
use crate::tuple::Hasher;
use crate::{Config, Direction, Forward, ForwardError, Protocol, Realm, Tuple, Usage};

/// A path MTU below this is no path's, but an attempt to slow a connection down (RFC 5927 7; Linux draws the same line).
const MIN_PATH_MTU: u16 = 552;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A packet of an established session, rewritten: only the link is left to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passed {
    /// What it was.
    pub before: Tuple,
    /// Where it goes out.
    pub egress: Realm,
    /// The next hop's MAC address.
    pub mac: Mac,
}

/// What is to become of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// Its session.
    pub session: SessionId,
    /// Which way it goes in it.
    pub direction: Direction,
    /// Where it goes out.
    pub egress: Realm,
    /// What it becomes. Not applied yet.
    pub rewrite: Rewrite,
    /// Whether the session was made for it.
    pub is_new: bool,
}

/// Why a packet has no way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is dropped in silence.
    Silent(DropReason),
    /// It is dropped, and its sender is to be told that it was forbidden: ICMP 3/13 (RFC 5508 REQ-8).
    Told(DropReason),
    /// It is for our outside address itself, and no session's.
    Own,
}

/// An ICMP error that belongs to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Related {
    /// Where it goes out.
    pub egress: Realm,
    /// The session's number.
    pub session: SessionId,
    /// Way of the session in which the error itself goes.
    pub direction: Direction,
    src: Endpoint,
    dst: Endpoint,
    outer_src: Ipv4Addr,
}

impl Related {
    /// Whom the error is for.
    pub fn addressee(&self) -> Ipv4Addr {
        self.src.ip
    }

    /// Makes the error what its addressee can understand.
    pub fn apply(&self, frame: &mut Frame<'_>) {
        frame.translate_quoted(self.src, self.dst, self.outer_src);
    }
}

/// Sessions, mappings and limits of one network. Every poll thread may call it. See the crate's theory of operation.
pub struct Conntrack {
    pub(crate) config: Config,
    pub(crate) hasher: Hasher,
    pub(crate) index: Index,
    pub(crate) slots: Slots,
    pub(crate) hops: Hops,
    /// What the MSS of a SYN is clamped to, and the header's 40 bytes more.
    pub(crate) mtu: AtomicU16,
    pub(crate) control: Mutex<Control>,
}

impl std::fmt::Debug for Conntrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conntrack").field("config", &self.config).field("sessions", &self.len()).finish_non_exhaustive()
    }
}

impl Conntrack {
    /// An empty table. `secret` keys what must not be guessed: hashes and outside ports.
    pub fn new(config: Config, secret: u64) -> Conntrack {
        let hasher = Hasher::new(secret);
        Conntrack {
            hasher,
            index: Index::new(),
            slots: Slots::new(config.limits.sessions),
            hops: Hops::new(),
            mtu: AtomicU16::new(config.mtu),
            control: Mutex::new(Control::new(&config, hasher, secret)),
            config,
        }
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The fast way: rewrites a packet of an established session whose next hop is known, takes one from its TTL, and
    /// counts it.
    ///
    /// `None`: the packet must take the slow way, as it has come. That is any packet without a session, and any that
    /// needs more than a rewrite: a fragment, options, a TTL at its end, one above `mtu`, a wrong header checksum.
    #[inline]
    pub fn pass(&self, realm: Realm, frame: &mut Frame<'_>, mtu: u16, now: Instant) -> Option<Passed> {
        let parsed = frame.parsed();
        let (l3, l4) = (usize::from(parsed.l3_start), usize::from(parsed.l4_start));
        let tuple = Tuple::read(frame)?;
        let fits = match frame.meta().gso {
            Some(_) => frame.meta().packet_len(l3, frame.bytes()),
            None => frame.packet().len(),
        } <= usize::from(mtu);
        // What may be fragmented gets another identification outside, which the slow way gives.
        let keeps_id = realm == Realm::Outside || frame.packet().get(6).is_some_and(|flags| flags & 0x40 != 0);
        let is_plain = parsed.fragment.is_none() && l4 - l3 == 20 && frame.ttl() > 1 && keeps_id;
        if !is_plain || !fits || !frame.ipv4_checksum_ok() {
            return None;
        }
        let segment = Segment::read(frame);
        let len = frame.packet().len();
        let (passed, rewrite, rearm) = self.index.find(self.hasher.tuple(realm, &tuple), |place| {
            let place = Place::from_bits(place);
            let mut slot = self.slots.lock(place.number)?;
            let session = slot.as_mut()?;
            if session.ingress(place.direction) != realm || session.tuple(place.direction) != tuple {
                return None;
            }
            let mac = self.hops.get(session.hops[place.direction as usize], now)?;
            if !session.is_live(now) {
                return None;
            }
            let rearm = self.count(session, place.direction, segment.as_ref(), len, now);
            let passed = Passed { before: tuple, egress: session.egress(place.direction), mac };
            Some((passed, session.rewrites[place.direction as usize], rearm.then_some((place.number, session.expires))))
        })?;
        if let Some((number, expires)) = rearm {
            self.control.lock().wheel.hang(number, u64::from(expires) + 1);
        }
        if segment.is_some_and(|segment| segment.flags & SYN != 0) {
            self.clamp(frame);
        }
        frame.rewrite(&rewrite);
        frame.decrement_ttl();
        Some(passed)
    }

    /// Lets a session know of a packet. Says whether it may end earlier than it hangs on the wheel.
    #[inline]
    pub(crate) fn count(
        &self,
        session: &mut Session,
        direction: Direction,
        segment: Option<&Segment>,
        len: usize,
        now: Instant,
    ) -> bool {
        let at = direction as usize;
        session.packets[at] = session.packets[at].wrapping_add(1);
        session.bytes[at].add(len);
        let mut rearm = false;
        if let (Some(segment), Some(tracker)) = (segment, &mut session.tracker) {
            // What lives longer than it hangs on the wheel is hung up again when its time there comes.
            rearm = !matches!(tracker.step(direction, segment), Change::None | Change::Lifetime(Lifetime::Established));
            // A reset prolongs nothing (RFC 7857 7.1), but what it shortens begins now.
            if segment.flags & RST != 0 && !rearm {
                return false;
            }
        }
        session.expires = now.as_secs() as u32 + self.lifetime(session);
        rearm
    }

    /// How long a session lives without packets, in seconds.
    pub(crate) fn lifetime(&self, session: &Session) -> u32 {
        let timers = &self.config.timers;
        let lifetime = match (session.protocol, &session.tracker) {
            (Protocol::Udp, _) => timers.udp,
            (Protocol::Icmp, _) => timers.icmp,
            (Protocol::Tcp, Some(tracker)) if tracker.lifetime() == Lifetime::Established => timers.tcp_established,
            (Protocol::Tcp, _) => timers.tcp_transitory,
        };
        u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    /// The slow way: finds a packet's session, or makes one if the rules let it. `owner` pays for a session that begins
    /// inside.
    ///
    /// The packet is whole, or a first fragment; its IP header was checked. It is not changed, but counted, and a
    /// SYN's MSS is to be clamped by [`Conntrack::clamp`].
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, realm: Realm, frame: &Frame<'_>, owner: u32, now: Instant) -> Result<Way, Refusal> {
        let Some(tuple) = Tuple::read(frame) else { return Err(Refusal::Silent(unreadable(frame))) };
        if tuple.protocol != Protocol::Icmp && (tuple.src.port == 0 || tuple.dst.port == 0) {
            return Err(Refusal::Silent(DropReason::TransportMalformed));
        }
        let segment = Segment::read(frame);
        let len = frame.packet().len();
        // Everything below is one step for all threads, so that two cannot make the same session.
        let mut control = self.control.lock();
        if let Some(place) = self.find(realm, &tuple) {
            let mut slot = self.slots.lock(place.number).ok_or(Refusal::Silent(DropReason::NoSuchSession))?;
            if let Some(session) = slot.as_mut().filter(|session| session.is_live(now)) {
                let rearm = self.count(session, place.direction, segment.as_ref(), len, now);
                let expires = u64::from(session.expires) + 1;
                let way = way(place, session, false);
                drop(slot);
                if rearm {
                    control.wheel.hang(place.number, expires);
                }
                return Ok(way);
            }
            drop(slot);
            self.end(&mut control, place.number, now);
        }
        if !may_begin(realm, frame, segment.as_ref()) {
            return Err(Refusal::Silent(DropReason::NoSuchSession));
        }
        let place = self.begin(&mut control, realm, tuple, segment.as_ref(), owner, now)?;
        let mut slot = self.slots.lock(place.number).ok_or(Refusal::Silent(DropReason::SessionTableFull))?;
        let session = slot.as_mut().ok_or(Refusal::Silent(DropReason::SessionTableFull))?;
        session.packets[0] = 1;
        session.bytes[0].add(len);
        Ok(way(place, session, true))
    }

    /// Looks a tuple up.
    pub(crate) fn find(&self, realm: Realm, tuple: &Tuple) -> Option<Place> {
        self.index.find(self.hasher.tuple(realm, tuple), |place| {
            let place = Place::from_bits(place);
            let slot = self.slots.lock(place.number)?;
            let session = slot.as_ref()?;
            (session.ingress(place.direction) == realm && session.tuple(place.direction) == *tuple).then_some(place)
        })
    }

    /// Lowers the MSS of a SYN to what fits both sides.
    pub fn clamp(&self, frame: &mut Frame<'_>) {
        frame.clamp_mss(self.mtu().saturating_sub(40));
    }

    /// The MTU that both sides can take.
    pub fn mtu(&self) -> u16 {
        self.mtu.load(Ordering::Relaxed)
    }

    /// Both sides can take this MTU now.
    pub fn set_mtu(&self, mtu: u16) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// Notes the next hop of a way and its MAC address, so that the packets that follow are fast.
    pub fn note_hop(&self, way: &Way, hop: Ipv4Addr, mac: Mac, now: Instant) {
        let number = self.hops.number(way.egress, hop);
        self.hops.set(number, mac, now);
        if let Some(mut slot) = self.slots.lock(way.session.number)
            && let Some(session) = slot.as_mut().filter(|session| session.generation == way.session.generation)
        {
            session.hops[way.direction as usize] = number;
        }
    }

    /// A neighbour may have moved: the next packet to it asks the neighbour table.
    pub fn forget_hop(&self, realm: Realm, ip: Ipv4Addr) {
        self.hops.forget(realm, ip);
    }

    /// Finds the session that an ICMP error is about. The error neither prolongs nor ends it (RFC 5508 REQ-6).
    ///
    /// # Errors
    /// Why it is dropped: it is no error that is translated, quotes a packet of no session, or what was never sent.
    pub fn related(&self, realm: Realm, frame: &Frame<'_>, now: Instant) -> Result<Related, DropReason> {
        let quoted = frame.quoted().map_err(|why| match why {
            Unquotable::NotAnError => DropReason::IcmpIgnored,
            Unquotable::BadChecksum => DropReason::TransportBadChecksum,
            Unquotable::Unusable => DropReason::NoSuchSession,
        })?;
        let protocol = Protocol::from_number(quoted.protocol).ok_or(DropReason::NoSuchSession)?;
        // What is quoted went out into this realm, so its answer comes in from it.
        let answer = Tuple { protocol, src: quoted.dst, dst: quoted.src };
        let place = self.find(realm, &answer).ok_or(DropReason::NoSuchSession)?;
        let session = self.slots.get(place.number).filter(|session| session.is_live(now));
        let session = session.ok_or(DropReason::NoSuchSession)?;
        check_forged(&quoted, &session, place.direction)?;
        let before = session.tuple(place.direction.other());
        let answered = session.tuple(place.direction);
        let outer = frame.src_ip().and_then(|ip| match ip {
            std::net::IpAddr::V4(ip) => Some(ip),
            std::net::IpAddr::V6(_) => None,
        });
        let is_ours = |ip: Ipv4Addr| self.config.is_inside(ip) || self.outside() == Some(ip);
        if realm == Realm::Outside && outer.is_some_and(is_ours) {
            return Err(DropReason::InsideFromOutside);
        }
        // Whoever reports from behind the translated end reports in that end's outside name.
        let is_hidden = before.dst.ip != answered.src.ip;
        let outer_src = if is_hidden { before.dst.ip } else { outer.ok_or(DropReason::NoSuchSession)? };
        Ok(Related {
            egress: session.egress(place.direction),
            session: SessionId { number: place.number, generation: session.generation },
            direction: place.direction,
            src: before.src,
            dst: before.dst,
            outer_src,
        })
    }

    /// Makes a packet that was rewritten, but could not be sent into this realm, what it was before: for an error to its
    /// sender. Says where it came in; `None` if its session has ended.
    pub fn restore(&self, realm: Realm, frame: &mut Frame<'_>) -> Option<Realm> {
        let sent = Tuple::read(frame)?;
        let place = self.find(realm, &sent.reversed())?;
        let session = self.slots.get(place.number)?;
        let before = session.tuple(place.direction.other());
        frame.rewrite(&Rewrite::new((sent.src, sent.dst), (before.src, before.dst)));
        Some(session.ingress(place.direction.other()))
    }

    /// Adds a port forward. Sessions that used its ports otherwise end.
    ///
    /// # Errors
    /// [`ForwardError`], and nothing was changed.
    pub fn publish(&self, forward: Forward, now: Instant) -> Result<(), ForwardError> {
        self.control.lock().publish(self, forward, now)
    }

    /// Takes a port forward back, and ends its sessions. Says whether there was one.
    pub fn unpublish(&self, forward: &Forward, now: Instant) -> bool {
        self.control.lock().unpublish(self, forward, now)
    }

    /// A free outside port for a forward, which does not rest, of so many in a row; from 49152 on if possible.
    pub fn free_ports(&self, protocol: Protocol, count: u16, now: Instant) -> Option<u16> {
        self.control.lock().free_ports(protocol, count, now)
    }

    /// The port forwards.
    pub fn forwards(&self) -> Vec<Forward> {
        self.control.lock().forwards.clone()
    }

    /// Ends all that an owner has, and takes back its forwards.
    pub fn remove_owner(&self, owner: u32, now: Instant) {
        let mut control = self.control.lock();
        let forwards: Vec<Forward> = control.forwards.iter().filter(|f| f.owner == owner).copied().collect();
        forwards.iter().for_each(|forward| {
            control.unpublish(self, forward, now);
        });
        self.end_where(&mut control, now, |session| session.owner & !INBOUND == owner);
        control.pool.disown(owner);
    }

    /// Sets or takes away our outside address. If it changes, all sessions end.
    pub fn set_outside(&self, ip: Option<Ipv4Addr>, now: Instant) {
        let mut control = self.control.lock();
        if control.outside == ip {
            return;
        }
        control.outside = ip;
        self.hops.clear();
        self.end_where(&mut control, now, |_| true);
    }

    /// Our outside address.
    pub fn outside(&self) -> Option<Ipv4Addr> {
        self.control.lock().outside
    }

    /// Ends the sessions that `matches` says. Returns how many.
    pub fn flush(&self, now: Instant, matches: impl Fn(&SessionView) -> bool) -> usize {
        let mut control = self.control.lock();
        let numbers: Vec<u32> = self.live(&control, now).filter(|view| matches(view)).map(|v| v.id.number).collect();
        numbers.iter().for_each(|number| self.end(&mut control, *number, now));
        numbers.len()
    }

    /// The sessions, by number.
    pub fn sessions(&self, now: Instant) -> Vec<SessionView> {
        self.live(&self.control.lock(), now).collect()
    }

    /// Looks at sessions whose time may have come. Says whether all of them were; each call looks at a few thousand.
    pub fn poll(&self, now: Instant) -> bool {
        const BUDGET: usize = 2048;
        let second = now.as_secs();
        let mut control = self.control.lock();
        control.quotas.settle(now);
        for _ in 0..BUDGET {
            let Some(number) = control.wheel.take_due(second) else { return true };
            match self.slots.get(number) {
                Some(session) if session.is_live(now) => control.wheel.hang(number, u64::from(session.expires) + 1),
                _ => self.end(&mut control, number, now),
            }
        }
        false
    }

    /// When [`Conntrack::poll`] has something to look at.
    pub fn deadline(&self) -> Option<Instant> {
        self.control.lock().wheel.next().map(Instant::from_secs)
    }

    /// Number of sessions.
    pub fn len(&self) -> usize {
        self.control.lock().sessions()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of mappings.
    pub fn mappings(&self) -> usize {
        self.control.lock().mappings.len()
    }

    /// What an owner uses. What the outside began towards it is counted apart, and not here.
    pub fn usage(&self, owner: u32) -> Usage {
        self.control.lock().quotas.usage(owner)
    }

    /// Entries of the tables that help to decide: peers of mappings, owners. Nothing is left when there are no sessions.
    pub fn helpers(&self) -> (usize, usize) {
        let control = self.control.lock();
        (control.mappings.peers(), control.quotas.owners())
    }
}

/// Sessions that the outside began are paid for from an allowance of their own, so that the outside cannot use up what
/// the container needs to begin its own.
pub(crate) const INBOUND: u32 = 1 << 31;

fn way(place: Place, session: &Session, is_new: bool) -> Way {
    Way {
        session: SessionId { number: place.number, generation: session.generation },
        direction: place.direction,
        egress: session.egress(place.direction),
        rewrite: session.rewrites[place.direction as usize],
        is_new,
    }
}

/// Whether a packet may begin a session. From outside, TCP begins with a SYN; from inside, a connection may be picked up
/// in its middle, as after a restart of ours. An echo begins with a request.
fn may_begin(realm: Realm, frame: &Frame<'_>, segment: Option<&Segment>) -> bool {
    const ECHO_REQUEST: u8 = 8;
    let Some(Segment { flags, .. }) = segment else {
        return frame.parsed().l4 != L4::Icmp || frame.segment().first() == Some(&ECHO_REQUEST);
    };
    let opens = flags & (SYN | ACK | RST | FIN) == SYN;
    opens || (realm == Realm::Inside && flags & (SYN | RST | ACK) == ACK)
}

fn unreadable(frame: &Frame<'_>) -> DropReason {
    match frame.parsed().l4 {
        L4::Icmp => DropReason::IcmpIgnored,
        L4::Malformed | L4::Tcp | L4::Udp => DropReason::TransportMalformed,
        L4::None => DropReason::FragmentNotSupported,
        L4::Other | L4::Icmpv6 => DropReason::UnknownProtocol,
    }
}

/// Refuses an ICMP error that quotes what this end cannot have sent, or an absurd path MTU (RFC 5927).
fn check_forged(quoted: &Quoted, session: &Session, direction: Direction) -> Result<(), DropReason> {
    if (1..MIN_PATH_MTU).contains(&quoted.mtu) {
        return Err(DropReason::IcmpForged);
    }
    match &session.tracker {
        Some(tracker) if !tracker.in_flight(direction.other(), quoted.seq) => Err(DropReason::IcmpForged),
        _ => Ok(()),
    }
}

/// A hop that no session has noted yet.
pub(crate) const NO_HOPS: [Hop; 2] = [Hop::NONE; 2];
