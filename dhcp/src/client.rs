//! The other end: a client, for the address that our router takes on somebody else's LAN (RFC 2131 4.4).
//!
//! # Theory of operation
//!
//! **Goal.** Get an address with what belongs to it, keep it as long as the server lets us, say at once when it is
//! lost, and never load a LAN that does not answer. [`Client`] takes frames and the time, and gives frames, events and
//! the next deadline. It neither sets an address nor answers ARP: its owner does, on [`Event`]s.
//!
//! **Why our own.** The state machine is small, and smoltcp's, which was looked at first, leaves out what a guest on a
//! real LAN owes it: it repeats a DISCOVER every 10 s for ever and a REQUEST without jitter, starts over at once after
//! a NAK or a lease of no length, believes any server's ACK or NAK, stays with the old server after another one rebound
//! it, and knows neither DECLINE, RELEASE nor option 52. It also brings an ARP and IP stack where the uplink has one.
//!
//! **States.**
//!
//! | state | enters by | does | leaves by |
//! |---|---|---|---|
//! | waiting | start; NAK; [`Client::decline`] | nothing | selecting: time over |
//! | selecting | waiting; no ACK; lease over | broadcasts DISCOVER | requesting: the first OFFER that can be used |
//! | requesting | OFFER | broadcasts REQUEST, 4 times in 60 s | bound: ACK; waiting: NAK; selecting: time over |
//! | bound | ACK | nothing | renewing: T1 |
//! | renewing | T1 | REQUEST to the server | bound: ACK; waiting: NAK; rebinding: T2 |
//! | rebinding | T2 | broadcasts REQUEST | bound: ACK of any server; waiting: NAK; selecting: lease over |
//! | released | [`Client::release`] | nothing, for good | |
//!
//! **Timers.** DISCOVER and REQUEST are repeated after 4, 8, 16, 32 and then each 64 s, give or take one (4.1); in
//! renewing and rebinding after half of the time left, but not before 60 s (4.4.5). T1 and T2 are the server's if they
//! are in order and shorter than the lease, else 0.5 and 0.875 of it. A lease counts from the sending of the first
//! REQUEST that the ACK may answer (4.4.1), so it is never over later here than there. After a NAK the client waits for
//! 1 to 10 s, after a DECLINE for 10 s (3.1). The first DISCOVER is not delayed and T1 and T2 have no jitter: that is
//! to keep many hosts apart that start together, and a network has one router. An infinite lease has no timers.
//!
//! **Whom it believes.** A reply must carry our transaction, our hardware address and, if it carries any, our client
//! identifier (RFC 6842 3). The first usable OFFER is taken; in requesting and renewing only the chosen server counts,
//! and only for the address that was asked for. In rebinding any server does, and becomes the chosen one.
//!
//! **What it makes of a reply.** Every reply needs option 54, OFFER and ACK also 51. Refused as
//! [`DhcpMalformed`](tapswitch_wire::DropReason::DhcpMalformed): what is cut short, a lease of no length, an address
//! that no host can have at all or in its subnet. A short lease is taken as it is, so one of 1 s is renewed twice a
//! second. Without a mask that makes sense the prefix is /24: too narrow a guess costs a hop by the router, one too
//! wide (the class A of 10.0.0.0) the way there. A router outside the subnet is kept: some clouds hand out a /32, and
//! their router answers ARP like any other. Routers and name servers that no host can be are left out, as is an MTU
//! below 576. A missing end option is forgiven. Other servers' words are ignored
//! ([`DhcpIgnored`](tapswitch_wire::DropReason::DhcpIgnored)).
//!
//! **Link layer.** RENEWING and RELEASE are unicast to the server's IP address, in a frame to the MAC address that its
//! last ACK came from: the server itself or the relay before it. So no ARP is needed, and a server that has moved to
//! other hardware is found again in rebinding.
//!
//! **Not here.** The client does not probe an address (RFC 5227); the owner may, and calls [`Client::decline`]. It
//! keeps nothing over a restart (INIT-REBOOT), but asks for the address that it last lost by time.

mod lease;
mod message;

use std::hash::Hasher;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::time::Duration;

use dhcproto::v4::{CLIENT_PORT, MessageType, SERVER_PORT};
use siphasher::sip::SipHasher13;
use tapswitch_wire::{DropReason, Emit, FrameOf, Instant, L3, L4, Mac, Meta, build};

pub use lease::Lease;
use lease::{Grant, Held, Phase};
use message::{Query, Reply};

/// Time to live of what the client sends.
const TTL: u8 = 64;
/// How often a REQUEST for an offered address is sent before the client starts over: 4 + 8 + 16 + 32 s (RFC 2131 3.1).
const MAX_REQUESTS: u32 = 4;
/// The least pause between two REQUESTs that extend a lease (RFC 2131 4.4.5).
const MIN_EXTEND_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a DECLINE (RFC 2131 3.1, step 5).
const DECLINE_PAUSE: Duration = Duration::from_secs(10);

