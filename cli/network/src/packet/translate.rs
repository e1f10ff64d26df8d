//! The slow way through a packet uplink: first packets, fragments, ICMP errors, and whatever else needs a decision.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tapswitch_conntrack::fragment::{Key, Track};
use tapswitch_conntrack::{Realm, Refusal, Way};
use tapswitch_nat::{IcmpError, Outcome};
use tapswitch_wire::{DropReason, Frame, Journey, L4, Meta, PortId, Stage, Step, Verdict};

use super::{Decided, Packet, Wire};
use crate::lan::Ports;
use crate::uplink::Inside;

impl Packet {
    /// A packet of a container that the gateway sends out. Its TTL is decremented.
    pub(crate) fn outbound(
        &mut self,
        port: PortId,
        frame: &mut Frame<'_>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Verdict, DropReason> {
        self.translate(Realm::Inside, port, frame, inside, journey)
    }

    /// A packet from outside that the outer gateway found sound. Its TTL is as it came.
    pub(super) fn inbound(
        &mut self,
        frame: &mut Frame<'_>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Verdict, DropReason> {
        self.translate(Realm::Outside, PortId::UPLINK, frame, inside, journey)
    }

    fn translate(
        &mut self,
        realm: Realm,
        port: PortId,
        frame: &mut Frame<'_>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Verdict, DropReason> {
        if frame.parsed().fragment.is_some() {
            return self.fragment(realm, port, frame, inside, journey);
        }
        if frame.parsed().l4 == L4::Icmp && matches!(frame.segment().first(), Some(3..=5 | 11 | 12)) {
            return self.icmp_error(realm, frame, inside, journey);
        }
        let way = match self.admit(realm, port, frame, inside, journey)? {
            Some(way) => way,
            None => return Ok(Verdict::Reply),
        };
        let decided = Decided { rewrite: way.rewrite, egress: way.egress, id: None };
        self.pass_on(realm, frame, &decided, Some(&way), inside, journey)?;
        Ok(verdict(realm))
    }

    /// The session of a packet; none if it was for our own address and answered.
    fn admit(
        &mut self,
        realm: Realm,
        port: PortId,
        frame: &mut Frame<'_>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Option<Way>, DropReason> {
        let now = inside.now();
        if realm == Realm::Inside
            && let Some(dst) = frame.dst_ip()
            && let Err(reason) = self.told.policy.target(SocketAddr::new(dst, frame.dst_port()), |_| false)
        {
            journey.note(|| Step::decided(Stage::Nat, format!("{dst} is out of reach by policy")));
            self.refuse(realm, frame, IcmpError::AdminProhibited, inside);
            return Err(reason);
        }
        // Without translation the translator does not know our address.
        let own = self.address.map(|address| IpAddr::V4(address.addr()));
        if !self.told.nat.translate && frame.dst_ip() == own {
            return self.own(realm, frame, inside, journey).map(|()| None);
        }
        match self.conntrack.admit(realm, frame, port.0, now) {
            Ok(way) => {
                journey.note(|| match way.is_new {
                    true => Step::decided(Stage::Nat, "a new session"),
                    false => Step::looked_up(Stage::Nat, "of an established session"),
                });
                self.conntrack.clamp(frame);
                Ok(Some(way))
            }
            Err(Refusal::Own) => self.own(realm, frame, inside, journey).map(|()| None),
            Err(Refusal::Silent(reason)) => Err(reason),
            Err(Refusal::Told(reason)) => {
                journey
                    .note(|| Step::decided(Stage::Nat, format!("refused, and the sender is told: {}", reason.text())));
                let error = match reason {
                    DropReason::UplinkDown => IcmpError::NetUnreachable,
                    _ => IcmpError::AdminProhibited,
                };
                self.refuse(realm, frame, error, inside);
                Err(reason)
            }
        }
    }

    /// For our own outside address, and no session's.
    fn own(
        &mut self,
        realm: Realm,
        frame: &mut Frame<'_>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<(), DropReason> {
        let now = inside.now();
        let (Some(IpAddr::V4(own)), Some(outside)) = (frame.dst_ip(), &mut self.outside) else {
            return Err(DropReason::Filtered);
        };
        let outcome = match realm {
            Realm::Inside => {
                let (gateway, mut lan) = inside.parts();
                gateway.handle_own(frame, own, now, journey, &mut lan)
            }
            Realm::Outside => {
                let wire = &mut Wire { ports: inside.ports(), drops: &mut self.drops };
                outside.handle_own(frame, own, now, journey, wire)
            }
        };
        match outcome {
            Outcome::Drop(reason) => Err(reason),
            _ => Ok(()),
        }
    }

