//! What is addressed to the gateway itself.

use std::net::{IpAddr, Ipv4Addr};

use tapswitch_wire::{ChecksumState, DropReason, Emit, Frame, Instant, Journey, L4, Stage, Step, build};

use crate::IcmpError;
use crate::gateway::{Gateway, Outcome, Service, Turn};
use crate::ipv4::OWN_TTL;

pub(crate) const DHCP_PORT: u16 = 67;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

impl Gateway {
    /// Whether somebody serves this at our address.
    pub(crate) fn serves(&self, service: Service) -> bool {
        self.config.services.contains(&service)
    }

    /// Whether somebody serves this port of ours over TCP and UDP.
    fn serves_port(&self, port: u16) -> bool {
        self.serves(Service::AnyPort) || self.serves(Service::Port(port))
    }

    pub(crate) fn handle_local(
        &mut self,
        frame: &mut Frame<'_>,
        src: Ipv4Addr,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<Outcome, DropReason> {
        turn.journey.note(|| Step::decided(Stage::Route, "it is for the gateway itself"));
        if frame.parsed().fragment.is_some() {
            return Err(DropReason::FragmentNotSupported);
        }
        match frame.parsed().l4 {
            L4::Tcp | L4::Udp if self.serves_port(frame.dst_port()) => {
                turn.journey
                    .note(|| Step::decided(Stage::Gateway, "for a service at our own address that the uplink answers"));
                Ok(Outcome::Uplink)
            }
            L4::Icmp => self.handle_echo(frame, self.config.ip, src, turn),
            L4::Tcp | L4::Udp => {
                check_transport(frame)?;
                Err(self.closed(frame, src, turn))
            }
            L4::Other | L4::Icmpv6 => {
                Err(self.refuse(frame, IcmpError::ProtocolUnreachable, DropReason::UnknownProtocol, turn))
            }
            L4::Malformed | L4::None => Err(DropReason::TransportMalformed),
        }
    }

    /// Answers for a port of ours on which nobody listens. For the one who serves [`Service::AnyPort`]: of a frame that
    /// [`Gateway::handle`](Gateway::handle) left to it. Its checksum was looked at.
    ///
    /// Returns why it is dropped.
    pub fn refuse_closed(
        &mut self,
        frame: &Frame<'_>,
        now: Instant,
        journey: &mut impl Journey,
        out: &mut impl Emit,
    ) -> DropReason {
        match frame.src_ip() {
            Some(IpAddr::V4(src)) => self.closed(frame, src, &mut Turn { now, journey, out }),
            _ => DropReason::NoSuchService,
        }
    }

    fn closed(&mut self, frame: &Frame<'_>, src: Ipv4Addr, turn: &mut Turn<'_, impl Journey, impl Emit>) -> DropReason {
        if frame.parsed().l4 == L4::Tcp {
            self.reset(frame, src, turn);
            return DropReason::NoSuchService;
        }
        self.refuse(frame, IcmpError::PortUnreachable, DropReason::NoSuchService, turn)
    }

    /// Turns an echo request into its reply, in place. Every other message is ignored: no timestamp or mask reply (RFC
    /// 6918), no reaction to redirects or source quench.
    pub(crate) fn handle_echo(
        &mut self,
        frame: &mut Frame<'_>,
        own: Ipv4Addr,
        src: Ipv4Addr,
        turn: &mut Turn<'_, impl Journey, impl Emit>,
    ) -> Result<Outcome, DropReason> {
        check_transport(frame)?;
        match frame.segment() {
            [ECHO_REQUEST, 0, rest @ ..] if rest.len() >= 6 => {}
            [ECHO_REQUEST, 0, ..] => return Err(DropReason::TransportMalformed),
            _ => return Err(DropReason::IcmpIgnored),
        }
        if self.is_above_mtu(frame) {
            return Err(DropReason::AboveMtu);
        }
        turn.journey.note(|| Step::decided(Stage::Gateway, "answer the echo request"));
        frame.set_icmp_type(ECHO_REPLY);
        frame.set_src_ip(own.into());
        frame.set_dst_ip(src.into());
        frame.set_ttl(OWN_TTL);
        let asker = frame.src_mac();
        self.emit_to(frame, asker, turn.out);
        Ok(Outcome::Reply)
    }

    /// Refuses a TCP segment as a closed port does (RFC 9293 3.10.7.1). A reset is never answered.
    fn reset(&mut self, frame: &Frame<'_>, src: Ipv4Addr, turn: &mut Turn<'_, impl Journey, impl Emit>) {
        let Some(header) = frame.segment().first_chunk::<20>() else { return };
        let [.., s0, s1, s2, s3, a0, a1, a2, a3, _, flags, _, _, _, _, _, _] = *header;
        if flags & RST != 0 {
            return;
        }
        let (their_seq, their_ack) = (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([a0, a1, a2, a3]));
        let (seq, ack, flags) = if flags & ACK != 0 {
            (their_ack, 0, RST)
        } else {
            let len = frame.payload().len() as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            (0, their_seq.wrapping_add(len), RST | ACK)
        };
        let (src_port, dst_port) = (frame.dst_port(), frame.src_port());
        let tcp = build::Tcp { src_port, dst_port, seq, ack, flags, window: 0, options: &[] };
        let (link, header) = (self.link_to(frame.src_mac()), self.ip_to(src.into(), 0));
        turn.journey.note(|| Step::decided(Stage::Gateway, format!("nothing listens on port {src_port}: reset")));
        let meta = build::tcp(&mut self.buffer, link, header, tcp, 0);
        turn.out.emit(&meta, &self.buffer);
    }
}

/// Checks the checksum of what the gateway itself, or a service in its place, is about to believe.
///
/// # Errors
/// [`DropReason::TransportBadChecksum`]; [`DropReason::BadVnetHeader`] if it is said to be partial, but in another field
/// than the protocol's own, which then nobody has checked.
pub(crate) fn check_transport(frame: &Frame<'_>) -> Result<(), DropReason> {
    let field = match frame.parsed().l4 {
        L4::Tcp => 16,
        L4::Udp => 6,
        _ => 2,
    };
    let right = match frame.meta().checksum {
        ChecksumState::Complete | ChecksumState::Verified => frame.transport_checksum_ok(),
        ChecksumState::Partial { start, offset } if (start, offset) != (frame.parsed().l4_start, field) => {
            return Err(DropReason::BadVnetHeader);
        }
        // ICMP has no pseudo header, so there is nothing that could stand there yet.
        ChecksumState::Partial { .. } if frame.parsed().l4 == L4::Icmp => frame.segment().get(2..4) == Some(&[0, 0]),
        ChecksumState::Partial { .. } => true,
    };
    if right { Ok(()) } else { Err(DropReason::TransportBadChecksum) }
}