/// Settings of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The router's own MAC address on the LAN.
    pub mac: Mac,
    /// The name that the server is told (option 12). What is no host name (RFC 1123 2.1) is left out.
    pub hostname: Option<String>,
    /// The client identifier (option 61), 2 to 255 bytes (RFC 2132 9.14); of another length it is left out. Without
    /// one, servers know the client by its MAC address.
    pub client_id: Option<Vec<u8>>,
    /// Seeds transaction identifiers and jitter; to be drawn anew each time.
    pub secret: u64,
}

impl Config {
    fn client_id(&self) -> Option<&[u8]> {
        self.client_id.as_deref().filter(|id| (2..=255).contains(&id.len()))
    }
}

/// What the owner has to act upon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An address was given, the first one or another one than before.
    Bound(Lease),
    /// The lease was extended. The address is the same; all else may have changed.
    Renewed(Lease),
    /// The lease is over or was taken back: the address may not be used any more. The client starts over by itself.
    Lost,
}

/// A client for one address on one LAN.
#[derive(Clone, Debug)]
pub struct Client {
    config: Config,
    random: Random,
    state: State,
    /// The transaction that replies must belong to.
    xid: u32,
    /// When the present attempt to get an address began.
    began: Instant,
    /// The address to ask for in a DISCOVER: the last one held, unless it was refused.
    wish: Option<Ipv4Addr>,
    /// Scratch space for frames.
    frame: Vec<u8>,
}

#[derive(Clone, Debug)]
enum State {
    Waiting { until: Instant },
    Selecting(Sent),
    Requesting { address: Ipv4Addr, server: Ipv4Addr, sent: Sent },
    Leased(Held),
    Released,
}

/// A message that is repeated with growing pauses.
#[derive(Clone, Copy, Debug)]
struct Sent {
    first: Instant,
    /// How often it was sent.
    times: u32,
    /// When it is due again.
    next: Instant,
    /// What it says in `secs`: a REQUEST says what the last DISCOVER said (RFC 2131 4.4.1).
    secs: u16,
}

impl Client {
    /// A client that begins at `now`: its first DISCOVER goes out by the next [`Client::poll`].
    pub fn new(config: Config, now: Instant) -> Client {
        let random = Random { key: SipHasher13::new_with_keys(config.secret, config.mac.as_u64()), drawn: 0 };
        let state = State::Waiting { until: now };
        Client { config, random, state, xid: 0, began: now, wish: None, frame: Vec::new() }
    }

    /// Takes a frame that came in by the uplink. Frames go to `out` whole and untagged, here as everywhere.
    ///
    /// # Errors
    /// * [`DropReason::DhcpIgnored`]: not UDP from port 67 to our port 68, not of our transaction, from a server that
    ///   was not chosen, or not expected in this state.
    /// * [`DropReason::Ipv4BadChecksum`], [`DropReason::TransportBadChecksum`].
    /// * [`DropReason::DhcpMalformed`]: not well formed, or what it grants cannot be used.
    pub fn handle<B: Deref<Target = [u8]>>(
        &mut self,
        frame: &FrameOf<B>,
        now: Instant,
        out: &mut impl Emit,
    ) -> Result<Option<Event>, DropReason> {
        if !self.is_addressed_by(frame) {
            return Err(DropReason::DhcpIgnored);
        }
        if !frame.ipv4_checksum_ok() {
            return Err(DropReason::Ipv4BadChecksum);
        }
        if !frame.transport_checksum_ok() {
            return Err(DropReason::TransportBadChecksum);
        }
        let reply = Reply::parse(frame.payload())?;
        let mine = reply.xid == self.xid && reply.mac == self.config.mac;
        if !mine || (reply.client_id.is_some() && reply.client_id.as_deref() != self.config.client_id()) {
            return Err(DropReason::DhcpIgnored);
        }
        // Whatever it says, it comes too late for a lease that is over.
        if self.lease().is_some_and(|lease| lease.until <= now) {
            return Ok(self.poll(now, out));
        }
        match reply.kind {
            MessageType::Offer => self.offered(&reply, now, out).map(|()| None),
            MessageType::Ack => self.acknowledged(&reply, frame.src_mac(), now).map(Some),
            MessageType::Nak => self.refused(&reply, now),
            _ => Err(DropReason::DhcpIgnored),
        }
    }