    /// Tells the sender of a packet why it went no further, if that may be said.
    fn refuse(&mut self, realm: Realm, frame: &Frame<'_>, error: IcmpError, inside: &mut Inside<'_, impl Ports>) {
        let now = inside.now();
        let told = match (realm, &mut self.outside) {
            (Realm::Inside, _) => {
                let (gateway, mut lan) = inside.parts();
                gateway.icmp_error(frame, error, now, &mut lan)
            }
            (Realm::Outside, Some(outside)) => {
                let wire = &mut Wire { ports: inside.ports(), drops: &mut self.drops };
                outside.icmp_error(frame, error, now, wire)
            }
            (Realm::Outside, None) => Ok(()),
        };
        if let Err(reason @ DropReason::IcmpRateLimited) = told {
            self.drops.count(reason);
        }
    }

    /// A packet with a decision: checked against TTL and MTU of where it goes, rewritten, sent.
    fn pass_on(
        &mut self,
        realm: Realm,
        frame: &mut Frame<'_>,
        decided: &Decided,
        way: Option<&Way>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<(), DropReason> {
        if realm == Realm::Outside && frame.ttl() < 2 {
            self.refuse(realm, frame, IcmpError::TimeExceeded, inside);
            return Err(DropReason::TtlExceeded);
        }
        let (fits, mtu) = match (decided.egress, &self.outside) {
            (Realm::Inside, _) => (inside.gateway().fits(frame), inside.gateway().config().mtu),
            (Realm::Outside, Some(outside)) => (outside.fits(frame), self.mtu),
            (Realm::Outside, None) => {
                self.refuse(realm, frame, IcmpError::NetUnreachable, inside);
                return Err(DropReason::UplinkDown);
            }
        };
        let dst = decided.rewrite.dst().ip;
        if decided.egress == Realm::Outside && self.hop_outside(dst).is_none() {
            self.refuse(realm, frame, IcmpError::NetUnreachable, inside);
            return Err(DropReason::NoRoute);
        }
        let may_fragment = frame.packet().get(6).is_some_and(|flags| flags & 0x40 == 0);
        if !fits && (!may_fragment || frame.meta().gso.is_some()) {
            if !may_fragment {
                self.refuse(realm, frame, IcmpError::FragmentationNeeded { mtu }, inside);
            }
            return Err(DropReason::AboveMtu);
        }
        let (Some(IpAddr::V4(old_src)), Some(IpAddr::V4(old_dst))) = (frame.src_ip(), frame.dst_ip()) else {
            return Err(DropReason::Ipv4Malformed);
        };
        frame.rewrite(&decided.rewrite);
        journey.note(|| {
            let (new_src, new_dst) = (decided.rewrite.src(), decided.rewrite.dst());
            Step::changed(Stage::Nat, format!("{old_src} -> {old_dst} becomes {new_src} -> {new_dst}"))
        });
        if realm == Realm::Outside {
            frame.decrement_ttl();
        }
        // Who shares an address must not share identifications (RFC 6864 5.3.1). That of an atomic packet says nothing.
        let is_atomic = !may_fragment && frame.parsed().fragment.is_none();
        let is_shared = decided.egress == Realm::Outside || decided.rewrite.src().ip != old_src;
        if !is_atomic && is_shared {
            let (src, protocol) = (decided.rewrite.src().ip, frame.parsed().protocol);
            frame.set_ip_id(decided.id.unwrap_or_else(|| self.ids.next(src, dst, protocol)));
        }
        let hop = self.send(frame, decided.egress, dst, inside, journey)?;
        if let Some(way) = way {
            self.note_hop(way, hop, inside);
        }
        Ok(())
    }

    fn note_hop(&self, way: &Way, hop: Ipv4Addr, inside: &mut Inside<'_, impl Ports>) {
        let now = inside.now();
        let mac = match (way.egress, &self.outside) {
            (Realm::Inside, _) => inside.gateway().resolved(hop, now),
            (Realm::Outside, outside) => outside.as_ref().and_then(|outside| outside.resolved(hop, now)),
        };
        if let Some(mac) = mac {
            self.conntrack.note_hop(way, hop, mac, now);
        }
    }

    /// Sends a packet, in pieces if it must be. Returns its next hop.
    fn send(
        &mut self,
        frame: &mut Frame<'_>,
        egress: Realm,
        dst: Ipv4Addr,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Ipv4Addr, DropReason> {
        let now = inside.now();
        match egress {
            Realm::Inside => {
                let (gateway, mut lan) = inside.parts();
                let hop = gateway.next_hop(dst).ok_or(DropReason::NoRoute)?;
                gateway.send_cut(frame, hop, now, journey, &mut lan)?;
                Ok(hop)
            }
            Realm::Outside => {
                let hop = self.hop_outside(dst).ok_or(DropReason::NoRoute)?;
                let outside = self.outside.as_mut().ok_or(DropReason::UplinkDown)?;
                let wire = &mut Wire { ports: inside.ports(), drops: &mut self.drops };
                outside.send_cut(frame, hop, now, journey, wire)?;
                Ok(hop)
            }
        }
    }

    fn fragment(
        &mut self,
        realm: Realm,
        port: PortId,
        frame: &mut Frame<'_>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Verdict, DropReason> {
        let now = inside.now();
        self.forget_late_fragments(now);
        // Each host outside has a share of its own, as each container has.
        let source = match (realm, frame.src_ip()) {
            (Realm::Outside, Some(IpAddr::V4(ip))) => ip.to_bits(),
            _ => port.0,
        };
        let key = match self.fragments.track(realm as u8, source, frame, now) {
            Track::First(key) => key,
            Track::Later(decided) => {
                journey.note(|| Step::looked_up(Stage::Nat, "a fragment of a datagram whose session is known"));
                self.pass_on(realm, frame, &decided, None, inside, journey)?;
                return Ok(verdict(realm));
            }
            Track::Held => {
                journey.note(|| Step::decided(Stage::Nat, "a fragment that waits for the first one of its datagram"));
                return Ok(verdict(realm));
            }
            Track::Drop(reason) => return Err(reason),
        };
        let way = match self.admit(realm, port, frame, inside, journey) {
            Ok(Some(way)) => way,
            Ok(None) => {
                drop(self.fragments.decided(key, Err(DropReason::FragmentNotSupported)));
                return Ok(Verdict::Reply);
            }
            Err(reason) => {
                drop(self.fragments.decided(key, Err(reason)));
                return Err(reason);
            }
        };
        let is_shared = way.egress == Realm::Outside || way.rewrite.src().ip != key.src;
        let id = is_shared.then(|| self.id_for(&way, key));
        let decided = Decided { rewrite: way.rewrite, egress: way.egress, id };
        let passed = self.pass_on(realm, frame, &decided, None, inside, journey);
        if let Err(reason) = passed {
            drop(self.fragments.decided(key, Err(reason)));
            return Err(reason);
        }
        for (meta, mut held) in self.fragments.decided(key, Ok(decided.clone())) {
            let result = Frame::parse(meta, &mut held[..])
                .and_then(|mut frame| self.pass_on(realm, &mut frame, &decided, None, inside, journey));
            if let Err(reason) = result {
                self.drops.count(reason);
            }
        }
        Ok(verdict(realm))
    }

    fn id_for(&mut self, way: &Way, key: Key) -> u16 {
        self.ids.next(way.rewrite.src().ip, way.rewrite.dst().ip, key.protocol)
    }

    /// An ICMP error about a packet of a session.
    fn icmp_error(
        &mut self,
        realm: Realm,
        frame: &mut Frame<'_>,
        inside: &mut Inside<'_, impl Ports>,
        journey: &mut impl Journey,
    ) -> Result<Verdict, DropReason> {
        let now = inside.now();
        let related = self.conntrack.related(realm, frame, now)?;
        if realm == Realm::Outside {
            if frame.ttl() < 2 {
                // An error is never answered by another.
                return Err(DropReason::TtlExceeded);
            }
            frame.decrement_ttl();
        }
        related.apply(frame);
        let to = related.addressee();
        journey.note(|| Step::changed(Stage::Nat, format!("an ICMP error about a session, translated for {to}")));
        self.send(frame, related.egress, to, inside, journey)?;
        Ok(verdict(realm))
    }

    /// A next hop outside stayed silent: whoever sent this packet hears of it (RFC 1812 4.3.3.1).
    pub(super) fn tell_unreachable(&mut self, meta: Meta, bytes: &mut [u8], inside: &mut Inside<'_, impl Ports>) {
        if let Ok(mut frame) = Frame::parse(meta, bytes)
            && let Some(realm) = self.conntrack.restore(Realm::Outside, &mut frame)
        {
            self.refuse(realm, &frame, IcmpError::HostUnreachable, inside);
        }
    }
}

/// How a packet ended that was passed on.
fn verdict(realm: Realm) -> Verdict {
    match realm {
        Realm::Inside => Verdict::Relay,
        Realm::Outside => Verdict::Reply,
    }
}
