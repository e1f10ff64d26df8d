//! What would happen to a packet of a container, asked of a copy of the present state.
//!
//! A described packet begins where a real one would: in the container, whose kernel looks whether the destination is on its
//! subnet and asks for that station or for the gateway. If nobody would answer there, the packet is never sent, and what is
//! explained is the question.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tapswitch_dhcp::State;
use tapswitch_network::{Asked, Explained, Ports};
use tapswitch_wire::build::{self, Arp, Ip, Link, Tcp};
use tapswitch_wire::{
    ChecksumState, DropReason, Frame, FrameRef, Instant, L4, Mac, Meta, PortId, Step, Verdict, checksum, render,
    segment,
};

use super::Worker;
use super::commands::unknown_container;
use super::lan::{Lan, Member};
use super::trace::{outcome_name, words};
use crate::api::{Carried, Description, ExplainRequest, ExplainView, PacketRequest, SentView, StepView};
use crate::daemon::command::Refusal;

/// Headers of Ethernet, and of IP without options.
const ETHERNET: usize = 14;
const IP: usize = 20;
/// The longest frame: a super-frame.
const MAX_FRAME: usize = 65_535 + ETHERNET;
/// Source port, and identifier of a ping, if nobody says which.
const SPORT: u16 = 40_000;

/// A packet as it would leave the container.
struct Packet {
    meta: Meta,
    bytes: Vec<u8>,
    /// What the container did to send it.
    steps: Vec<StepView>,
    /// It is the question for a station, which nobody would answer: this address.
    unanswered: Option<Ipv4Addr>,
}

/// Notes what would be sent.
struct Recorder {
    /// Ports that take super-frames.
    offload: HashSet<PortId>,
    sent: Vec<(PortId, String)>,
}

impl Ports for Recorder {
    fn tx(&mut self, port: PortId, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        if !self.offload.contains(&port) {
            // Cut as it would be, to see whether it can be.
            segment::segment(meta, frame, &mut Vec::new(), &mut |_: &Meta, _: &[u8]| {})?;
        }
        self.sent.push((port, render(meta, frame)));
        Ok(())
    }

    fn tx_uplink(&mut self, meta: &Meta, frame: &[u8]) -> Result<(), DropReason> {
        self.sent.push((PortId::UPLINK, render(meta, frame)));
        Ok(())
    }
}

impl Worker {
    /// What would happen to a packet.
    pub(super) fn explain(&mut self, request: &ExplainRequest, now: Instant) -> Result<ExplainView, Refusal> {
        let names: HashMap<usize, String> =
            self.networks.iter().map(|lan| (lan.index, lan.plan.name.clone())).collect();
        let lan = self.networks.iter_mut().find(|lan| attached(lan, &request.from).is_some());
        let lan = lan.ok_or_else(|| unknown_container(&request.from))?;
        let (member, port) = attached(lan, &request.from).ok_or_else(|| unknown_container(&request.from))?;
        let mut packet = match &request.packet {
            PacketRequest::Frame(hex) => captured(hex)?,
            PacketRequest::Described(description) => described(lan, &request.from, member, description, now)?,
        };
        let offload = lan.members.values().filter_map(|member| member.attached.as_ref());
        let offload = offload.filter(|attached| attached.offload).map(|attached| attached.port).collect();
        let mut recorder = Recorder { offload, sent: Vec::new() };
        let (frame, length) = (render(&packet.meta, &packet.bytes), packet.bytes.len());
        let target = FrameRef::parse(packet.meta, &packet.bytes[..]).ok().and_then(|frame| frame.dst_ip());
        let Explained { verdict, steps, asked, crossing } =
            lan.network.explain(port, packet.meta, &mut packet.bytes, now, &mut recorder);
        let to = match verdict {
            Verdict::Forward(port) => vec![lan.name_of(port)],
            _ => Vec::new(),
        };
        let reason = match (verdict, packet.unanswered) {
            (_, Some(_)) => Some(DropReason::NeighbourUnresolved),
            (Verdict::Drop(reason), None) => Some(reason),
            _ => None,
        };
        let mut notes = Vec::new();
        match (verdict, packet.unanswered) {
            (_, Some(_)) => {}
            (Verdict::Forward(to), None) => notes.push(format!(
                "whether a program in {} takes it only that container knows: `ss -ltnu` there",
                lan.name_of(to)
            )),
            (Verdict::Relay, None) => notes.extend(beyond(&asked, &recorder)),
            _ => {}
        }
        notes.extend(crossing.iter().map(|crossing| {
            let network = names.get(&crossing.network).map_or("another", String::as_str);
            format!("its way goes on in the network {network}, which is not looked at here")
        }));
        let connects = asked.iter().find_map(|asked| match asked {
            Asked::Connect { to } => Some(*to),
            _ => None,
        });
        let sent = recorder.sent.into_iter().map(|(port, frame)| SentView { to: name(lan, port), frame }).collect();
        let help = reason.map(DropReason::help);
        Ok(ExplainView {
            network: lan.plan.name.clone(),
            port: request.from.clone(),
            frame,
            length,
            steps: packet.steps.into_iter().chain(steps.into_iter().map(StepView::from)).collect(),
            verdict: match packet.unanswered {
                Some(ip) => format!(
                    "never sent, {}: nobody in the network {} answers for {ip}, so the container's own kernel gives up",
                    DropReason::NeighbourUnresolved,
                    lan.plan.name
                ),
                None => words(verdict, &to),
            },
            outcome: if packet.unanswered.is_some() { "unsent" } else { outcome_name(verdict) }.into(),
            reason: reason.map(|reason| reason.name().into()),
            to,
            causes: help.map(|help| help.causes.into()),
            remedy: reason.and_then(|reason| remedy(reason, lan, target)).or(help.map(|help| help.remedy.into())),
            sent,
            notes,
            connects,
        })
    }
}

