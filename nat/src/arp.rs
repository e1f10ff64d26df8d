//! ARP (RFC 826) for our own address only, and its defence (RFC 5227).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tapswitch_wire::build::Arp;
use tapswitch_wire::{DropReason, Emit, Frame, Journey, Mac, Stage, Step, build};

use crate::gateway::{Gateway, Outcome, Turn};

/// Our address is defended no more often than this (RFC 5227 1.1, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

impl Gateway {
    pub(crate) fn handle_arp(
        &mut self,
        frame: &Frame<'_>,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<Outcome, DropReason> {
        let arp = parse(frame.packet()).ok_or(DropReason::ArpMalformed)?;
        if arp.sha == self.config.mac {
            return Err(DropReason::SourceIsOurs);
        }
        if arp.spa == self.config.ip {
            return Err(self.defend(arp.sha, turn));
        }
        let is_probe = arp.spa.is_unspecified();
        if !is_probe && self.config.verify_source && !self.config.subnet.contains(&arp.spa) {
            return Err(DropReason::SpoofedSource);
        }
        let for_us = arp.tpa == self.config.ip;
        let merged = !is_probe && self.merge(&arp, for_us, turn);
        if for_us {
            if arp.operation == REQUEST {
                turn.journey.note(|| Step::decided(Stage::Neighbour, format!("answer who has {}", arp.tpa)));
                self.emit_arp(REPLY, (arp.sha, arp.spa), arp.sha, turn.out);
            }
            return Ok(Outcome::Reply);
        }
        // An announcement or an overheard reply that changed the table was taken in; a question for another was not.
        let asks = arp.operation == REQUEST && arp.spa != arp.tpa;
        if merged && !asks { Ok(Outcome::Reply) } else { Err(DropReason::ArpNotForUs) }
    }

    /// Takes in the sender's addresses, and sends what waited for them. A new entry is made only if the packet is for us.
    fn merge(&mut self, arp: &Arp, for_us: bool, turn: &mut Turn<'_, impl Journey, impl Emit>) -> bool {
        if !self.lan.is_neighbour(arp.spa) {
            return false;
        }
        let Some(waiting) = self.neighbours.confirm(arp.spa.into(), arp.sha, for_us, turn.now) else { return false };
        turn.journey.note(|| Step::changed(Stage::Neighbour, format!("{} is at {}", arp.spa, arp.sha)));
        for mut packet in waiting {
            if let Ok(mut frame) = Frame::parse(packet.meta, &mut packet.frame) {
                self.emit_to(&mut frame, arp.sha, turn.out);
            }
        }
        true
    }

    /// Another host claims our address: say whose it is, but do not quarrel (RFC 5227 2.4).
    fn defend(&mut self, claimant: Mac, turn: &mut Turn<'_, impl Journey, impl Emit>) -> DropReason {
        let due = self.defended.is_none_or(|last| turn.now - last >= DEFEND_INTERVAL);
        turn.journey.note(|| {
            let answer = if due { "announce our own" } else { "it was defended just now" };
            Step::decided(Stage::Neighbour, format!("{claimant} claims our address: {answer}"))
        });
        if due {
            self.defended = Some(turn.now);
            self.emit_announcement(turn.out);
        }
        DropReason::ArpConflict
    }

    /// Tells everybody whose our address is (RFC 5227 3: an announcement is a request).
    pub(crate) fn emit_announcement(&mut self, out: &mut impl Emit) {
        self.emit_arp(REQUEST, (Mac::ZERO, self.config.ip), Mac::BROADCAST, out);
    }

    /// Asks `mac`, or everybody, for the MAC address of `ip`.
    pub(crate) fn emit_request(&mut self, ip: IpAddr, mac: Mac, out: &mut impl Emit) {
        if let IpAddr::V4(ip) = ip {
            self.emit_arp(REQUEST, (Mac::ZERO, ip), mac, out);
        }
    }

    fn emit_arp(&mut self, operation: u16, target: (Mac, Ipv4Addr), to: Mac, out: &mut impl Emit) {
        let arp = Arp { operation, sha: self.config.mac, spa: self.config.ip, tha: target.0, tpa: target.1 };
        let link = self.link_to(to);
        build::arp(&mut self.buffer, link, arp);
        out.emit(&tapswitch_wire::Meta::PLAIN, &self.buffer);
    }
}

/// Reads an ARP packet for Ethernet and IPv4; what follows it is padding. `None` if it is anything else, or if its sender
/// cannot be a station.
fn parse(packet: &[u8]) -> Option<Arp> {
    let (packet, _padding) = packet.split_first_chunk::<28>()?;
    let [hrd1, hrd2, pro1, pro2, hln, pln, op1, op2, addresses @ ..] = packet;
    if [*hrd1, *hrd2, *pro1, *pro2, *hln, *pln] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let operation = u16::from_be_bytes([*op1, *op2]);
    let (sha, rest) = addresses.split_first_chunk::<6>()?;
    let (spa, rest) = rest.split_first_chunk::<4>()?;
    let (tha, rest) = rest.split_first_chunk::<6>()?;
    let (tpa, _) = rest.split_first_chunk::<4>()?;
    let arp = Arp { operation, sha: Mac(*sha), spa: (*spa).into(), tha: Mac(*tha), tpa: (*tpa).into() };
    (matches!(operation, REQUEST | REPLY) && arp.sha.is_station()).then_some(arp)
}