    /// Does what is due at `now`. Due at [`Client::deadline`]; earlier does no harm.
    pub fn poll(&mut self, now: Instant, out: &mut impl Emit) -> Option<Event> {
        if self.deadline().is_none_or(|due| now < due) {
            return None;
        }
        match &self.state {
            State::Waiting { .. } => self.start(now, out),
            State::Selecting(sent) => self.discover(Some(*sent), now, out),
            State::Requesting { address, server, sent } if sent.times < MAX_REQUESTS => {
                self.request(*address, *server, *sent, now, out);
            }
            State::Requesting { .. } => self.start(now, out),
            State::Leased(held) if held.lease.until <= now => {
                self.start(now, out);
                return Some(Event::Lost);
            }
            State::Leased(_) => self.extend(now, out),
            State::Released => {}
        }
        None
    }

    /// When [`Client::poll`] is next due; `None` if it never is: an infinite lease, or released.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Selecting(sent) | State::Requesting { sent, .. } => Some(sent.next),
            State::Leased(held) if held.lease.until == Lease::FOREVER => None,
            State::Leased(held) => Some(held.next),
            State::Released => None,
        }
    }

    /// The lease, if there is one. It may be past its end until [`Client::poll`] says so.
    pub fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Leased(held) => Some(&held.lease),
            _ => None,
        }
    }

    /// The name of the state in the table above, for people.
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Waiting { .. } => "waiting",
            State::Selecting(_) => "selecting",
            State::Requesting { .. } => "requesting",
            State::Leased(held) => match held.phase {
                Phase::Bound => "bound",
                Phase::Renewing => "renewing",
                Phase::Rebinding => "rebinding",
            },
            State::Released => "released",
        }
    }

    /// The owner found the leased address in use: gives it back by DHCPDECLINE and starts over after 10 s, without an
    /// event. Does nothing without a lease.
    pub fn decline(&mut self, now: Instant, out: &mut impl Emit) {
        let State::Leased(held) = &self.state else { return };
        let (address, server) = (held.lease.address.addr(), held.lease.server);
        self.xid = self.random.xid();
        let query =
            Query { requested: Some(address), server: Some(server), ..Query::new(MessageType::Decline, self.xid) };
        self.send(&query, None, out);
        self.wish = None;
        self.state = State::Waiting { until: now + DECLINE_PAUSE };
    }

    /// Gives the address back by DHCPRELEASE, for it is not needed any more. The client does nothing from now on.
    pub fn release(&mut self, out: &mut impl Emit) {
        if let State::Leased(held) = &self.state {
            let (address, server) = (held.lease.address.addr(), held.lease.server);
            let to = (held.server_mac, server);
            self.xid = self.random.xid();
            let query = Query { ciaddr: address, server: Some(server), ..Query::new(MessageType::Release, self.xid) };
            self.send(&query, Some(to), out);
        }
        self.state = State::Released;
    }

    /// Whether a frame is a datagram from a server's port to ours, for our MAC address or everybody's.
    fn is_addressed_by<B: Deref<Target = [u8]>>(&self, frame: &FrameOf<B>) -> bool {
        let parsed = frame.parsed();
        let datagram = parsed.l3 == L3::Ipv4 && parsed.l4 == L4::Udp && parsed.fragment.is_none();
        let for_us = frame.dst_mac() == self.config.mac || frame.dst_mac().is_broadcast();
        let link = parsed.vlan.is_none() && for_us && frame.src_mac().is_station();
        datagram && link && frame.dst_port() == CLIENT_PORT && frame.src_port() == SERVER_PORT
    }

    /// Begins a new attempt to get an address.
    fn start(&mut self, now: Instant, out: &mut impl Emit) {
        if let Some(lease) = self.lease() {
            self.wish = Some(lease.address.addr());
        }
        self.began = now;
        self.xid = self.random.xid();
        self.discover(None, now, out);
    }

    fn discover(&mut self, before: Option<Sent>, now: Instant, out: &mut impl Emit) {
        let secs = u16::try_from((now - self.began).as_secs()).unwrap_or(u16::MAX);
        let query = Query { requested: self.wish, secs, ..Query::new(MessageType::Discover, self.xid) };
        self.send(&query, None, out);
        let sent = self.sent(before.unwrap_or(Sent { first: now, times: 0, next: now, secs }), now);
        self.state = State::Selecting(Sent { secs, ..sent });
    }

    /// Asks for an offered address. The transaction stays that of the DISCOVER (RFC 2131 4.4.1).
    fn request(&mut self, address: Ipv4Addr, server: Ipv4Addr, sent: Sent, now: Instant, out: &mut impl Emit) {
        let query = Query {
            requested: Some(address),
            server: Some(server),
            secs: sent.secs,
            ..Query::new(MessageType::Request, self.xid)
        };
        self.send(&query, None, out);
        self.state = State::Requesting { address, server, sent: self.sent(sent, now) };
    }

    /// Asks for more time: the server before T2, everybody after it. Each try is a transaction of its own, so the ACK
    /// tells from which one on the new lease counts.
    fn extend(&mut self, now: Instant, out: &mut impl Emit) {
        let State::Leased(held) = &mut self.state else { return };
        self.xid = self.random.xid();
        let query = Query { ciaddr: held.lease.address.addr(), ..Query::new(MessageType::Request, self.xid) };
        let (phase, to, end) = match now < held.t2 {
            true => (Phase::Renewing, Some((held.server_mac, held.lease.server)), held.t2),
            false => (Phase::Rebinding, None, held.lease.until),
        };
        held.phase = phase;
        held.asked = now;
        held.next = end.min(now + ((end - now) / 2).max(MIN_EXTEND_PAUSE));
        self.send(&query, to, out);
    }

    fn offered(&mut self, reply: &Reply, now: Instant, out: &mut impl Emit) -> Result<(), DropReason> {
        let State::Selecting(Sent { secs, .. }) = self.state else { return Err(DropReason::DhcpIgnored) };
        // Terms that could not be accepted in the ACK are not worth a REQUEST.
        let grant = Grant::of(reply)?;
        self.request(grant.address.addr(), grant.server, Sent { first: now, times: 0, next: now, secs }, now, out);
        Ok(())
    }

    fn acknowledged(&mut self, reply: &Reply, from: Mac, now: Instant) -> Result<Event, DropReason> {
        let is = |address: Ipv4Addr, server: Option<Ipv4Addr>| {
            reply.yiaddr == address && server.is_none_or(|server| reply.server == server)
        };
        let (asked, wanted) = match &self.state {
            State::Requesting { address, server, sent } => (sent.first, is(*address, Some(*server))),
            State::Leased(held) => match held.phase {
                Phase::Bound => return Err(DropReason::DhcpIgnored),
                Phase::Renewing => (held.asked, is(held.lease.address.addr(), Some(held.lease.server))),
                Phase::Rebinding => (held.asked, is(held.lease.address.addr(), None)),
            },
            _ => return Err(DropReason::DhcpIgnored),
        };
        if !wanted {
            return Err(DropReason::DhcpIgnored);
        }
        let held = Grant::of(reply)?.held(asked, from);
        if held.lease.until <= now {
            return Err(DropReason::DhcpIgnored);
        }
        let lease = held.lease.clone();
        let event = if self.lease().is_some() { Event::Renewed(lease) } else { Event::Bound(lease) };
        self.state = State::Leased(held);
        Ok(event)
    }

    fn refused(&mut self, reply: &Reply, now: Instant) -> Result<Option<Event>, DropReason> {
        let chosen = match &self.state {
            State::Requesting { server, .. } => *server == reply.server,
            State::Leased(held) => match held.phase {
                Phase::Bound => false,
                Phase::Renewing => held.lease.server == reply.server,
                Phase::Rebinding => true,
            },
            _ => false,
        };
        if !chosen {
            return Err(DropReason::DhcpIgnored);
        }
        let lost = self.lease().map(|_| Event::Lost);
        self.wish = None;
        // A server that offers and refuses in turn must not keep both of us busy: the wait of RFC 2131 4.4.1.
        self.state = State::Waiting { until: now + self.random.between(1_000, 10_000) };
        Ok(lost)
    }

    /// Counts one more sending and sets the pause after it (RFC 2131 4.1).
    fn sent(&mut self, before: Sent, now: Instant) -> Sent {
        let pause = 4_000 << before.times.min(4);
        Sent {
            times: before.times.saturating_add(1),
            next: now + self.random.between(pause - 1_000, pause + 1_000),
            ..before
        }
    }

    /// Sends a message to one server or, for `None`, to everybody. Its source is the address in `ciaddr`, if any.
    fn send(&mut self, query: &Query, to: Option<(Mac, Ipv4Addr)>, out: &mut impl Emit) {
        let (mac, ip) = to.unwrap_or((Mac::BROADCAST, Ipv4Addr::BROADCAST));
        let payload = query.encode(&self.config);
        let link = build::Link { src: self.config.mac, dst: mac };
        let header = build::Ip { src: query.ciaddr.into(), dst: ip.into(), ttl: TTL, tos: 0, id: 0 };
        build::udp(&mut self.frame, link, header, CLIENT_PORT, SERVER_PORT, &payload);
        out.emit(&Meta::PLAIN, &self.frame);
    }
}

/// Numbers that a stranger cannot foresee: a keyed hash of a count.
#[derive(Clone, Copy, Debug)]
struct Random {
    key: SipHasher13,
    drawn: u64,
}

impl Random {
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        let mut hasher = self.key;
        hasher.write_u64(self.drawn);
        hasher.finish()
    }

    fn xid(&mut self) -> u32 {
        (self.draw() >> 32) as u32
    }

    /// A time from `least` to `most` milliseconds, both included.
    fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.draw() % (most - least + 1))
    }
}