/// The container of this name, and its port, if it is attached.
fn attached<'a>(lan: &'a Lan, name: &str) -> Option<(&'a Member, PortId)> {
    let member = lan.members.get(name)?;
    Some((member, member.attached.as_ref()?.port))
}

fn name(lan: &Lan, port: PortId) -> String {
    if port == PortId::UPLINK { "uplink".into() } else { lan.name_of(port) }
}

/// What lies beyond the uplink, in words.
fn beyond(asked: &[Asked], recorder: &Recorder) -> Vec<String> {
    let words = |asked: &Asked| match asked {
        Asked::Connect { to } => format!("the host would open a TCP connection to {to}"),
        Asked::Send { to, bytes } => {
            format!("the host would send {bytes} bytes to {to}; whether somebody answers only trying tells")
        }
        Asked::Write { bytes } => format!("{bytes} bytes would go to the socket that this flow has"),
    };
    let mut notes: Vec<String> = asked.iter().map(words).collect();
    if recorder.sent.iter().any(|(port, _)| *port == PortId::UPLINK) {
        notes.push("it would leave by the uplink's device; whether somebody answers only trying tells".into());
    }
    notes
}

/// What to do, where more is known than what generally helps.
fn remedy(reason: DropReason, lan: &Lan, to: Option<std::net::IpAddr>) -> Option<String> {
    let network = &lan.plan.name;
    match (reason, to) {
        (DropReason::PolicyDenied, Some(to)) if lan.plan.uplink.is_user() => Some(format!(
            "Let the network {network} reach it: `allow = [\"{to}\"]` in its description, or --allow {to}."
        )),
        _ => None,
    }
}

/// A frame of a capture.
fn captured(hex: &str) -> Result<Packet, Refusal> {
    let wrong = || Refusal::Invalid("the frame is not in hexadecimal, two digits for each byte".into());
    if !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return Err(wrong());
    }
    if hex.len() / 2 > MAX_FRAME {
        return Err(Refusal::Invalid(format!("the frame is longer than {MAX_FRAME} bytes, which no port takes")));
    }
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong());
    let mut bytes = (0..hex.len()).step_by(2).map(byte).collect::<Result<Vec<u8>, Refusal>>()?;
    let mut steps = Vec::new();
    let mut meta = Meta::PLAIN;
    if let Ok(frame) = Frame::parse(meta, &mut bytes[..])
        && frame.parsed().fragment.is_none()
        && matches!(frame.parsed().l4, L4::Tcp | L4::Udp)
        && !frame.transport_checksum_ok()
    {
        let offset = if frame.parsed().l4 == L4::Tcp { 16 } else { 6 };
        meta.checksum = ChecksumState::Partial { start: frame.parsed().l4_start, offset };
        let text =
            "the checksum is not complete in the capture, as where a sender leaves it to its interface: taken as right";
        steps.push(container(Step::decided(tapswitch_wire::Stage::Parse, text)));
    }
    Ok(Packet { meta, bytes, steps, unanswered: None })
}

/// A step that the container's own kernel takes.
fn container(step: Step) -> StepView {
    StepView { stage: "container".into(), ..StepView::from(step) }
}

/// The packet that the container's kernel would send.
fn described(lan: &Lan, name: &str, member: &Member, wanted: &Description, now: Instant) -> Result<Packet, Refusal> {
    let plan = &lan.plan;
    let leases = lan.network.leases(now);
    let in_use = |state: State| matches!(state, State::Bound | State::Reserved);
    let leased = || leases.iter().find(|lease| lease.mac == member.mac && in_use(lease.state)).map(|lease| lease.ip);
    let own = member.ip.or_else(leased);
    let Some(src) = wanted.src.or(own) else {
        return Err(Refusal::Invalid(format!(
            "'{name}' has no address yet: its DHCP client has not asked, or got no answer; name one with --src"
        )));
    };
    let mut steps = Vec::new();
    let mut say = |text: String| steps.push(container(Step::decided(tapswitch_wire::Stage::Route, text)));
    if Some(src) != own {
        let has = own.map_or_else(|| "no address".to_string(), |own| own.to_string());
        say(format!("it sends from {src}, though it has {has}"));
    }
    let mtu = usize::from(plan.mtu);
    let bytes = |mac| frame(wanted, src, Link { src: member.mac, dst: mac });
    let sized = |packet: &(Meta, Vec<u8>)| packet.1.len() - ETHERNET;
    let to = wanted.to;
    let is_local = plan.subnet.contains(&to) && plan.subnet.contains(&src) && !is_end(&plan.subnet, to);
    let hop = if is_local {
        say(format!("{to} is of its own subnet {}: it sends to that station itself", plan.subnet));
        to
    } else if to.is_multicast() || to.is_broadcast() || is_end(&plan.subnet, to) {
        say(format!("{to} is not one station: it sends to all"));
        to
    } else if lan.network.config().bridged {
        return Err(Refusal::Invalid(format!(
            "{to} is behind the router of the LAN that network {} is part of, which is not the switch's: explain goes as \
             far as the LAN; name an address of {}",
            plan.name, plan.subnet
        )));
    } else {
        match plan.leads_on() {
            true => say(format!("{to} is elsewhere: it sends to its gateway {}", plan.gateway)),
            false => say(format!(
                "{to} is elsewhere, and it has no default route, for the network {} is internal: its kernel says \"Network \
                 is unreachable\"; if it had one, this would happen",
                plan.name
            )),
        }
        plan.gateway
    };
    let mac = if to.is_multicast() || to.is_broadcast() || is_end(&plan.subnet, to) {
        Some(Mac::BROADCAST)
    } else {
        station(lan, hop, &leases, now)
    };
    let Some(mac) = mac else {
        say(format!("it must ask first who has {hop}"));
        let mut bytes = Vec::new();
        let question = Arp { operation: 1, sha: member.mac, spa: src, tha: Mac::default(), tpa: hop };
        build::arp(&mut bytes, Link { src: member.mac, dst: Mac::BROADCAST }, question);
        return Ok(Packet { meta: Meta::PLAIN, bytes, steps, unanswered: Some(hop) });
    };
    let packet = bytes(mac);
    if sized(&packet) > mtu {
        let size = sized(&packet);
        say(format!(
            "its interface takes packets of {mtu} bytes, and this one has {size}: its kernel would cut it, or refuse it if it \
             must not be cut; as one packet, this would happen"
        ));
    }
    Ok(Packet { meta: packet.0, bytes: packet.1, steps, unanswered: None })
}

/// Whether an address is the subnet's own or that of all its stations.
fn is_end(subnet: &Ipv4Net, ip: Ipv4Addr) -> bool {
    subnet.prefix_len() < 31 && (ip == subnet.broadcast() || ip == subnet.network())
}

/// The MAC address of a station of the LAN that would answer for an address.
fn station(lan: &Lan, ip: Ipv4Addr, leases: &[tapswitch_dhcp::LeaseView], now: Instant) -> Option<Mac> {
    let config = lan.network.config();
    if ip == config.gateway && !config.bridged {
        return Some(config.gateway_mac());
    }
    let is_there = |mac: &Mac| {
        let is_member = |member: &Member| member.attached.is_some() && member.mac == *mac;
        lan.members.values().any(is_member) || lan.network.fdb(now).iter().any(|entry| entry.mac == *mac)
    };
    let reserved = lan.members.values().find(|member| member.ip == Some(ip)).map(|member| member.mac);
    let in_use = |state: State| matches!(state, State::Bound | State::Reserved);
    let leased = || leases.iter().find(|lease| lease.ip == ip && in_use(lease.state)).map(|lease| lease.mac);
    let heard = || lan.network.neighbours(now).into_iter().find(|it| it.ip == ip).and_then(|it| it.mac);
    reserved.or_else(leased).or_else(heard).filter(is_there)
}

/// The frame of a described packet.
fn frame(wanted: &Description, src: Ipv4Addr, link: Link) -> (Meta, Vec<u8>) {
    let ip = Ip { src: src.into(), dst: wanted.to.into(), ttl: wanted.ttl.unwrap_or(64), tos: 0, id: 1 };
    let sport = wanted.sport.unwrap_or(SPORT);
    let payload = |headers: usize, usual: usize| match wanted.size {
        Some(size) => vec![0; usize::from(size).saturating_sub(IP + headers)],
        None => vec![0; usual],
    };
    let mut bytes = Vec::new();
    match wanted.carries {
        Carried::Tcp => {
            let bits = wanted.tcp_flags.iter().fold(0, |bits, flag| bits | flag.bit());
            let flags = if bits == 0 { 0x02 } else { bits };
            let options: &[u8] = if flags & 0x02 != 0 { &[2, 4, 5, 0xb4] } else { &[] };
            let dst_port = wanted.dport.unwrap_or(80);
            let ack = u32::from(flags & 0x10 != 0);
            let tcp = Tcp { src_port: sport, dst_port, seq: 1, ack, flags, window: 64_240, options };
            let payload = payload(20 + options.len(), 0);
            let meta = build::tcp(&mut bytes, link, ip, tcp, payload.len());
            bytes.extend_from_slice(&payload);
            return (meta, bytes);
        }
        Carried::Udp => {
            build::udp(&mut bytes, link, ip, sport, wanted.dport.unwrap_or(53), &payload(8, 0));
        }
        Carried::Icmp => {
            let [high, low] = sport.to_be_bytes();
            build::icmp(&mut bytes, link, ip, 8, 0, [high, low, 0, 1], &payload(8, 56));
        }
    }
    if !wanted.df {
        let header = &mut bytes[ETHERNET..ETHERNET + IP];
        (header[6], header[10], header[11]) = (0, 0, 0);
        let check = checksum::checksum(0, header);
        header[10..12].copy_from_slice(&check.to_be_bytes());
    }
    (Meta::PLAIN, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(carries: Carried) -> Description {
        Description {
            to: Ipv4Addr::new(192, 0, 2, 9),
            carries,
            src: None,
            dport: None,
            sport: None,
            size: None,
            df: false,
            ttl: None,
            tcp_flags: Vec::new(),
        }
    }

    #[test]
    fn a_described_packet_is_sound_and_as_large_as_was_said() {
        let link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
        for carries in [Carried::Tcp, Carried::Udp, Carried::Icmp] {
            for (size, df) in
                [(None, false), (Some(1_400), true), (Some(9_000), false), (Some(65_535), true), (Some(0), true)]
            {
                let wanted = Description { size, df, ..wanted(carries) };
                let (meta, mut bytes) = frame(&wanted, Ipv4Addr::new(10, 0, 0, 2), link);
                let total = bytes.len();
                let frame = Frame::parse(meta, &mut bytes[..]).unwrap();
                assert!(frame.ipv4_checksum_ok() && frame.transport_checksum_ok(), "{carries:?} {size:?}");
                if let Some(size @ 1_000..) = size {
                    assert_eq!((total, frame.packet().len()), (ETHERNET + usize::from(size), usize::from(size)));
                }
                assert_eq!(frame.packet()[6] & 0x40 != 0, df || carries == Carried::Tcp);
            }
        }
    }

    #[test]
    fn a_captured_frame_is_read_and_what_is_no_frame_is_refused() {
        let link = Link { src: Mac([2, 0, 0, 0, 0, 1]), dst: Mac([2, 0, 0, 0, 0, 2]) };
        let (_, mut bytes) = frame(&wanted(Carried::Udp), Ipv4Addr::new(10, 0, 0, 2), link);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let packet = captured(&hex(&bytes)).map_err(|refusal| refusal.to_string()).unwrap();
        assert_eq!((packet.meta, &packet.bytes, packet.steps.len()), (Meta::PLAIN, &bytes, 0));
        *bytes.last_mut().unwrap() ^= 0x55;
        let packet = captured(&hex(&bytes)).map_err(|refusal| refusal.to_string()).unwrap();
        assert!(packet.steps[0].text.contains("checksum"), "{:?}", packet.steps);
        for text in ["0", "zz", "0\u{e9}0"] {
            assert!(captured(text).is_err(), "{text}");
        }
    }
}
